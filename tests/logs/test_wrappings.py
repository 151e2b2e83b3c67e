# SPDX-License-Identifier: MIT
"""A wrapping never changes an answer."""

import pytest

from tests.logs.answers import answers_to, differing
from tests.logs.kernels import kernel_messages
from tests.logs.states import EXHAUSTED, FRAGMENTED
from tests.logs.wrappings import FILES, PLAIN, WRAPPINGS, stamped, wrapped

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
