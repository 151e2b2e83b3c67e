# SPDX-License-Identifier: MIT
"""A stream as a Perfetto trace, for its UI (https://ui.perfetto.dev) and its trace processor.

Each CPU and each task has a track. A call is an instant on both. A call of the slow path is a slice on the track of its
task, from entry to return, with an instant for each attempt. Where the slow path was not recorded, a call that reached
get_page_from_freelist() more than once is a slice of length zero, because its end is not known. Counters for each CPU
add up pages, slow-path calls and failures.

Field numbers are those of protos/perfetto/trace/perfetto_trace.proto of Perfetto 0.59.1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, TypeAlias

import pyarrow as pa

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.text import printable
from kalloctrace.trace.dedup import KEYS, begins_with
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import pages_of
from kalloctrace.trace.schema import ALLOCATION

_VARINT, _BYTES = 0, 2
_MORE = 0x80


def varint(value: int) -> bytes:
    """Return a number as a base 128 varint.

    Args:
        value: from 0 to 2^64 - 1; a negative int64 is encoded as its two's complement.
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """Return a field of an integer type, a bool or an enum."""
    return varint(field << 3 | _VARINT) + varint(value)


def blob(field: int, value: bytes) -> bytes:
    """Return a field that holds bytes or another message."""
    return varint(field << 3 | _BYTES) + varint(len(value)) + value


def text_blob(field: int, text: str) -> bytes:
    """Return a field that holds a text, escaped as for a terminal: the UI shows it to people."""
    return blob(field, printable(text).encode())


_SEQUENCE = number(10, 1)
"""TracePacket.trusted_packet_sequence_id: all packets come from one writer."""
_CLEARED, _NEEDED = number(13, 1), number(13, 2)
"""TracePacket.sequence_flags: SEQ_INCREMENTAL_STATE_CLEARED and SEQ_NEEDS_INCREMENTAL_STATE."""

_SLICE_BEGIN, _SLICE_END, _INSTANT, _COUNTER = 1, 2, 3, 4
_COUNT, _UNIT_PAGES = 2, "pages"

_CPUS = 1
_FIRST_CPU = 1 << 16
_FIRST_TASK = 1 << 32
_FIRST_PROCESS = 1 << 48
"""Uuids of tracks: the parent of all CPUs, and the first uuid of CPUs, tasks and processes."""
_OF_A_CPU = 8
"""Uuids reserved for each CPU: its track and its counters."""

_COUNTERS = ("pages", "slow paths", "failures")
_COUNTER_EVERY = 1_000_000
"""Nanoseconds between two values of the page counter; more values would double the file and show no more."""


def write_perfetto(trace: TraceReader, stream: IO[bytes]) -> Ending:
    """Write all calls of a stream in the order of the file; memory grows only with tasks and distinct calls.

    Args:
        trace: a stream; an aggregate has no times.
        stream: where to write.

    Returns:
        How the trace ends.
    """
    timed = bool(trace.recording.get("slow"))
    writer = _Writer(trace.snapshot.tables, timed=timed)
    stream.write(writer.start(f"kalloctrace: {trace.snapshot.release}"))
    reading = trace.row_batches()
    for rows in reading:
        who = rows.task_columns
        comms = [name.as_py() for name in who["comm"].dictionary]
        columns = (who[name].to_numpy().tolist() for name in ("time", "cpu", "pid", "tid"))
        writer.use(rows.allocations)
        codes = who["comm"].indices.to_numpy().tolist()
        stream.writelines(
            writer.call(time, cpu, (pid, tid, comms[comm]), index)
            for time, cpu, pid, tid, comm, index in zip(*columns, codes, rows.indices.tolist(), strict=True)
        )
    ending = reading.finish()
    if timed:
        calls = trace.slow_calls()
        stream.writelines(writer.slow(call) for call in calls)
        ending = calls.finish()
    stream.write(writer.end())
    return ending


_Caller: TypeAlias = tuple[int, int, str]
"""Process, thread and name."""


@dataclass(frozen=True)
class _Task:
    """A task that has a track.

    Attributes:
        track: uuid of the track.
        comm: its last name.
        fact: the name as a debug annotation.
    """

    track: int
    comm: str
    fact: bytes


@dataclass(frozen=True)
class _Call:
    """A distinct call, encoded.

    Attributes:
        name: TrackEvent.name_iid.
        facts: its debug annotations.
        amounts: increments of each counter.
    """

    name: bytes
    facts: bytes
    amounts: tuple[int, int, int]


@dataclass
class _Cpu:
    """The counters of a CPU, the time of their last write, and the time of the last call."""

    values: list[int] = field(default_factory=lambda: [0] * len(_COUNTERS))
    written: int = 0
    time: int = 0


class _Interned:
    """Texts that are sent once and then referred to by number."""

    def __init__(self, group: int) -> None:
        self._group = group
        self._known: dict[str, int] = {}
        self._new: list[bytes] = []

    def iid(self, text: str) -> int:
        if text not in self._known:
            self._known[text] = len(self._known) + 1
            # EventName, DebugAnnotationName and InternedString: iid = 1, the text = 2.
            self._new.append(blob(self._group, number(1, self._known[text]) + text_blob(2, text)))
        return self._known[text]

    def take_new(self) -> bytes:
        """Return the texts that have not been sent yet, as fields of InternedData."""
        if not self._new:
            return b""
        new, self._new = b"".join(self._new), []
        return new


class _Writer:
    def __init__(self, tables: FlagTables, *, timed: bool) -> None:
        self._tables = tables
        self._timed = timed
        self._names, self._keys, self._values = _Interned(2), _Interned(3), _Interned(29)
        self._allocations = pa.array([], ALLOCATION)
        self._calls: list[_Call] = []
        self._cpus: dict[int, _Cpu] = {}
        self._tasks: dict[tuple[int, int], _Task] = {}

    def start(self, title: str) -> bytes:
        """Return the first packets."""
        return _packet(number(87, 1), _CLEARED) + _track(_CPUS, text_blob(2, f"CPUs ({title})"))

    def use(self, allocations: pa.StructArray) -> None:
        """Encode the distinct allocations of the next calls."""
        if allocations is self._allocations:
            return
        table = pa.Table.from_arrays(allocations.flatten(), names=KEYS)
        pages = pages_of(table).to_pylist()
        kept = len(self._calls) if begins_with(allocations, self._allocations) else 0
        rows = table.slice(kept).to_pylist()
        self._calls = self._calls[:kept] + [self._call(*pair) for pair in zip(rows, pages[kept:], strict=True)]
        self._allocations = allocations

    def call(self, time: int, cpu: int, caller: _Caller, index: int) -> bytes:
        """Return the packets of a call."""
        call = self._calls[index]
        new = self._track_of_cpu(cpu) + self._track_of_task(caller)
        task = self._tasks[caller[:2]]
        slow = call.amounts[1] > 0 and not self._timed
        parts = [
            new,
            self._interned_data(),
            _event(time, _INSTANT, _FIRST_CPU + cpu * _OF_A_CPU, call.name + call.facts + task.fact),
            _event(time, _SLICE_BEGIN if slow else _INSTANT, task.track, call.name + call.facts),
            _event(time, _SLICE_END, task.track, b"") if slow else b"",
            self._count(time, cpu, call.amounts),
        ]
        return b"".join(parts)

    def slow(self, call: Mapping[str, Any]) -> bytes:
        """Return the packets of a call of the slow path, with the columns of trace/slowpath.py."""
        caller, given, tables = (call["pid"], call["tid"], call["comm"]), call["given"], self._tables
        begun, ended = call["time"], call["duration"]
        gfp = decode_gfp(given["gfp_mask"], tables).text or "0x0"
        facts = {"page": None if call["page"] is None else int(call["page"]), "attempts": len(call["attempts"])}
        name = number(10, self._names.iid(f"slow path: {gfp} order {given['order']}"))
        more = name + b"".join(self._fact(key, value) for key, value in facts.items() if value is not None)
        attempts = [
            (
                begun + attempt["after"],
                number(10, self._names.iid(f"attempt: {decode_alloc(attempt['alloc_flags'], tables).text}"))
                + b"".join(self._fact("after", event) for event in attempt["between"]),
            )
            for attempt in call["attempts"]
        ]
        new = self._track_of_task(caller)
        track = self._tasks[caller[:2]].track
        return b"".join(
            [
                new,
                self._interned_data(),
                _event(begun, _INSTANT if ended is None else _SLICE_BEGIN, track, more),
                *(_event(time, _INSTANT, track, attempt) for time, attempt in attempts),
                b"" if ended is None else _event(begun + ended, _SLICE_END, track, b""),
            ]
        )

    def _interned_data(self) -> bytes:
        new = self._names.take_new() + self._keys.take_new() + self._values.take_new()
        return _packet(_NEEDED, blob(12, new)) if new else b""

    def end(self) -> bytes:
        """Return the last packets: the final values of the counters, and the processes with their last names.

        Processes are named only here, because the trace processor keeps the first name that it reads.
        """
        counters = [self._values_of(cpu, counted) for cpu, counted in self._cpus.items()]
        # ProcessDescriptor: pid = 1, process_name = 6.
        processes = [
            _track(_FIRST_PROCESS + pid, blob(3, number(1, pid) + text_blob(6, task.comm)))
            for (pid, tid), task in self._tasks.items()
            if pid == tid
        ]
        return b"".join(counters + processes)

    def _call(self, row: dict[str, Any], pages: int) -> _Call:
        tables = self._tables
        slow = (row["freelist_calls"] or 0) > 1
        gfp = decode_gfp(row["gfp_mask"], tables).text or "0x0"
        name = f"{'slow path: ' if slow else ''}{gfp} order {row['order']}"
        facts = b"".join(self._fact(key, value) for key, value in _facts(row, gfp, tables) if value is not None)
        return _Call(number(10, self._names.iid(name)), facts, (pages, int(slow), int(row["page"] is False)))

    def _fact(self, key: str, value: str | int) -> bytes:
        # DebugAnnotation: name_iid = 1, int_value = 4, string_value_iid = 17.
        content = number(4, value) if isinstance(value, int) else number(17, self._values.iid(value))
        return blob(4, number(1, self._keys.iid(key)) + content)

    def _track_of_cpu(self, cpu: int) -> bytes:
        if cpu in self._cpus:
            return b""
        self._cpus[cpu] = _Cpu()
        uuid = _FIRST_CPU + cpu * _OF_A_CPU
        # CounterDescriptor: unit = 3, unit_name = 6.
        kinds = (text_blob(6, _UNIT_PAGES), number(3, _COUNT), number(3, _COUNT))
        counters = [
            _track(uuid + 1 + i, number(5, uuid) + text_blob(2, f"CPU {cpu} {name}") + blob(8, kind))
            for i, (name, kind) in enumerate(zip(_COUNTERS, kinds, strict=True))
        ]
        return _track(uuid, number(5, _CPUS) + text_blob(2, f"CPU {cpu}")) + b"".join(counters)

    def _track_of_task(self, caller: _Caller) -> bytes:
        pid, tid, comm = caller
        known = self._tasks.get((pid, tid))
        if known is not None and known.comm == comm:
            return b""
        track = _FIRST_TASK + len(self._tasks) if known is None else known.track
        self._tasks[pid, tid] = _Task(track, comm, self._fact("task", comm))
        # ThreadDescriptor: pid = 1, tid = 2, thread_name = 5.
        return _track(track, blob(4, number(1, pid) + number(2, tid) + text_blob(5, comm)))

    def _count(self, time: int, cpu: int, amounts: tuple[int, int, int]) -> bytes:
        counted = self._cpus[cpu]
        counted.values = [have + more for have, more in zip(counted.values, amounts, strict=True)]
        # An interrupted call comes after the call that interrupted it, but has an earlier time.
        counted.time = max(counted.time, time)
        if counted.time - counted.written < _COUNTER_EVERY and not any(amounts[1:]):
            return b""
        counted.written = counted.time
        return self._values_of(cpu, counted)

    def _values_of(self, cpu: int, counted: _Cpu) -> bytes:
        first = _FIRST_CPU + cpu * _OF_A_CPU + 1
        return b"".join(
            _event(counted.time, _COUNTER, first + i, number(30, value)) for i, value in enumerate(counted.values)
        )


def _facts(row: dict[str, Any], gfp: str, tables: FlagTables) -> Iterator[tuple[str, str | int | None]]:
    flags, migratetype = row["alloc_flags"], row["migratetype"]
    node, zone = row["preferred_node"], row["preferred_zone"]
    yield "entry", row["entry"]
    yield "order", row["order"]
    yield "gfp_mask", gfp
    yield "alloc_flags", None if flags is None else decode_alloc(flags, tables).text
    yield "migratetype", None if migratetype is None else tables.migratetype_name(migratetype)
    yield "preferred_zone", f"node {node} {tables.zone_name(zone)}" if zone is not None and zone >= 0 else None
    yield "freelist_calls", row["freelist_calls"]
    yield "page", None if row["page"] is None else int(row["page"])


def _packet(*fields: bytes) -> bytes:
    """Return a field of Trace: a TracePacket."""
    body = b"".join(fields) + _SEQUENCE
    return b"\x0a" + varint(len(body)) + body


def _track(uuid: int, descriptor: bytes) -> bytes:
    # TracePacket.track_descriptor; TrackDescriptor.uuid = 1.
    return _packet(blob(60, number(1, uuid) + descriptor))


def _event(time: int, kind: int, track: int, more: bytes) -> bytes:
    # TracePacket: timestamp = 8, track_event = 11; TrackEvent: type = 9, track_uuid = 11.
    return _packet(number(8, time), _NEEDED, blob(11, number(9, kind) + number(11, track) + more))
