# SPDX-License-Identifier: MIT
"""One probe: the program of two parts, what it needs, and when its calibration refuses it."""

import socket
import struct
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import Mock

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe import recorder
from kalloctrace.probe.attach import one
from kalloctrace.probe.attach import plan as planning
from kalloctrace.probe.attach.choice import Asked, Attachment, Way
from kalloctrace.probe.attach.entry_code import EntryCode, RejectBlock, ScopeBlock, refused
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.joined import CALL_CAST, CALL_LONG, CAST_ALONE, join, patched
from kalloctrace.probe.attach.plan import Plan
from kalloctrace.probe.layout import bpf_folder

INSTRUCTION = struct.Struct("<BBhi")
EXIT = (0x95, 0, 0, 0)
CALL = 0x85


def program(*instructions: tuple[int, int, int, int]) -> bytes:
    """Return the instructions of a program: opcode, registers, offset, value."""
    return b"".join(INSTRUCTION.pack(*one) for one in instructions)


def test_joined_program_calls_its_second_part() -> None:
    """BPF_PSEUDO_CALL counts from the next instruction to the function; helpers, maps and jumps stay."""
    helper = (CALL, 0, 0, 8)
    wide = ((0x18, 0x21, 0, 77), (0, 0, 0, 0))
    short = program(helper, *wide, (CALL, 0, 0, CALL_LONG), (0x55, 1, 1, 0), (CALL, 0, 0, CALL_LONG), EXIT)
    long = program((CALL, 0, 0, CALL_CAST), EXIT)
    found = list(INSTRUCTION.iter_unpack(join(short, long, 1234)))
    assert found[:3] == [helper, *wide]
    # The function is instruction 7.
    assert found[3] == (CALL, 0x10, 0, 7 - 4)
    assert found[5] == (CALL, 0x10, 0, 7 - 6)
    # BPF_PSEUDO_KFUNC_CALL
    assert found[7:] == [(CALL, 0x20, 0, 1234), EXIT]


def test_program_that_calls_no_other_is_an_error() -> None:
    """Otherwise every call would be lost that the short way does not count."""
    with pytest.raises(ValueError, match="calls no other"):
        join(program(EXIT), program(EXIT), 1)


def test_numbers_of_the_stand_ins_are_those_of_the_program() -> None:
    """They are written in C and in Python."""
    source = (bpf_folder() / "one.bpf.c").read_text()
    assert f"#define CALL_LONG {CALL_LONG:#x}\n#define CALL_CAST {CALL_CAST:#x}\n" in source


def test_cast_without_a_type_is_tried_alone() -> None:
    """The program passes 0 for both arguments and ends."""
    found = list(INSTRUCTION.iter_unpack(patched(CAST_ALONE, 99)))
    assert found == [(0xB7, 1, 0, 0), (0xB7, 2, 0, 0), (CALL, 0x20, 0, 99), (0xB7, 0, 0, 0), EXIT]


class FakeBtf:
    """A kernel with some functions."""

    def __init__(self, *functions: str) -> None:
        self._functions = functions

    def has_function(self, name: str) -> bool:
        """Return whether there is a function of that name."""
        return name in self._functions


def require(*functions: str, way: Way = "multi", returns: bool = False) -> None:
    """Check a kernel with these functions."""
    one.require(FakeBtf(*functions), way, returns=returns)  # type: ignore[arg-type] # the method that it calls


def test_kernel_must_have_the_helpers() -> None:
    """The trampoline's argument has a type; elsewhere the cast gives it one."""
    task, cast = "bpf_get_current_task_btf", "bpf_rdonly_cast"
    require(task, cast)
    require(task, way="fentry")
    for functions, missing in (((), task), ((cast,), task), ((task,), cast)):
        with pytest.raises(KalloctraceError) as error:
            require(*functions)
        assert missing in error.value.why
        assert "--attach pair" in error.value.fix


def test_returns_need_the_pair() -> None:
    """What a call returns is seen at the entry."""
    with pytest.raises(KalloctraceError, match="cannot use one probe"):
        require("bpf_get_current_task_btf", "bpf_rdonly_cast", returns=True)


def test_all_calls_must_return_behind_the_entrys_call() -> None:
    """One that does not, or fewer calls than were made, and the pair is used."""
    assert one.agreed_return({16: 512}, 512) == 16
    for seen in ({16: 511}, {16: 600, 0: 1}, {16: 600, 8: 1}, {0: 600}, {}):
        with pytest.raises(KalloctraceError, match="cannot use one probe"):
            one.agreed_return(seen, 512)


def test_scope_probe_must_see_what_was_asked() -> None:
    """Calls of the page fault ask for IO and FS; an interrupt's calls ask for neither."""
    usual, cleared = {0x140CCA}, 0xC0
    fault = (0x140CCA, 0x140C0A)
    one.check_scope({fault: 512, (0x820, 0x820): 3}, usual, cleared, 512)
    wrong: tuple[dict[tuple[int, int], int], ...] = (
        {fault: 511},
        {(0, 0x140C0A): 512},
        {fault: 512, (0, 0x140C0A): 1},
        {fault: 512, (0x140CCA, 0x140CCA): 1},
        {(0x152CCA, 0x152C0A): 512},
        {},
    )
    for seen in wrong:
        with pytest.raises(KalloctraceError, match="cannot use one probe"):
            one.check_scope(seen, usual, cleared, 512)


def test_reject_probe_must_see_the_request_that_was_made() -> None:
    """A packet socket's block of order 11, once, from a node of the machine."""
    made = (11, 0x52DC0, 1, 0)
    one.check_rejected({made: 1}, 2)
    wrong: tuple[dict[tuple[int, int, int, int], int], ...] = (
        {},
        {made: 2},
        {(12, *made[1:]): 1},
        {(11, 0x52CC0, 1, 0): 1},
        {(11, 0x52DC0, 2, 0): 1},
        {(11, 0x52DC0, 1, 8): 1},
        {made: 1, (12, 0xCC0, 0, 0): 1},
    )
    for seen in wrong:
        with pytest.raises(KalloctraceError, match="cannot use one probe"):
            one.check_rejected(seen, 2)


def plan(way: Way, scope: ScopeBlock | None = None, bulk: str | None = None) -> Plan:
    """Return the plan of one probe."""
    attachment, code = Attachment("one", way, ""), EntryCode(0x10, scope)
    return Plan("entry", None, bulk, False, None, (), {}, "aggregate", attachment, one=code)


def test_plan_of_one_probe() -> None:
    """The entry is not attached to, but where scopes are applied; the bulk allocator's programs stay."""
    block = ScopeBlock(0x31F, "bx", 0x100C0000)
    hooks = plan("multi", block, "bulk").hooks()
    assert [(hook.function, hook.program, hook.offset, hook.hot) for hook in hooks] == [
        ("entry", "on_scope", 0x31F, False),
        ("get_page_from_freelist", "one_short", 0, True),
        ("bulk", "on_bulk", 0, True),
        ("bulk", "on_bulk_return", 0, True),
    ]
    assert (plan("fentry").hooks(), plan("fentry").trampolines()) == ([], [])
    bulk = [hook.program for hook in plan("fentry", bulk="bulk").trampolines()]
    assert bulk == ["on_bulk", "on_bulk_return"]
    ends = replace(plan("fentry"), one=EntryCode(0x10, None, RejectBlock(0x241, {})))
    assert [(hook.function, hook.program, hook.offset, hook.hot) for hook in ends.hooks()] == [
        ("entry", "on_reject", 0x241, False)
    ]
    assert plan("multi").attached() == ["get_page_from_freelist"]
    assert plan("multi").sources() == [f"{name}.bpf.c" for name in ("common", "context", "aggregate", "one", "kprobe")]
    assert plan("multi").attach == "one:multi"


def test_what_is_inferred_depends_on_the_scope_probe() -> None:
    """With it, only bits outside gfp_allowed_mask are not seen."""
    others = ("preferred_nid", "gfp_outside_allowed_mask", "hardwall", "nodemask")
    assert plan("multi", ScopeBlock(1, "bx", 1)).inferred == others
    assert set(plan("multi").inferred) == {*others, "scope_bits"}


def planned(monkeypatch: pytest.MonkeyPatch, asked: Asked, refusal: str = "") -> Plan:
    """Plan for a kernel on which one probe is possible, or is refused for a reason."""

    def read_entry(*_: object) -> EntryCode:
        if refusal:
            raise refused(refusal)
        return EntryCode(0x10, None)

    pair = replace(plan("multi"), attachment=Attachment("pair", "multi", "preemptible"), one=None)
    monkeypatch.setattr(planning, "_pair_plan", lambda *_: pair)
    monkeypatch.setattr(one, "require", lambda *_, **__: None)
    monkeypatch.setattr(one, "read_entry", read_entry)
    monkeypatch.setattr(one, "constants", lambda *_: {"ONE": 1})
    kernel: Any = Mock()
    return planning.make_plan(kernel, "aggregate", asked)


def test_one_probe_is_the_default_where_it_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pair is attached where it is asked for."""
    chosen = planned(monkeypatch, Asked())
    assert (chosen.attach, chosen.constants) == ("one:multi", {"ONE": 1})
    assert planned(monkeypatch, Asked("one")).attach == "one:multi"
    assert planned(monkeypatch, Asked("pair")).attach == "pair:multi"


def test_one_probe_is_refused_without_capstone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest or a package may lack its library; the pair needs none."""

    class Memory:
        def __enter__(self) -> Any:  # noqa: ANN401 - as little of Kcore as is called
            return SimpleNamespace(read=lambda *_: b"")

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(one, "Kcore", Memory)
    monkeypatch.setitem(sys.modules, "kalloctrace.probe.attach.entry_reader", None)
    kernel: Any = SimpleNamespace(
        features=SimpleNamespace(entry="entry"), address=lambda _: 0, symbols=SimpleNamespace(end_of=lambda _: 1)
    )
    with pytest.raises(KalloctraceError, match="cannot use one probe") as error:
        one.read_entry(kernel, "freelist")
    assert error.value.why.startswith("capstone cannot be loaded: ")


def test_pair_is_the_default_where_one_probe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is given, and who asks for one probe gets an error."""
    chosen = planned(monkeypatch, Asked(), "two calls")
    assert (chosen.attach, chosen.one) == ("pair:multi", None)
    assert chosen.attachment.reason == "preemptible; one probe is refused: two calls"
    with pytest.raises(KalloctraceError, match="cannot use one probe"):
        planned(monkeypatch, Asked("one"), "two calls")


class FakeProbe:
    """A program whose calibration refuses one probe, or fails."""

    jumps: tuple[str, ...] = ()
    failing: KalloctraceError | None = None

    def __init__(self, _: object, plan: Plan, **__: object) -> None:
        self._plan = plan

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def calibrate(self) -> int:
        """Refuse, or return a distance."""
        if self.failing is not None:
            raise self.failing
        if self._plan.one is not None:
            raise refused("a call differed")
        return 88


def captured_with(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> dict[str, Any]:
    """Return how a recording is described whose calibration refuses one probe."""
    pair = replace(plan("multi"), attachment=Attachment("pair", "multi", "preemptible"), one=None)
    monkeypatch.setattr(recorder, "Probe", FakeProbe)
    monkeypatch.setattr(recorder, "make_plan", lambda *given: pair if given[2].probes == "pair" else plan("multi"))
    monkeypatch.setattr(recorder, "protections", list)
    kernel: Any = SimpleNamespace(tables=SimpleNamespace(gfp_bits=()))
    with recorder.attached(kernel, Filters(), mode="aggregate", asked=asked, stacks=False, slow=True) as capture:
        return capture.description


def test_pair_is_attached_where_calibration_refuses_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trace says what was attached, and why; who asks for one probe gets an error."""
    described = captured_with(monkeypatch, Asked())
    assert (described["attach"], described["inferred"], described["frame_to_ac"]) == ("pair:multi", [], 88)
    assert described["attachment_reason"] == "preemptible; one probe is refused: a call differed"
    with pytest.raises(KalloctraceError, match="cannot use one probe"):
        captured_with(monkeypatch, Asked("one"))


def test_failure_of_the_pair_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with both is told once, by the error of the pair."""
    monkeypatch.setattr(FakeProbe, "failing", KalloctraceError("cannot load", "no memory", "buy some"))
    with pytest.raises(KalloctraceError, match="no memory"):
        captured_with(monkeypatch, Asked())
    with pytest.raises(KalloctraceError, match="no memory"):
        captured_with(monkeypatch, Asked("pair"))


def test_probes_that_cannot_be_calibrated_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the capabilities one probe is still possible: what these two would see is inferred, or not seen."""

    def refuse(*_: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    code = EntryCode(0x10, ScopeBlock(0x31F, "bx", 1), RejectBlock(0x241, {}))
    monkeypatch.setattr(one, "prctl", lambda _: 0)
    monkeypatch.setattr(one, "_PACKETS", tmp_path)
    monkeypatch.setattr(socket, "socket", lambda *_: SimpleNamespace(close=lambda: None))
    assert one.as_can_be_calibrated(code) == code
    monkeypatch.setattr(one, "prctl", refuse)
    assert one.as_can_be_calibrated(code) == replace(code, scope=None)
    monkeypatch.setattr(socket, "socket", refuse)
    assert one.as_can_be_calibrated(code) == EntryCode(0x10, None)
    monkeypatch.setattr(one, "prctl", lambda _: 0)
    monkeypatch.setattr(one, "_PACKETS", tmp_path / "missing")
    assert one.as_can_be_calibrated(code) == replace(code, reject=None)
