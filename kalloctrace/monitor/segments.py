# SPDX-License-Identifier: MIT
"""Segments: complete traces in one folder, the last of which is being written.

The name of a segment begins with its number, which alone orders them: wall clocks are set. Ages are counted by
CLOCK_BOOTTIME, which goes on while the machine sleeps and is never set; only how old the segments of an earlier run
are is read from the wall clock, once.
"""

import io
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.monitor.config import Config
from kalloctrace.monitor.start import Log
from kalloctrace.output.opened import CREATE
from kalloctrace.trace.containers import Containers
from kalloctrace.trace.dedup import allocations_of
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import Column, StreamColumns, TraceWriter

MOST_WAITING = 4 << 20
"""Bytes that wait for space on the disk; rows beyond it are dropped and counted."""

MOST_CONTAINERS = 4096
"""Whose names a new segment begins with."""

_COMPLETE, _OPEN, _TRUNCATED = ".arrows", ".arrows.open", ".truncated.arrows"
_NAME = re.compile(r"segment-(\d{10})-\d{8}T\d{6}Z(\.arrows|\.arrows\.open|\.truncated\.arrows)")


def boottime() -> float:
    """Return the seconds since the machine booted, with those of its sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class _Kept:
    """A segment that is complete, or was left by a crash."""

    path: Path
    size: int
    ended: float
    """By CLOCK_BOOTTIME; negative if that was before the machine booted."""


class SegmentFolder:
    """The folder of the segments.

    Attributes:
        removed: how many segments were removed so far, by reason: size, age, or space on the disk.

    Args:
        path: the folder, which exists.
        log: takes lines for people.
    """

    def __init__(self, path: Path, log: Log) -> None:
        self.removed: dict[str, int] = {"size": 0, "age": 0, "space": 0}
        self._path = path
        self._log = log
        self._kept: list[_Kept] = []
        self._number = 0

    @property
    def count(self) -> int:
        """Return how many segments are kept, without the one that is being written."""
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """Return the size of the segments that are kept."""
        return sum(kept.size for kept in self._kept)

    def recover(self) -> None:
        """Find the segments of earlier runs, and give names to those that were being written when one was killed."""
        found = sorted((int(match[1]), match[2], path) for path, match in self._found())
        self._number = max((number for number, _, _ in found), default=0)
        now, wall = boottime(), time.time()
        for _, suffix, path in found:
            here = self._recovered(path) if suffix == _OPEN else path
            if here is not None:
                there = here.stat()
                self._kept.append(_Kept(here, there.st_size, now - max(0.0, wall - there.st_mtime)))

    def _found(self) -> Iterator[tuple[Path, re.Match[str]]]:
        for path in self._path.iterdir():
            match = _NAME.fullmatch(path.name)
            if match is not None and path.is_file() and not path.is_symlink():
                yield path, match

    def _recovered(self, path: Path) -> Path | None:
        try:
            with TraceReader(path) as trace:
                truncated = trace.ending().truncated
        except KalloctraceError as error:
            path.unlink()
            self._log(f"removed {path.name}, of which an earlier run had written nothing: {error.why}")
            return None
        there = _renamed(path, truncated=truncated)
        self._log(f"kept {there.name}, which an earlier run was writing when it was ended")
        return there

    def new(self) -> Path:
        """Return the path of a new segment, with its number and the suffix of one that is being written."""
        self._number += 1
        return self._path / f"segment-{self._number:010}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{_OPEN}"

    def completed(self, path: Path, *, truncated: bool) -> Path:
        """Give a written segment its final name; return that."""
        there = _renamed(path, truncated=truncated)
        folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._kept.append(_Kept(there, there.stat().st_size, boottime()))
        return there

    def prune(self, config: Config, writing: int = 0) -> None:
        """Remove the oldest segments until the rest is within the limits.

        Args:
            config: the limits.
            writing: bytes of the segment that is being written.
        """
        now = boottime()
        while self._kept and now - self._kept[0].ended > config.keep_age:
            self._remove("age")
        while self._kept and self.bytes + writing > config.keep_size:
            self._remove("size")
        while self._kept and self._free() < config.keep_free:
            self._remove("space")

    def make_room(self) -> bool:
        """Remove the oldest segment, as the disk is full; return whether there was one."""
        if not self._kept:
            return False
        self._remove("space")
        return True

    def _free(self) -> int:
        there = os.statvfs(self._path)
        return there.f_bavail * there.f_frsize

    def _remove(self, reason: str) -> None:
        oldest = self._kept.pop(0)
        try:
            oldest.path.unlink(missing_ok=True)
        except OSError as error:
            self._log(f"cannot remove {oldest.path.name}: {error.strerror}")
            return
        self.removed[reason] += 1
        if reason == "space":
            self._log(f"removed {oldest.path.name}, as the disk is full")


def _renamed(path: Path, *, truncated: bool) -> Path:
    """Give a segment its final name; return that."""
    return path.rename(path.with_name(path.name.removesuffix(_OPEN) + (_TRUNCATED if truncated else _COMPLETE)))


class _File(io.RawIOBase):
    """A file that takes everything, and keeps what the disk has no room for until there is some.

    Attributes:
        size: bytes on the disk, all of them of whole batches.
        failure: why the last attempt failed; empty if it did not.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.size = 0
        self.failure = ""
        self._path = path
        self._fd = -1
        self._waiting = bytearray()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 (any object with a buffer)
        """Take data, which `save` writes."""
        view = memoryview(data).cast("B")
        self._waiting += view
        return len(view)

    @property
    def waiting(self) -> int:
        """Return the number of bytes that are not on the disk yet."""
        return len(self._waiting)

    def save(self) -> bool:
        """Write what waits, all of it or nothing; return whether that succeeded."""
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, CREATE, 0o600)
            at = 0
            with memoryview(self._waiting) as rest:
                while at < len(rest):
                    at += os.pwrite(self._fd, rest[at:], self.size + at)
        except OSError as error:
            self.failure = error.strerror or str(error)
            if self._fd >= 0:
                with suppress(OSError):
                    os.ftruncate(self._fd, self.size)
            return False
        self.size += len(self._waiting)
        self._waiting.clear()
        self.failure = ""
        return True

    def finish(self) -> bool:
        """Wait until everything is on the disk, and close the file; return whether it exists."""
        if self._fd < 0:
            return False
        try:
            os.fsync(self._fd)
        except OSError as error:
            self.failure = error.strerror or str(error)
        os.close(self._fd)
        return True


class Dropped(NamedTuple):
    """What found no room on the disk.

    Attributes:
        calls: counted calls.
        slow: calls of the slow path.
        failed: those of `slow` that returned no page.
    """

    calls: int = 0
    slow: int = 0
    failed: int = 0

    def plus(self, calls: int = 0, slow: int = 0, failed: int = 0) -> "Dropped":
        """Return the sum."""
        return Dropped(self.calls + calls, self.slow + slow, self.failed + failed)


class SegmentWriter:
    """Writes rows to one segment after another; a `RowWriter`. No row is lost between two of them.

    It never raises because of the disk: what finds no room waits, and what is too much to wait is dropped and counted.

    Attributes:
        dropped: what was dropped since the start.

    Args:
        folder: where the segments are.
        snapshot: the kernel and machine.
        recording: how the recording is made.
        config: the limits; may be replaced.
        log: takes lines for people.
    """

    def __init__(
        self, folder: SegmentFolder, snapshot: Snapshot, recording: Mapping[str, Any], config: Config, log: Log
    ) -> None:
        self.config = config
        self.dropped = Dropped()
        self._folder = folder
        self._snapshot = snapshot
        self._recording = recording
        self._log = log
        self._allocations: list[pa.StructArray] = []
        self._size = 0
        self._containers: Containers = {}
        self._before = _NO_TOTALS
        self._failing = False
        self._waiting = Dropped()
        self._open()

    def _open(self) -> None:
        self._began = boottime()
        self._path = self._folder.new()
        self._file = _File(self._path)
        self._dropped_before = self.dropped
        number = int(self._path.name.split("-")[1])
        recording = {
            **self._recording,
            # A recording of its own: datasets of many traces tell recordings apart by their id.
            "id": token_hex(16),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "started_monotonic": round(time.monotonic(), 6),
            "segment": {"number": number, "monitor": self._recording.get("id")},
        }
        self._trace = TraceWriter(self._file, self._snapshot, recording)  # type: ignore[arg-type] # a file for Arrow
        self._places: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        if self._size:
            self._allocations = [pa.concat_arrays(self._allocations)]
            self._place(self._allocations[0])
        if self._containers:
            self._trace.write_containers(self._containers)

    @property
    def size(self) -> int:
        """Return the bytes of the segment that is being written."""
        return self._file.size + self._file.waiting

    @property
    def waiting(self) -> int:
        """Return the bytes that wait for room on the disk."""
        return self._file.waiting

    @property
    def due(self) -> bool:
        """Return whether the segment is as old or large as it may be."""
        return boottime() - self._began >= self.config.age or self.size >= self.config.size

    def _place(self, allocations: pa.StructArray) -> None:
        first = self._trace.add(allocations)
        added = np.arange(first, first + len(allocations), dtype=np.int32)
        self._places = np.concatenate([self._places, added])

    def add(self, allocations: pa.RecordBatch | pa.StructArray) -> int:
        """Add allocations that rows will refer to, in any segment; return the index of the first."""
        if not isinstance(allocations, pa.StructArray):
            allocations = allocations_of(allocations)
        self._allocations.append(allocations)
        first = self._size
        self._size += len(allocations)
        self._place(allocations)
        return first

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write counts of calls by allocation."""
        if self._takes(calls=int(np.asarray(counts).sum())):
            self._trace.write_aggregate(counts, self._places[np.asarray(indices)], by)
            self._save()

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, a row for each."""
        if self._takes(calls=len(calls.indices)):
            self._trace.write_stream(calls._replace(indices=self._places[np.asarray(calls.indices)]))
            self._save()

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet."""
        if self._takes(calls=batch.num_rows):
            self._trace.write(batch)
            self._save()

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write calls of the slow path."""
        if self._takes(slow=len(calls), failed=sum(call.get("page") is False for call in calls)):
            self._trace.write_slow(calls)
            self._save()

    def write_containers(self, containers: Containers) -> None:
        """Write names of containers; each segment has those that are known."""
        self._containers = dict(islice({**containers, **self._containers}.items(), MOST_CONTAINERS))
        if self._takes():
            self._trace.write_containers(containers)
            self._save()

    def _takes(self, *, calls: int = 0, slow: int = 0, failed: int = 0) -> bool:
        """Return whether there is room for more; count what is not written otherwise."""
        if self._file.waiting > MOST_WAITING and not self._save():
            self.dropped = self.dropped.plus(calls, slow, failed)
            return False
        self._waiting = self._waiting.plus(calls, slow, failed)
        return True

    def _save(self) -> bool:
        saved = self._file.save()
        while not saved and self._folder.make_room():
            saved = self._file.save()
        self._waiting = Dropped() if saved else self._waiting
        if saved == self._failing:
            self._failing = not saved
            if saved:
                lost = self.dropped.calls - self._dropped_before.calls
                self._log(f"segments are written again; {lost:,} calls of this one were dropped")
            else:
                waits = f"up to {MOST_WAITING >> 20} MiB wait, the rest is dropped and counted"
                self._log(f"cannot write {self._path.name}: {self._file.failure}; {waits}")
        return saved

    def retry(self) -> None:
        """Write what waits for space, and remove the segments that are too many, too old or too large."""
        if self._file.waiting:
            self._save()
        self._folder.prune(self.config, self.size)

    def turn(self, totals: Totals, recording: Mapping[str, Any] | None = None) -> None:
        """Complete the segment and begin another one.

        Args:
            totals: of the recording since it began, for which all rows are written.
            recording: how it is recorded from now on; None if that has not changed.
        """
        self._complete(totals, last=False)
        self._recording = recording or self._recording
        self._open()
        self._folder.prune(self.config, self.size)

    def close(self, totals: Totals) -> None:
        """Complete the last segment; the arguments are those of `turn`."""
        self._complete(totals, last=True)

    def _complete(self, totals: Totals, *, last: bool) -> None:
        part = totals.since(self._before, last=last)
        dropped = Dropped(*(now - before for now, before in zip(self.dropped, self._dropped_before, strict=True)))
        slow = None if part.slow is None else part.slow - dropped.slow
        failed = None if part.slow_failed is None else part.slow_failed - dropped.failed
        self._trace.close(
            replace(
                part,
                submitted=part.submitted - dropped.calls,
                dropped=part.dropped + dropped.calls,
                slow=slow,
                slow_failed=failed,
                slow_split=None if dropped.slow else part.slow_split,
                slow_lost=part.slow_lost + dropped.slow,
            )
        )
        self._trace.__exit__(None, None, None)
        self._before = totals
        saved = self._save()
        self.dropped, self._waiting = self.dropped.plus(*self._waiting), Dropped()
        if not self._file.finish():
            self._log(f"{self._path.name} is lost: {self._file.failure}")
            return
        with suppress(OSError):
            if not self._file.size:
                self._path.unlink()
                return
            there = self._folder.completed(self._path, truncated=not saved)
            calls = part.submitted - dropped.calls
            self._log(f"wrote {there.name}: {calls:,} calls, {self._file.size:,} bytes")


_NO_TOTALS = Totals(0, 0, 0, 0, 0, 0, 0, 0, 0, (), "", 0.0)
