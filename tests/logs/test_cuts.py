# SPDX-License-Identifier: MIT
"""An answer to a part of a log is weaker than that to the whole, and never another."""

import pytest

from tests.logs.answers import answers_to, certain_zones, stronger
from tests.logs.cuts import cuts, headless
from tests.logs.kernels import kernel_messages
from tests.logs.states import State
from tests.logs.test_states import PRINTED

CUT = [(state, release) for state, release in PRINTED if release in {"2.6.32", "5.10", "7.3"}]
"""What is cut: each state as an old, a known and the newest kernel print it."""


def printed(state: State, release: str) -> list[str]:
    """Return the lines of a report."""
    return [line for message in kernel_messages(state, release) for line in message.text.split("\n")]


@pytest.mark.parametrize(("state", "release"), CUT, ids=lambda value: getattr(value, "name", value))
def test_a_cut_makes_an_answer_weaker(state: State, release: str) -> None:
    """With the first line, whatever else is missing."""
    lines = printed(state, release)
    full = answers_to("\n".join(lines).encode())
    for name, part in cuts(lines):
        assert not stronger(full, answers_to("\n".join(part).encode())), name


@pytest.mark.parametrize(("state", "release"), CUT, ids=lambda value: getattr(value, "name", value))
def test_without_its_first_line_a_report_proves_nothing(state: State, release: str) -> None:
    """What failed is not known, so no answer about it is certain; an OOM kill may still say that it was one."""
    for name, part in headless(printed(state, release)):
        for answer in answers_to("\n".join(part).encode()):
            assert answer["event"] in {"memory", state.event}, name
            assert answer["certainty"] != "certain", name
            assert not certain_zones(answer).keys() - state.verdicts.keys(), name
