# SPDX-License-Identifier: MIT
"""The audit of one probe by the pair: what is compared, what may differ, and what is said about it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest

from kalloctrace.commands.record import AuditTimes
from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.preemption import Preemption
from kalloctrace.probe.attach.audit import audit_way
from kalloctrace.probe.attach.choice import Shown
from kalloctrace.probe.audit import Audit, Times
from kalloctrace.probe.decode.allocations import CALLER, MEMS_ALLOWED, NODEMASK, PREPARED
from kalloctrace.probe.decode.audited import Comparison
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.overflow import Seen
from kalloctrace.probe.privileges import seccomp
from kalloctrace.trace.audited import Audited, audit_lines

KEY = struct_dtype("allocation", {"NODEMASK_WORDS": 1, "BY_WORDS": 2})
HARDWALL, ALLOWED, IO = 0x100000, 0x3FFFFF, 0x40
COMPARISON = Comparison(scopes=True, hardwall=HARDWALL, interrupt_mask=0xFFFF00)
USUAL = {"gfp_mask": 0xCC0, "freelist_gfp_mask": 0xCC0, "gfp_allowed_mask": ALLOWED, "present": PREPARED, "zonelist": 7}


def seen(*rows: tuple[int, dict[str, Any]]) -> Seen:
    """Return calls, each with its count and what is not usual."""
    keys = np.zeros(len(rows), KEY)
    for key, (_, fields) in zip(keys, rows, strict=True):
        for name, value in {**USUAL, **fields}.items():
            key[name] = value
    return keys, np.array([count for count, _ in rows], np.uint64)


def test_equal_counts_do_not_differ() -> None:
    """The order of the calls does not matter, nor what one probe does not see."""
    one = seen((5, {"preferred_nid": -1}), (2, {"order": 3}))
    pair = seen((2, {"order": 3, "preferred_nid": 1}), (4, {"preempt_count": 1}), (1, {"gfp_mask": 0xCC0 | 1 << 25}))
    found = COMPARISON.compare(one, pair)
    assert (found.one, found.pair, found.differing, found.fields) == (7, 7, 0, {})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("order", 1),
        ("gfp_mask", 0xCC0 & ~IO),
        ("freelist_gfp_mask", 0xCC0 | HARDWALL),
        ("alloc_flags", 1),
        ("zonelist", 8),
        ("preferred_zoneref", 8),
        ("migratetype", 1),
        ("highest_zoneidx", 1),
        ("spread_dirty_pages", 1),
        ("task_flags", 1),
        ("entry_alloc_flags", 1),
        ("preempt_count", 0x100),
        ("switches", 1),
        ("gfp_allowed_mask", ALLOWED ^ 1),
        ("by", 1),
        ("mems_allowed", 1),
        ("ac_nodemask_nodes", 1),
        ("softirq_disable_cnt", 1),
    ],
)
def test_every_field_that_one_probe_sees_is_compared(field: str, value: int) -> None:
    """A call that the two see differently is in two counts, and so is its field."""
    found = COMPARISON.compare(seen((9, {}), (1, {field: value})), seen((10, {})))
    assert (found.one, found.pair, found.differing) == (10, 10, 2)
    assert found.fields == {field: 2}


def test_a_missing_call_differs_in_every_field() -> None:
    """One probe did not see it."""
    found = COMPARISON.compare(seen((9, {})), seen((10, {})))
    assert (found.one, found.pair, found.differing) == (9, 10, 1)
    assert set(found.fields.values()) == {1}


def test_what_is_asked_in_a_scope_is_compared_where_it_is_seen() -> None:
    """Without its probe for scopes, one probe shows what is left of the mask."""
    one, pair = seen((1, {"gfp_mask": 0xC80, "freelist_gfp_mask": 0xC80})), seen((1, {"freelist_gfp_mask": 0xC80}))
    assert COMPARISON.compare(one, pair).fields == {"gfp_mask": 2}
    assert replace(COMPARISON, scopes=False).compare(one, pair).differing == 0


def test_cpusets_hide_hardwall_and_the_callers_nodemask() -> None:
    """Both follow from what the stage left; the nodes that it left are compared."""
    cpusets = {"switches": 1, "freelist_gfp_mask": 0xCC0 | HARDWALL, "ac_nodemask_nodes": 3}
    one = seen((1, {**cpusets, "gfp_mask": 0xCC0 | HARDWALL, "present": PREPARED | NODEMASK | MEMS_ALLOWED}))
    pair = seen((1, {**cpusets, "present": PREPARED | CALLER}))
    assert COMPARISON.compare(one, pair).differing == 0
    assert COMPARISON.compare(one, seen((1, {**cpusets, "ac_nodemask_nodes": 1}))).differing == 2


def test_only_what_is_not_explained_is_a_difference() -> None:
    """Edges, missed hits, calls without an entry, and a full map explain as many calls as they count."""
    agreed = Audited(windows=2, seconds=0.2, one=1000, pair=1000)
    assert list(audit_lines(agreed)) == ["one probe and the pair saw the same 1,000 calls in 2 windows, 0.2 s together"]
    explained = replace(agreed, pair=1008, differing=8, edges=4, missed=2, unpaired=1, full=1)
    assert not explained.differs
    assert "8 differ, no more than may be explained (4 at the windows' edges, 2 missed hits" in next(
        audit_lines(explained)
    )
    different = replace(explained, differing=9, fields={"order": 2, "gfp_mask": 9})
    assert different.differs
    (line,) = audit_lines(different)
    assert line.startswith("DIFFERS: ")
    assert line.endswith("by field: gfp_mask 9, order 2")
    assert list(audit_lines(Audited(failure="no"))) == ["not made: no"]
    assert list(audit_lines(replace(agreed, failure="no")))[1:] == ["a part was not made: no"]
    assert not list(audit_lines(None))
    assert Audited.from_json(different.to_json() | {"later": 1}) == different


@pytest.mark.parametrize(("text", "times"), [("1", (1.0, None)), ("0.5/60", (0.5, 60.0))])
def test_times_are_seconds_and_a_period(text: str, times: tuple[float, float | None]) -> None:
    """The period may be left out."""
    assert AuditTimes().convert(text, None, None) == times


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1/", "1/1", "2/1", "1/2/3", "nan", "inf", "1/inf"])
def test_other_times_are_refused(text: str) -> None:
    """An audit longer than its period would never end."""
    with pytest.raises(click.BadParameter):
        AuditTimes().convert(text, None, None)


@pytest.mark.parametrize(
    ("preemptible", "multi", "way"), [(False, True, "fentry"), (True, True, "multi"), (True, False, None)]
)
def test_way_of_the_audit_loses_no_call(preemptible: bool, multi: bool, way: str | None) -> None:
    """A kprobe of tracefs cannot be attached without privileges, and fentry loses calls where tasks are preempted."""
    assert audit_way(Shown(Preemption(preemptible, ""), multi, multi)) == way


class FakeProbe:
    """Notes what an audit does."""

    def __init__(self, failing: int = 0) -> None:
        self.no_audit, self.calls = "", list[str]()
        self._failing = failing

    def attach_audit(self) -> None:
        """Fail at the given time."""
        self.calls.append("attach")
        if self.calls.count("attach") == self._failing:
            raise KalloctraceError("cannot", "the kernel refused", "do not")

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 a method
        """Return a method that notes its name."""
        return lambda: self.calls.append(name.removesuffix("_audit"))

    def audit_missed(self) -> int:
        """Return a count that grows."""
        return len(self.calls)

    def audit_alone(self) -> tuple[int, int]:
        """Return two counts."""
        return 1, 2

    def audited(self) -> tuple[Seen, Seen]:
        """Return what both saw."""
        return seen((3, {})), seen((3, {}))


def audit(probe: FakeProbe, times: Times | None) -> Audit:
    """Return an audit of a kernel."""
    kernel = SimpleNamespace(
        tables=SimpleNamespace(gfp_bits=[("__GFP_HARDWALL", HARDWALL)]), features=SimpleNamespace(interrupt_mask=0xFF00)
    )
    plan = SimpleNamespace(inferred=())
    return Audit(probe, kernel, plan, times)  # type: ignore[arg-type] # what it uses of these


ONCE = ["attach", "open", "close", "detach"]


def test_audit_is_before_and_after_a_recording() -> None:
    """Nothing is attached between."""
    probe = FakeProbe()
    one = audit(probe, None)
    one.before()
    assert probe.calls == ONCE
    one.begun()
    one.step()
    assert probe.calls == ONCE
    one.after()
    assert probe.calls == ONCE * 2
    found = one.result()
    assert (found.windows, found.one, found.pair, found.differing, found.unpaired, found.full) == (2, 3, 3, 0, 1, 2)
    assert found.seconds >= 0.2


def test_audit_that_cannot_be_made_is_not_the_recordings_end() -> None:
    """Its reason is told, and it is not tried again."""
    probe = FakeProbe(failing=1)
    one = audit(probe, None)
    one.before()
    one.after()
    assert probe.calls == ["attach", "detach"]
    assert (one.result().failure, one.result().windows) == ("the kernel refused", 0)


def test_audit_that_was_asked_for_must_be_possible() -> None:
    """The error says why."""
    with pytest.raises(KalloctraceError) as error:
        audit(FakeProbe(failing=1), Times(1.0)).before()
    assert error.value.why == "the kernel refused"


def test_audit_of_the_recording_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is attached before capture, opens with it, and again after the period; the end closes what is open."""
    now = 100.0
    monkeypatch.setattr("kalloctrace.probe.audit.time.monotonic", lambda: now)
    probe = FakeProbe()
    one = audit(probe, Times(1.0, 10.0))
    one.before()
    assert probe.calls == ["attach"]
    one.begun()
    for now, calls in ((100.9, 0), (101.0, 2), (109.9, 0), (110.0, 2), (110.5, 0)):
        before = len(probe.calls)
        one.step()
        assert len(probe.calls) - before == calls, now
    one.after()
    assert probe.calls == ONCE * 2
    assert one.result().windows == 2


def test_only_an_audit_may_attach_later() -> None:
    """BPF_LINK_CREATE and BPF_RAW_TRACEPOINT_OPEN; programs cannot be loaded in either case."""
    compared = {
        links: {operand for code, _, _, operand in seccomp.program(existing_files=True, links=links) if code == 0x15}
        for links in (False, True)
    }
    assert compared[True] - compared[False] == {17, 28}
    longer, shorter = (len(seccomp.program(existing_files=True, links=links)) for links in (True, False))
    assert longer == shorter + 4
