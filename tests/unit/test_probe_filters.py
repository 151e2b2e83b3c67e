# SPDX-License-Identifier: MIT
"""Filters become constants of the program; without filters there are none."""

import pytest

from kalloctrace.probe.attach.filters import Filters


def test_without_filters_nothing_is_compiled() -> None:
    """So that it costs nothing."""
    assert Filters().constants() == {}
    assert not any(Filters().to_json().values())


def test_name_is_compared_as_two_words() -> None:
    """As the kernel pads it; longer ones are cut as the kernel cuts them."""
    constants = Filters(comm="ab").constants()
    assert (constants["COMM_0"], constants["COMM_1"]) == (0x6261, 0)
    long = Filters(comm="0123456789abcdefgh").constants()
    assert long["COMM_1"].to_bytes(8, "little") == b"89abcde\0"


@pytest.mark.parametrize(
    ("filters", "context", "by_result"),
    [
        (Filters(order=0), False, False),
        (Filters(zone=2), True, True),
        (Filters(alloc_flags=0x800), True, True),
        (Filters(failed=True), False, True),
        (Filters(sample=10, max_rate=5), False, False),
    ],
)
def test_what_shows_late_is_known(filters: Filters, context: bool, by_result: bool) -> None:
    """The prepared context and the result are known only after the entry; 0 is a value like any other."""
    constants = filters.constants()
    assert constants["FILTERS"] == 1
    assert ("CONTEXT_FILTER" in constants) == context
    assert filters.by_result == by_result


def test_children_need_a_program_of_their_own() -> None:
    """It follows the processes; without the filter no program does."""
    assert Filters().sources() == []
    assert Filters(children=7).sources() == ["children.bpf.c"]
    assert Filters(children=7).constants() == {"CHILDREN": 7, "FILTERS": 1}
