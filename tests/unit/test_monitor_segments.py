# SPDX-License-Identifier: MIT
"""Segments: complete, in order, within limits, and nothing lost between them; also on a full disk and after a crash."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.monitor import segments
from kalloctrace.monitor.config import Config
from kalloctrace.monitor.lock import lock_folder
from kalloctrace.monitor.segments import SegmentFolder, SegmentWriter
from kalloctrace.trace.containers import ContainerNames
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION, COLUMNS
from kalloctrace.trace.slow_split import PARTS, SlowSplit
from kalloctrace.trace.totals import MissedBy, Totals
from kalloctrace.verify.verification import Verification, verify_trace
from tests.traces import slow_calls, source

RECORDING = {"mode": "aggregate", "id": "0" * 32, "slow": True}


def allocations(*orders: int) -> pa.StructArray:
    """Return allocations of these orders."""
    _, _, row = source()
    return pa.array([{f.name: {**row, "order": order}[f.name] for f in ALLOCATION} for order in orders], ALLOCATION)


def totals(calls: int, running: int = 0, **more: Any) -> Totals:  # noqa: ANN401 (a count or what it needs)
    """Return what a recorder has counted."""
    none = Totals(calls + running, calls, 0, 0, 0, running, 0, 0, 0, (), "over", float(calls), slow=0, slow_failed=0)
    return replace(none, **more)


class Segments:
    """A folder and its writer."""

    def __init__(self, path: Path, config: Config | None = None) -> None:
        self.path = path
        self.log: list[str] = []
        self.folder = SegmentFolder(path, self.log.append)
        self.folder.recover()
        self.config = config or Config(keep_free=0)
        self.writer = SegmentWriter(self.folder, source()[0], RECORDING, self.config, self.log.append)

    def count(self, index: int, calls: int) -> None:
        """Write a count."""
        self.writer.write_aggregate(np.array([calls], np.uint64), np.array([index], np.int32))

    def names(self) -> list[str]:
        """Return the numbers and suffixes of the files."""
        return sorted(path.name[16:18] + path.name[35:] for path in self.path.iterdir())

    def verified(self) -> list[Verification]:
        """Return the verdicts on the segments, in order."""
        found = []
        for path in sorted(self.path.iterdir()):
            with TraceReader(path) as trace:
                found.append(verify_trace(trace))
        return found


def test_no_row_is_lost_between_segments(tmp_path: Path) -> None:
    """Each is a complete trace with a recording's id; a call is counted in the one in which it ended."""
    made = Segments(tmp_path)
    first = made.writer.add(allocations(0, 1))
    made.count(first, 5)
    made.writer.turn(totals(5, running=3))
    made.count(first + 1, 4)
    later = made.writer.add(allocations(2))
    made.count(later, 2)
    _, _, row = source()
    made.writer.write(pa.RecordBatch.from_pylist([{**row, "order": 7}] * 3, COLUMNS))
    another = made.writer.add(allocations(3))
    made.count(another, 1)
    made.writer.turn(totals(15, running=1))
    made.writer.close(totals(15, running=1))
    verdicts = made.verified()
    assert [(v.allocations, v.truncated, v.lost) for v in verdicts] == [(5, False, 0), (10, False, 0), (0, False, 0)]
    assert verdicts[0].matched == 5
    assert made.names() == ["01.arrows", "02.arrows", "03.arrows"]
    ids, parts = set(), []
    for path in sorted(tmp_path.iterdir()):
        with TraceReader(path) as trace:
            ids.add(trace.recording["id"])
            ending = trace.ending()
            assert ending.totals is not None
            parts.append((ending.totals.opened, ending.totals.submitted, ending.totals.running))
            orders = sorted((row["order"], count) for row, count in trace.counted())
            if trace.recording["segment"]["number"] == 2:
                assert orders == [(1, 4), (2, 2), (3, 1), (7, 3)]
    assert parts == [(5, 5, 0), (10, 10, 0), (1, 0, 1)]
    assert len(ids) == 3
    assert next(tmp_path.iterdir()).stat().st_mode & 0o777 == 0o600


def test_parts_add_up() -> None:
    """Whatever is counted, and where a count is not known it stays so."""
    early = totals(7, running=2, missed=1, missed_by=MissedBy(1, 0, 0), own=4, dropped=1, opened=10, slow_alone=1)
    whole = totals(9, running=0, missed=3, missed_by=MissedBy(1, 2, 0), own=4, dropped=2, opened=11, slow_alone=3)
    nothing = Totals(0, 0, 0, 0, 0, 0, 0, 0, 0, (), "", 0.0)
    parts = [early.since(nothing, last=False), whole.since(early, last=True)]
    for name in ("opened", "submitted", "dropped", "missed", "own", "slow_alone", "running"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)
    for part in parts:
        assert part.opened == part.submitted + part.lost + part.replaced + part.running
    assert parts[1].missed_by == MissedBy(0, 2, 0)
    assert parts[0].missed_by == MissedBy(1, 0, 0)
    assert parts[1].seconds == 2.0
    assert parts[0].bpf_calls is None


def test_slow_calls_are_in_the_segment_in_which_they_end(tmp_path: Path) -> None:
    """With their number in its totals."""
    made = Segments(tmp_path)
    made.writer.write_slow(slow_calls()[:2])
    made.writer.turn(totals(0, slow=2))
    made.writer.write_slow(slow_calls()[2:5])
    made.writer.close(totals(0, slow=5, slow_running=1))
    found = []
    for path in sorted(tmp_path.iterdir()):
        with TraceReader(path) as trace:
            ending = trace.ending().totals
            assert ending is not None
            found.append((len(list(trace.slow_calls())), ending.slow, ending.slow_running))
    assert found == [(2, 2, 0), (3, 3, 1)]


def test_age_and_size_complete_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is never set."""
    clock = [1000.0]
    monkeypatch.setattr(segments, "boottime", lambda: clock[0])
    made = Segments(tmp_path, Config(age=60, size=1 << 30, keep_free=0))
    assert not made.writer.due
    clock[0] += 60
    assert made.writer.due
    made.writer.turn(totals(0))
    assert not made.writer.due
    made.writer.config = Config(size=made.writer.size)
    assert made.writer.due


def test_oldest_segments_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By age, by size and by the room on the disk; never the one that is being written."""
    clock = [1000.0]
    monkeypatch.setattr(segments, "boottime", lambda: clock[0])
    made = Segments(tmp_path)
    for _ in range(4):
        clock[0] += 10
        made.writer.turn(totals(0))
    size = made.folder.bytes // 4
    made.writer.config = replace(made.config, keep_age=25.0)
    made.writer.retry()
    assert made.names() == ["02.arrows", "03.arrows", "04.arrows"]
    made.writer.config = replace(made.config, keep_size=2 * size + size // 2)
    made.writer.retry()
    assert made.names() == ["03.arrows", "04.arrows"]
    made.writer.config = replace(made.config, keep_free=1 << 60)
    made.writer.retry()
    assert made.names() == []
    assert made.folder.removed == {"age": 1, "size": 1, "space": 2}


def test_crash_costs_at_most_the_open_segment(tmp_path: Path) -> None:
    """What it has stays readable under a name that says so; numbers go on; a file without anything is removed."""
    made = Segments(tmp_path)
    made.count(made.writer.add(allocations(0)), 5)
    made.writer.turn(totals(5))
    made.count(0, 6)
    with next(tmp_path.glob("*.open")).open("ab") as file:
        file.write(b"half a batch")
    (tmp_path / "segment-0000000003-20260101T000000Z.arrows.open").write_bytes(b"\xff")
    (tmp_path / "notes.txt").write_text("mine")
    after = Segments(tmp_path)
    after.writer.close(totals(0))
    assert after.names()[1:] == ["01.arrows", "02.truncated.arrows", "04.arrows"]
    (tmp_path / "notes.txt").unlink()
    assert [(v.allocations, v.truncated) for v in after.verified()] == [(5, False), (6, True), (0, False)]
    assert after.folder.count == 3
    assert [line.split()[0] for line in after.log] == ["kept", "removed", "wrote"]


def test_crash_between_the_end_and_the_name(tmp_path: Path) -> None:
    """The segment is complete, and is named so."""
    made = Segments(tmp_path)
    made.writer.close(totals(0))
    (done,) = tmp_path.iterdir()
    done.rename(f"{done}.open")
    Segments(tmp_path)
    assert done.exists()


def test_names_of_containers_are_in_every_segment(tmp_path: Path) -> None:
    """They are found once, and cgroups of later segments need them."""
    made = Segments(tmp_path)
    one, two = ({f"/pods/{name}": ContainerNames("shop", name, "web")} for name in ("a", "b"))
    made.writer.write_containers(one)
    made.writer.turn(totals(0))
    made.writer.write_containers(two)
    made.writer.turn(totals(0))
    made.writer.close(totals(0))
    found = []
    for path in sorted(tmp_path.iterdir()):
        with TraceReader(path) as trace:
            found.append(dict(trace.ending().containers))
    assert found == [one, {**one, **two}, {**one, **two}]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Return a function that sets how many more bytes the disk takes; None is without a limit."""
    room: list[int | None] = [None]
    written = os.pwrite

    def pwrite(fd: int, data: Any, at: int) -> int:  # noqa: ANN401 (any buffer)
        if room[0] is None:
            return written(fd, data, at)
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = written(fd, data[: room[0]], at)
        room[0] -= done
        return done

    def limit(limit: int | None) -> None:
        room[0] = limit

    monkeypatch.setattr(os, "pwrite", pwrite)
    return limit


def test_full_disk_removes_the_oldest_and_then_waits(
    tmp_path: Path, disk: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is written when there is room; what is too much is dropped, counted in the totals, and said."""
    monkeypatch.setattr(segments, "MOST_WAITING", 2000)
    made = Segments(tmp_path)
    index = made.writer.add(allocations(0))
    made.count(index, 1)
    made.writer.turn(totals(1))
    disk(10)
    written = 0
    while not made.writer.dropped.calls:
        made.count(index, 100)
        written += 100
    made.writer.write_slow(slow_calls()[:2])
    assert made.names() == ["02.arrows.open"]
    assert (made.writer.dropped.calls, made.writer.dropped.slow) == (100, 2)
    assert made.writer.waiting > 2000
    disk(None)
    made.count(index, 7)
    written += 7
    assert made.writer.waiting == 0
    split = SlowSplit(2, dict.fromkeys(PARTS, 3), {4: 2})
    made.writer.turn(totals(1 + written, slow=2, slow_failed=made.writer.dropped.failed, slow_split=split))
    made.writer.close(totals(1 + written, slow=2, slow_failed=made.writer.dropped.failed))
    complete, last = made.verified()
    assert (complete.allocations, complete.lost, complete.truncated) == (written - 100, 100, False)
    assert complete.slow_lost == 2
    splits = []
    for path in sorted(tmp_path.glob("*.arrows")):
        with TraceReader(path) as trace:
            ended = trace.ending().totals
        splits.append(None if ended is None else ended.slow_split)
    # The time of the calls that were dropped cannot be taken out of the sums.
    assert splits[-2:] == [None, None]
    assert (last.lost, last.slow_lost) == (0, 0)
    told = [line for line in made.log if "cannot write" in line or "again" in line]
    assert "No space left on device" in told[0]
    assert told[1:] == ["segments are written again; 100 calls of this one were dropped"]


def test_disk_stays_full_to_the_end(tmp_path: Path, disk: Callable[[int | None], None]) -> None:
    """The segment is readable up to its last whole batch, and is named so; the calls that were waiting are counted."""
    made = Segments(tmp_path)
    index = made.writer.add(allocations(0))
    made.count(index, 5)
    disk(100)
    made.count(index, 8)
    made.writer.close(totals(13))
    assert made.names() == ["01.truncated.arrows"]
    (verdict,) = made.verified()
    assert (verdict.allocations, verdict.truncated) == (5, True)
    assert made.writer.dropped.calls == 8


def test_disk_without_room_for_a_file(tmp_path: Path, disk: Callable[[int | None], None]) -> None:
    """A segment that has nothing leaves nothing."""
    disk(0)
    made = Segments(tmp_path)
    made.count(made.writer.add(allocations(0)), 5)
    made.writer.turn(totals(5))
    disk(None)
    made.count(0, 6)
    made.writer.close(totals(11))
    assert made.names() == ["02.arrows"]
    (verdict,) = made.verified()
    assert (verdict.allocations, verdict.lost) == (6, 0)
    assert made.writer.dropped.calls == 5


def test_folder_has_one_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one is refused, after the time that an orphaned worker may need."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    held = lock_folder(tmp_path / "new" / "folder")
    with pytest.raises(KalloctraceError, match="another kalloctrace monitor"):
        lock_folder(tmp_path / "new" / "folder")
    os.close(held)
    os.close(lock_folder(tmp_path / "new" / "folder"))
    (tmp_path / "file").write_text("")
    with pytest.raises(KalloctraceError, match="cannot use the folder"):
        lock_folder(tmp_path / "file")
