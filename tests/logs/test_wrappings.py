# SPDX-License-Identifier: MIT
"""A wrapping never changes an answer."""

import pytest

from tests.logs.answers import answers_to, differing
from tests.logs.kernels import kernel_messages
from tests.logs.states import EXHAUSTED, FRAGMENTED
from tests.logs.wrappings import FILES, PLAIN, WRAPPINGS, Stamped, stamped, wrapped, wrapped_as

PRINTED = [(FRAGMENTED, "6.12"), (EXHAUSTED, "5.10"), (EXHAUSTED, "4.14")]
"""What is wrapped; tests/properties/test_logs.py wraps the others."""

GIVEN = [kernel_messages(state, release) for state, release in PRINTED]
EXPECTED = [answers_to(PLAIN(stamped(messages)).encode()) for messages in GIVEN]
WRAPPED = [dict(wrapped(messages)) for messages in GIVEN]


@pytest.mark.parametrize("name", [*WRAPPINGS, *FILES])
def test_a_wrapping_does_not_change_the_answer(name: str) -> None:
    """The answers are those to the messages alone, but for line numbers and times."""
    for expected, texts in zip(EXPECTED, WRAPPED, strict=True):
        assert not differing(expected, answers_to(texts[name]))


@pytest.mark.parametrize("name", ["quoted-printable", "CRI in parts", "terminal, 80", "mailed, 72"])
def test_a_log_may_be_read_from_anywhere(name: str) -> None:
    """It is read in blocks of lines, and a line that goes on may be the last of one."""
    report = stamped(GIVEN[1])
    for before in range(65):
        lines = [*(_of_a_device(report[0], before - number) for number in range(before)), *report]
        assert not differing(EXPECTED[1], answers_to(wrapped_as(name, lines))), before


def _of_a_device(first: Stamped, before: int) -> Stamped:
    text = f"usb 1-1: new high-speed USB device number {before} using xhci_hcd"
    return Stamped(6, text, (text,), first.time - before / 10, first.number - before)
