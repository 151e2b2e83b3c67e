# SPDX-License-Identifier: MIT
"""Traces whose names of tasks, commands and cgroups are replaced by hashes, so that they can be shared.

The hashes are keyed with a random key that is never stored: equal names are equal within a trace, and nobody can try
names until a hash fits. Numbers of processes, kernel stacks and everything about the kernel stay as they are.
"""

import secrets
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.containers import Containers
from kalloctrace.trace.dedup import begins_with
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.writer import Column, StreamColumns, TraceWriter

if TYPE_CHECKING:
    # A recorder reads no trace.
    from kalloctrace.trace.decode import RowBatch
    from kalloctrace.trace.reader import Ending, TraceReader

_OPEN = frozenset(
    (
        *("started", "mode", "attached", "attachment", "attachment_reason", "attach", "inferred", "filters_inferred"),
        *("protections", "left_out", "cgroups", "by", "id"),
    )
)
"""Members of a recording's description whose texts are the recorder's own words. All other texts are hashed."""
_UNKNOWN = "?"
_MOST_WAITING = 256


def new_key() -> bytes:
    """Return a random key."""
    return secrets.token_bytes(32)


class Pseudonyms:
    """The pseudonyms of one trace, or of all that share a key.

    Args:
        key: of the hashes; a new one by default.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = new_key() if key is None else key
        self._known: dict[str, str] = {_UNKNOWN: _UNKNOWN}

    def of(self, name: str) -> str:
        """Return what stands for a name; it is as long as the name of a task may be, 15 characters."""
        known = self._known.get(name)
        if known is None:
            digest = blake2b(name.encode(errors="surrogatepass"), digest_size=5, key=self._key).hexdigest()
            known = self._known[name] = f"name-{digest}"
        return known

    def column(self, names: pa.DictionaryArray) -> pa.DictionaryArray:
        """Return a column of names with their pseudonyms."""
        dictionary = pa.array(map(self.of, names.dictionary.to_pylist()), pa.utf8())
        return pa.DictionaryArray.from_arrays(names.indices, dictionary)

    def recording(self, recording: Mapping[str, Any]) -> dict[str, Any]:
        """Return how a trace was recorded, without names; it says that the trace is pseudonymous."""
        hidden = {name: value if name in _OPEN else self._hidden(value) for name, value in recording.items()}
        return {**hidden, "pseudonymous": True}

    def _hidden(self, value: object) -> object:
        match value:
            case str():
                return self.of(value)
            case list() | tuple():
                return [self._hidden(each) for each in value]
            case dict():
                return {name: self._hidden(each) for name, each in value.items()}
        return value


class PseudonymousWriter(TraceWriter):
    """A trace that is being written with pseudonyms in place of names; the arguments are those of `TraceWriter`."""

    def __init__(
        self, target: Path | IO[bytes], snapshot: Snapshot, recording: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self._names = Pseudonyms()
        super().__init__(target, snapshot, self._names.recording(recording), overwrite=overwrite)

    def write_stream(self, calls: StreamColumns) -> None:
        """Write calls, a row for each."""
        cgroup = None if calls.cgroup is None else self._names.column(calls.cgroup)
        super().write_stream(calls._replace(comm=self._names.column(calls.comm), cgroup=cgroup))

    def write_aggregate(self, counts: Column, indices: Column, by: pa.DictionaryArray | None = None) -> None:
        """Write counts of calls by allocation."""
        super().write_aggregate(counts, indices, None if by is None else self._names.column(by))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write calls that are not grouped yet."""
        if self._by is not None:
            # As counts, which are given pseudonyms.
            super().write(batch)
            return
        for name in ("comm", "cgroup"):
            at = batch.schema.get_field_index(name)
            batch = batch.set_column(at, batch.schema.field(at), self._names.column(batch.column(at)))
        super().write(batch)

    def write_slow(self, calls: Sequence[Mapping[str, Any]]) -> None:
        """Write calls of the slow path."""
        super().write_slow([{**call, **self._hashed(call)} for call in calls])

    def _hashed(self, call: Mapping[str, Any]) -> dict[str, str]:
        return {name: self._names.of(call[name]) for name in ("comm", "cgroup") if call.get(name) is not None}

    def write_containers(self, containers: Containers) -> None:
        """Leave out the names of containers."""

    def copy(self, trace: "TraceReader") -> "Ending":
        """Write all that a trace has; return how it ends. A truncated trace stays truncated."""
        dictionary, numbers = pa.array([], ALLOCATION), np.zeros(0, np.int32)
        waiting: list[dict[str, Any]] = []

        def rows(batch: "RowBatch") -> None:
            nonlocal dictionary, numbers
            if batch.allocations is not dictionary:
                have = len(dictionary) if begins_with(batch.allocations, dictionary) else 0
                numbers = np.concatenate([numbers[:have], self._indices(batch.allocations.slice(have))])
                dictionary = batch.allocations
            indices, tasks = numbers[batch.indices], batch.task_columns
            if batch.counts is not None:
                self.write_aggregate(batch.counts, indices, None if trace.by is None else tasks[trace.by])
                return
            columns: dict[str, Any] = {name: tasks[name] for name in ("time", "cpu", "pid", "tid", "comm")}
            optional = {name: tasks.get(name) for name in ("stack", "cgroup")}
            self.write_stream(StreamColumns(**columns, **optional, indices=indices))

        def slow(call: dict[str, Any]) -> None:
            waiting.append(call)
            if len(waiting) >= _MOST_WAITING:
                self.write_slow(waiting)
                waiting.clear()

        ending = trace.read(rows, slow)
        self.write_slow(waiting)
        if ending.totals is not None:
            self.close(ending.totals)
        return ending


def write_pseudonymous(trace: "TraceReader", file: IO[bytes]) -> "Ending":
    """Write a trace again with pseudonyms in place of names.

    Args:
        trace: the trace.
        file: an open file that somebody else completes.

    Returns:
        How the trace ends.
    """
    recording = {**trace.recording, "mode": "aggregate" if trace.aggregate else "stream"}
    with PseudonymousWriter(file, trace.snapshot, recording) as writer:
        return writer.copy(trace)
