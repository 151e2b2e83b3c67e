# SPDX-License-Identifier: MIT
"""Kprobes of tracefs: their definitions, and what is read from them."""

from collections import Counter

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach.kprobes import Hook, left_behind, profile_misses
from kalloctrace.probe.attach.loader import agreed_distance, check_task_context
from kalloctrace.probe.attach.optprobe import is_jump, past_ftrace

IN_TASK_6_1 = 0x00FF0100
NMI_AND_HARDIRQ = 0x00110000


def test_definitions() -> None:
    """A return has the largest maxactive that the kernel allows; the process id is in the name."""
    assert Hook("f", "on_f").definition(12) == "p:kalloctrace/on_f_12 f\n"
    assert Hook("f", "on_f_return", at_return=True).definition(12) == "r4096:kalloctrace/on_f_return_12 f\n"


def test_only_definitions_of_dead_recordings_are_left_behind() -> None:
    """Definitions of other tools, and of running recordings, stay."""
    definitions = (
        "p:kalloctrace/on_entry_12 __alloc_pages\n"
        "r4096:kalloctrace/on_entry_return_12 __alloc_pages\n"
        "p:kalloctrace/on_entry_13 __alloc_pages\n"
        "p:kprobes/on_entry_12 __alloc_pages\n"
    )
    assert left_behind(definitions, iter((1, 13))) == ["kalloctrace/on_entry_12", "kalloctrace/on_entry_return_12"]
    assert left_behind(definitions, iter((12, 13))) == []


def test_misses_are_the_last_column() -> None:
    """kprobe_profile: name, hits, misses."""
    profile = (
        "  on_freelist_12                                            34000               7\n"
        "  on_entry_return_12                                        33991               0\n"
    )
    assert profile_misses(profile) == {"on_freelist_12": 7, "on_entry_return_12": 0}
    assert profile_misses("") == {}


def test_breakpoints_are_refused() -> None:
    """Breakpoints raise the NMI count in every call; interrupts do so in a few."""
    check_task_context(Counter({0: 95, 1: 400, 0x80000001: 10, 0x10001: 5}), IN_TASK_6_1)
    with pytest.raises(KalloctraceError) as caught:
        check_task_context(Counter({NMI_AND_HARDIRQ: 300, NMI_AND_HARDIRQ + 1: 200}), IN_TASK_6_1)
    assert "500 of 500" in caught.value.why


def test_distance_needs_agreement() -> None:
    """A few measurements may be an interrupt's. No measurement, or many different ones, give no distance."""
    assert agreed_distance(Counter({0x58: 500, 0x1000: 3})) == 0x58
    for seen in (Counter[int](), Counter({0x58: 300, 0x60: 200}), Counter({-8: 500}), Counter({4096: 500})):
        with pytest.raises(KalloctraceError):
            agreed_distance(seen)


def test_definition_behind_the_function_start() -> None:
    """The offset is in bytes."""
    assert Hook("f", "on_f", offset=9).definition(12) == "p:kalloctrace/on_f_12 f+9\n"


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        ("0f1f440000 41574156", 5),
        ("6666666690 41574156", 5),
        ("e8fb12b3e1 41574156", 5),
        ("f30f1efa 0f1f440000", 9),
        ("660f1f00 0f1f440000", 9),
        ("0f1f40d6 e8fb12b3e1", 9),
        ("4157415641554154 55", 0),
        ("f30f1efa 4157415641", 0),
        ("cc1f440000 41574156", 0),
    ],
)
def test_place_behind_what_ftrace_uses(code: str, offset: int) -> None:
    """With and without endbr64; other code has no such offset."""
    assert past_ftrace(bytes.fromhex(code)) == offset


def test_jump_is_no_breakpoint() -> None:
    """A kprobe is a breakpoint before it becomes a jump."""
    assert is_jump(b"\xe9")
    assert not is_jump(b"\xcc")
