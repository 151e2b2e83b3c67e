# SPDX-License-Identifier: MIT
"""Questions to traces; expected numbers come from a plain loop over the rows, or from rows made for the test."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.cli import main
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.report.query import groups
from kalloctrace.report.query.groups import Answer, Sums, answer
from kalloctrace.report.query.question import Field, Question
from kalloctrace.trace.containers import ContainerNames
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from tests.traces import RECORDED, UNDER_PRESSURE, aggregate, slow, slow_calls, stream

FIXTURES = RECORDED.parents[1]
SLOW = [FIXTURES / kernel / "slow.arrows" for kernel in ("5.10", "6.1", "6.12", "7.3")]
SLOW_STREAM = FIXTURES / "6.12" / "slow-stream.arrows"
PAGE = 4096
GFP_KERNEL, GFP_ATOMIC = 0xCC0, 0xA20
"""Of 5.10: ___GFP_DIRECT_RECLAIM|___GFP_KSWAPD_RECLAIM|___GFP_IO|___GFP_FS; ___GFP_HIGH|ATOMIC|KSWAPD_RECLAIM."""


def ask(path: Path, *by: Field, **selected: Any) -> Answer:  # noqa: ANN401 (attributes of a question)
    """Answer a question to a trace."""
    with TraceReader(path) as trace:
        return answer(trace, Question(by=by, **selected))


def sums(found: Answer) -> dict[tuple[Any, ...], Sums]:
    """Return the sums of each group."""
    return {group.key: group.sums for group in found.groups}


@pytest.mark.parametrize("by", [("gfp", "order"), ("comm", "pid"), ("node", "zone", "cpu"), ("migratetype", "comm")])
def test_groups_of_a_recording(by: tuple[Field, ...]) -> None:
    """Each call is in the group of its own values, with 2^order pages if it got its page."""
    names = {"gfp": "gfp_mask", "node": "preferred_node", "zone": "preferred_zone"}
    calls, size, failed = Counter[Any](), Counter[Any](), Counter[Any]()
    with TraceReader(RECORDED) as trace:
        for batch in trace.batches():
            for row in batch.to_pylist():
                key = tuple(row[names.get(field, field)] for field in by)
                calls[key] += 1
                size[key] += PAGE << row["order"] if row["page"] else 0
                failed[key] += row["page"] is False
    found = sums(ask(RECORDED, *by))
    assert {key: (one.calls, one.bytes, one.failed) for key, one in found.items()} == {
        key: (calls[key], size[key], failed[key]) for key in calls
    }


@pytest.mark.parametrize("path", SLOW, ids=lambda path: path.parent.name)
def test_slow_calls_are_in_the_groups_of_their_callers(path: Path) -> None:
    """Every call of the slow path finds the group of its call, although scopes of the task changed its mask."""
    found = ask(path, "gfp", "order", "node", "zone", "migratetype", "alloc_flags")
    assert all(group.sums.calls for group in found.groups)
    with TraceReader(path) as trace:
        calls = list(trace.slow_calls())
        totals = trace.ending().totals
    assert totals is not None
    assert found.all.failed == totals.slow_failed == sum(call["page"] is False for call in calls)
    assert found.all.slow_ns == sum(call["duration"] or 0 for call in calls)
    assert found.all.calls == totals.submitted


def test_a_stream_has_its_slow_calls_by_task_and_stack() -> None:
    """The stack of a slow call begins at the page allocator's entry, as the stack of its call does."""
    found = ask(SLOW_STREAM, "comm", "pid", "stack", "gfp", "order", "alloc_flags", "outcome")
    assert found.all.slow_ns
    assert all(group.sums.calls for group in found.groups)


def test_filters(tmp_path: Path) -> None:
    """Each selects calls by itself, and together they select what all of them do."""
    trace = stream(
        tmp_path / "t.arrows",
        {"comm": "a", "order": 0, "gfp_mask": GFP_KERNEL, "page": True},
        {"comm": "a", "order": 3, "gfp_mask": GFP_ATOMIC, "page": True},
        {"comm": "b", "order": 3, "gfp_mask": GFP_ATOMIC, "page": False},
        {"comm": "b", "order": 4, "gfp_mask": GFP_ATOMIC | 0x100, "page": True},
        {"comm": "c", "order": 9, "gfp_mask": GFP_KERNEL, "page": True},
    )

    def chosen(**selected: Any) -> list[tuple[Any, ...]]:  # noqa: ANN401 (attributes of a question)
        return sorted(sums(ask(trace, "comm", "order", **selected)))

    assert chosen(comms=frozenset("bc")) == [("b", 3), ("b", 4), ("c", 9)]
    assert chosen(orders=range(3, 5)) == [("a", 3), ("b", 3), ("b", 4)]
    assert chosen(gfp=GFP_ATOMIC) == [("a", 3), ("b", 3), ("b", 4)]
    assert chosen(gfp=GFP_ATOMIC, comms=frozenset("b"), orders=range(4, 99)) == [("b", 4)]
    assert chosen(failed=True) == [("b", 3)]
    assert sums(ask(trace, "comm"))["b",] == Sums(calls=2, bytes=PAGE << 4, failed=1)


def test_slower_than_counts_slow_calls_only(tmp_path: Path) -> None:
    """Only the slow path has a duration; its calls have tasks also in an aggregate."""
    call = slow_calls()[0]
    given = {**call["given"], "order": 2}
    made = [
        {**call, "comm": "x", "given": given, "duration": 2_000_000, "page": True},
        {**call, "comm": "x", "given": given, "duration": 3_000_000, "page": False},
        {**call, "comm": "y", "given": given, "duration": 1_000_000, "page": True},
        {**call, "comm": "y", "given": given, "duration": None, "page": None},
    ]
    found = ask(slow(tmp_path / "t.arrows", *made), "comm", slower_than=1_000_000)
    assert sums(found) == {("x",): Sums(calls=2, bytes=PAGE << 2, failed=1, slow_ns=5_000_000)}
    recorded = ask(UNDER_PRESSURE, "comm", slower_than=0)
    assert recorded.all.calls == sum((call["duration"] or 0) > 0 for call in slow_calls())


@pytest.mark.parametrize("path", SLOW[:1], ids=lambda path: path.parent.name)
def test_failures_of_calls_that_were_not_followed(path: Path) -> None:
    """They come from the recording of the slow path."""
    found = ask(path, "order", failed=True)
    with TraceReader(path) as trace:
        failed = Counter(call["given"]["order"] for call in trace.slow_calls() if call["page"] is False)
    assert {key[0]: (one.calls, one.failed, one.bytes) for key, one in sums(found).items()} == {
        order: (count, count, 0) for order, count in failed.items()
    }


def test_a_sample_is_scaled(tmp_path: Path) -> None:
    """One call in a hundred stands for a hundred."""
    recording = {"filters": {"sample": 100}}
    trace = stream(tmp_path / "t.arrows", {"order": 1}, {"order": 1, "page": False}, recording=recording)
    assert sums(ask(trace, "order")) == {(1,): Sums(calls=200, bytes=100 * PAGE << 1, failed=100)}


def test_counts_of_an_aggregate(tmp_path: Path) -> None:
    """A row stands for its count."""
    trace = aggregate(tmp_path / "t.arrows", ({"order": 0}, 7), ({"order": 2}, 5))
    found = ask(trace, "order")
    assert sums(found) == {(0,): Sums(7, 7 * PAGE), (2,): Sums(5, 5 * PAGE << 2)}
    assert not found.timed
    assert [found.to_json(group)["slow_ns"] for group in found.sorted("bytes")] == [None, None]
    assert [group.key for group in found.sorted("bytes")] == [(2,), (0,)]
    assert [group.key for group in found.sorted("calls")] == [(0,), (2,)]


def test_an_aggregate_by_name(tmp_path: Path) -> None:
    """Its calls have the name of their task, and can be selected by it; they have nothing else of the task."""
    counted = ({"comm": "a", "order": 0}, 7), ({"comm": "b", "order": 2}, 5), ({"comm": "a", "order": 2}, 4)
    trace = aggregate(tmp_path / "t.arrows", *counted, recording={"by": "comm"})
    assert sums(ask(trace, "comm")) == {("a",): Sums(11, 23 * PAGE), ("b",): Sums(5, 5 * PAGE << 2)}
    assert sums(ask(trace, "order", comms=frozenset("a"))) == {(0,): Sums(7, 7 * PAGE), (2,): Sums(4, 4 * PAGE << 2)}
    for field in ("pid", "cpu", "stack"):
        with pytest.raises(KalloctraceError, match="aggregate"):
            ask(trace, field)


def test_an_aggregate_by_control_group(tmp_path: Path) -> None:
    """Its calls have the control group of their task."""
    counted = ({"cgroup": "/a"}, 7), ({"cgroup": "/b"}, 5)
    trace = aggregate(tmp_path / "t.arrows", *counted, recording={"by": "cgroup", "cgroups": "v2"})
    assert sums(ask(trace, "cgroup")) == {("/a",): Sums(7, 7 * PAGE), ("/b",): Sums(5, 5 * PAGE)}
    with pytest.raises(KalloctraceError) as error:
        ask(trace, "comm")
    assert "--by comm" in error.value.fix


def test_a_rejected_call(tmp_path: Path) -> None:
    """It returned no page, and never called get_page_from_freelist(); a missed hit does not make one of a page."""
    trace = stream(
        tmp_path / "t.arrows",
        {"freelist_calls": 0, "page": False},
        {"freelist_calls": 0, "page": True},
        {"freelist_calls": 1, "page": False},
    )
    found = sums(ask(trace, "outcome"))
    assert {key[0]: (one.calls, one.failed) for key, one in found.items()} == {
        "rejected": (1, 1),
        "page": (1, 0),
        "failed": (1, 1),
    }


@pytest.mark.parametrize(
    ("field", "why"), [("comm", "aggregate"), ("pid", "aggregate"), ("stack", "aggregate"), ("cgroup", "cgroups")]
)
def test_what_an_aggregate_lacks(field: Field, why: str) -> None:
    """It is refused before the trace is read, and the slow path is proposed where it has the field."""
    with pytest.raises(KalloctraceError) as error:
        ask(SLOW[0], field)
    assert why in error.value.why
    assert error.value.code == Exit.USAGE
    assert ("--slower-than 0" in error.value.fix) == (field != "cgroup")


def test_groups_by_cgroup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A group is named by its container where that is known; calls without one are in a group of their own."""
    pods, uid, ident = "/kubepods/burstable", "1d2f3a4b-5c6d-4e7f-8a9b-0c1d2e3f4a5b", "0123456789abcdef" * 4
    named, unnamed = f"{pods}/pod{uid}/{ident}", f"{pods}/pod{uid}/{ident[::-1]}"
    paths = ("/system.slice/ssh.service", named, named, unnamed, "?", None)
    trace = stream(
        tmp_path / "t.arrows",
        *({"cgroup": path} for path in paths),
        recording={"cgroups": "v2"},
        containers={named: ContainerNames("shop", "cart-0", "redis")},
    )
    found = ask(trace, "cgroup")
    assert {key: one.calls for key, one in sums(found).items()} == {(path,): paths.count(path) for path in paths}
    ids: dict[str, Any] = {"pod_uid": uid, "container_id": ident}
    unknown = dict.fromkeys(("pod_namespace", "pod", "container"))
    assert [found.to_json(group)["by"] for group in found.sorted("calls")] == [
        {"cgroup": named, **ids, "pod_namespace": "shop", "pod": "cart-0", "container": "redis"},
        {"cgroup": None},
        {"cgroup": unnamed, **ids, "container_id": ident[::-1], **unknown},
        {"cgroup": "/system.slice/ssh.service"},
        {"cgroup": "?"},
    ]
    assert main(["report", "--by", "cgroup", str(trace)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("shop/cart-0/redis", f"pod {uid}", f"container {ident[:-13:-1]}", *paths[:1], "none", "?"):
        assert str(name) in text


def test_an_outcome_that_was_not_recorded() -> None:
    """Calls that were not followed to their return have none, but the slow path's calls do."""
    with pytest.raises(KalloctraceError, match="what its calls returned was not recorded"):
        ask(SLOW[3], "outcome")
    assert set(sums(ask(SLOW[3], "outcome", slower_than=0))) == {("page",), ("failed",)}


def test_too_many_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is limited: more groups are refused, and what to do is said."""
    monkeypatch.setattr(groups, "MOST_GROUPS", 2)
    trace = stream(tmp_path / "t.arrows", *({"pid": pid} for pid in range(3)))
    with pytest.raises(KalloctraceError, match="more than 2 groups") as error:
        ask(trace, "pid")
    assert "--comm" in error.value.fix
    assert len(ask(trace, "order").groups) == 1


def test_damaged_calls_of_the_slow_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those before the damage are counted, and it is said that others are missing."""
    path = slow(tmp_path / "t.arrows", *slow_calls()[:9])

    def read(text: bytes) -> Iterator[dict[str, Any]]:
        yield from decode_slow_calls(text)
        raise ValueError("no more")

    monkeypatch.setattr("kalloctrace.trace.reader.decode_slow_calls", read)
    assert main(["report", "--by", "order", "--slower-than", "0", "--json", str(path)]) == 0
    printed = capsys.readouterr()
    groups_found = [json.loads(line) for line in printed.out.splitlines()]
    assert sum(group["calls"] for group in groups_found) == sum(bool(call["duration"]) for call in slow_calls()[:9])
    assert "its calls of the slow path are damaged: no more" in printed.err


def test_text_beside_numbers() -> None:
    """JSON has the names of masks and types next to their numbers; sums stay integers."""
    found = ask(SLOW_STREAM, "gfp", "zone", "migratetype", "alloc_flags", "stack")
    largest = found.to_json(found.sorted("time")[0])
    by = largest["by"]
    assert (by["zone"], by["migratetype_name"].split("_")[0]) == ("DMA32", "MIGRATE")
    assert isinstance(by["gfp_mask"], int)
    assert by["gfp"].startswith("GFP_")
    assert by["alloc_flags_text"].startswith("ALLOC_WMARK_LOW")
    with TraceReader(SLOW_STREAM) as trace:
        assert by["stack"][0] == trace.snapshot.features.entry
    assert replace(found.sorted("time")[0].sums, slow_ns=largest["slow_ns"]) == found.sorted("time")[0].sums
