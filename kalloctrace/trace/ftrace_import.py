# SPDX-License-Identifier: MIT
"""Makes a trace from events of kmem:mm_page_alloc that another tool recorded; what they do not show stays unknown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import chain, islice
from typing import IO, Any

import pyarrow as pa

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.decode import parse_flags
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.ftrace_text import Event, EventText
from kalloctrace.trace.schema import COLUMNS, TRACEPOINT
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter

_ROWS = 1 << 16
_SHOWN = ("time", "cpu", "pid", "tid", "comm", "stack", "order", "migratetype")
"""Columns that an event has under the same names."""


@dataclass(frozen=True)
class ImportResult:
    """The result of an import.

    Attributes:
        totals: the trace's totals; lost are events that the text reports as missing, and unreadable lines.
        form: which tool wrote the text.
        kernel: the release whose flags and rules the trace has.
        first_unreadable: number of the first unreadable line with this event, from 1; 0 if there is none.
    """

    totals: Totals
    form: str
    kernel: str
    first_unreadable: int


def without_machine(snapshot: Snapshot) -> Snapshot:
    """Return a kernel on an unknown machine; only gfp_allowed_mask is kept."""
    return Snapshot(
        release=snapshot.release,
        version=snapshot.version,
        features=snapshot.features,
        tables=snapshot.tables,
        machine=Machine((), {}, {}, 0, gfp_allowed_mask=snapshot.machine.gfp_allowed_mask),
        evidence=snapshot.evidence,
    )


def import_text(text: EventText, file: IO[bytes], kernel: Snapshot | None, *, name: str) -> ImportResult:
    """Write the events of a text as a stream; memory does not grow with them.

    Args:
        text: the text, not read yet.
        file: the open file to write the trace to.
        kernel: the kernel whose flags the text prints; None to use the release that the text names.
        name: the name of the text, for messages.

    Raises:
        KalloctraceError: there is no event, no kernel is named, the kernel lacks a printed flag, or the file cannot be
            written.
    """
    events = text.events()
    first = next(events, None)
    if first is None:
        raise _no_events(name, text)
    snapshot = without_machine(kernel or _named(text, name))
    totals = _write(text, chain([first], events), file, snapshot, name)
    return ImportResult(totals, str(text.form), snapshot.release, text.first_unreadable)


def _write(text: EventText, events: Iterator[Event], file: IO[bytes], snapshot: Snapshot, name: str) -> Totals:
    recording = {
        "mode": "stream",
        "imported": {
            "file": name,
            "form": text.form,
            "event": "kmem:mm_page_alloc",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "stacks": text.form == "perf script",
        "attached": ["kmem:mm_page_alloc"],
    }

    @lru_cache(maxsize=4096)
    def mask(words: str) -> int:
        return parse_flags(words, snapshot.tables)

    rows, begin, end = 0, None, 0
    with TraceWriter(file, snapshot, recording) as writer:
        while batch := list(islice(events, _ROWS)):
            try:
                writer.write(event_rows(batch, mask))
            except KalloctraceError as error:
                raise _foreign(error, snapshot) from error
            rows += len(batch)
            times = [event.time for event in batch]
            begin = min(times) if begin is None else min(begin, *times)
            end = max(end, *times)
        totals = Totals(
            opened=rows + text.lost + text.unreadable,
            submitted=rows,
            dropped=text.lost + text.unreadable,
            no_room=0,
            replaced=0,
            running=0,
            freelist_alone=0,
            return_alone=0,
            missed=0,
            machine_changed=(),
            reason="the text ended",
            seconds=round((end - (begin or 0)) / 1e9, 6),
        )
        writer.close(totals)
    return totals


def event_rows(events: list[Event], mask: Callable[[str], int]) -> pa.RecordBatch:
    """Return events as rows; columns that an event does not have are null.

    Args:
        events: the events.
        mask: parses a gfp mask as printed.

    Raises:
        KalloctraceError: the kernel lacks a printed flag.
    """
    known: dict[str, list[Any]] = {
        "entry": [TRACEPOINT] * len(events),
        **{name: [getattr(event, name) for event in events] for name in _SHOWN},
        "gfp_mask": [mask(event.gfp_flags) for event in events],
        "page": [not event.failed for event in events],
    }
    columns = [
        pa.array(known[field.name], field.type) if field.name in known else pa.nulls(len(events), field.type)
        for field in COLUMNS
    ]
    return pa.RecordBatch.from_arrays(columns, schema=COLUMNS)


def _named(text: EventText, name: str) -> Snapshot:
    if text.release is None:
        raise KalloctraceError(
            f"the kernel of {name} is not known",
            "the text names no release before its first event, and flags differ between kernels",
            "name it with --kernel, such as 6.1, or live for this machine's; or run perf script with --header",
            Exit.USAGE,
        )
    return builtin_snapshot(text.release.release, version=text.release.version)


def _no_events(name: str, text: EventText) -> KalloctraceError:
    why = "it has no line with an event mm_page_alloc and its fields"
    if text.unreadable:
        why = (
            f"its {text.unreadable:,} lines with mm_page_alloc have another form, or numbers that no kernel prints; "
            f"the first is line {text.first_unreadable}"
        )
    return KalloctraceError(
        f"nothing to import from {name}",
        why,
        "give the text of perf script, of trace-cmd report, or of tracefs's trace, with kmem:mm_page_alloc recorded",
    )


def _foreign(error: KalloctraceError, snapshot: Snapshot) -> KalloctraceError:
    return KalloctraceError(
        f"these are not the flags of kernel {snapshot.release}: {error.what}",
        error.why,
        "name the kernel that was traced with --kernel",
    )
