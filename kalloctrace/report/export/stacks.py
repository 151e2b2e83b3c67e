# SPDX-License-Identifier: MIT
"""A trace as weighted stacks for flame graphs: folded lines, and the speedscope format."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kalloctrace.console import json_text
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.flags.tables import FlagTables
from kalloctrace.report.amount import Amount
from kalloctrace.text import printable
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.dedup import KEYS
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import PAGE_SIZE, pages_of
from kalloctrace.trace.schema import ALLOCATION, frames_of
from kalloctrace.version import __version__

Frames = tuple[str, ...]

NO_STACK = "[no stack recorded]"
_SCHEMA = "https://www.speedscope.app/file-format-schema.json"


@dataclass
class Stacks:
    """Allocations by stack.

    Attributes:
        amounts: by frames, escaped as for a terminal, outermost first: the task, then its kernel stack. Where no stack
            was recorded, the gfp mask and the order replace it; an aggregate has no task either.
        recorded: at least one call has a stack.
        ending: how the trace ends.
    """

    amounts: dict[Frames, Amount] = field(default_factory=dict)
    recorded: bool = False
    ending: Ending = field(default_factory=lambda: Ending(None, truncated=True))


def stacks_of(trace: TraceReader) -> Stacks:
    """Add up a trace by stack; memory grows with the distinct stacks, not with the rows.

    Args:
        trace: the trace.
    """
    by_stack, by_mask = Stacks(recorded=True), Stacks()
    masks = _Masks(trace.snapshot.tables)
    recorded = False
    reading = trace.row_batches()
    for rows in reading:
        masks.use(rows.allocations)
        tasks, stacks = _texts(rows, "comm"), _texts(rows, "stack")
        _add(by_mask, rows, (tasks, _Coded(rows.indices, masks.frames)), masks.pages)
        if stacks is not None:
            _add(by_stack, rows, (tasks, stacks), masks.pages)
            recorded = recorded or rows.task_columns["stack"].null_count < len(rows.indices)
    return replace(by_stack if recorded else by_mask, ending=reading.finish())


def write_folded(stacks: Stacks, stream: IO[bytes]) -> None:
    """Write a line for each stack: its frames joined by ";", a space, and its number of calls.

    flamegraph.pl, inferno, speedscope and others read this.
    """
    for frames, amount in _sorted(stacks):
        words = ";".join(frame.replace(";", ":") for frame in frames)
        stream.write(f"{words} {amount.count}\n".encode())


def write_speedscope(stacks: Stacks, name: str, stream: IO[bytes]) -> None:
    """Write a file for speedscope: one profile of calls, one of bytes.

    Args:
        stacks: the stacks.
        name: of the file, as speedscope shows it.
        stream: where to write.
    """
    frames: dict[str, int] = {}
    samples = [[frames.setdefault(frame, len(frames)) for frame in stack] for stack, _ in _sorted(stacks)]
    amounts = [amount for _, amount in _sorted(stacks)]
    document = {
        "$schema": _SCHEMA,
        "name": printable(name),
        "exporter": f"kalloctrace {__version__}",
        "activeProfileIndex": 0,
        "shared": {"frames": [{"name": frame} for frame in frames]},
        "profiles": [
            _profile("allocations", "none", samples, [amount.count for amount in amounts]),
            _profile("memory", "bytes", samples, [amount.pages * PAGE_SIZE for amount in amounts]),
        ],
    }
    stream.write(json_text(document).encode() + b"\n")


def _profile(name: str, unit: str, samples: list[list[int]], weights: list[int]) -> dict[str, Any]:
    total = sum(weights)
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": total,
        "samples": samples,
        "weights": weights,
    }


def _sorted(stacks: Stacks) -> Iterator[tuple[Frames, Amount]]:
    yield from sorted(stacks.amounts.items())


@dataclass(frozen=True)
class _Coded:
    """The frames of each row, as codes of the distinct frames."""

    codes: npt.NDArray[Any]
    frames: list[Frames]


class _Masks:
    """The frames that replace a missing stack, and the pages, of each distinct allocation."""

    def __init__(self, tables: FlagTables) -> None:
        self._tables = tables
        self._allocations = pa.array([], ALLOCATION)
        self.frames: list[Frames] = []
        self.pages: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def use(self, allocations: pa.StructArray) -> None:
        if allocations is self._allocations:
            return
        self._allocations = allocations
        table = pa.Table.from_arrays(allocations.flatten(), names=KEYS)
        self.pages = pages_of(table).to_numpy()
        columns = (table.column(name).to_pylist() for name in ("gfp_mask", "order"))
        self.frames = [self._frames(gfp_mask, order) for gfp_mask, order in zip(*columns, strict=True)]

    def _frames(self, gfp_mask: int, order: int) -> Frames:
        return (printable(decode_gfp(gfp_mask, self._tables).text) or "0x0", f"order {order}")


def _texts(rows: RowBatch, name: str) -> _Coded | None:
    """Return the frames in a text column, those for null last; None where the column is missing."""
    column: pa.DictionaryArray | None = rows.task_columns.get(name)
    if column is None:
        return None
    none = len(column.dictionary)
    texts = column.dictionary.to_pylist()
    parts = (frames_of(text)[::-1] if name == "stack" else (text,) for text in texts)
    frames = [tuple(map(printable, part)) for part in parts]
    return _Coded(column.indices.fill_null(none).to_numpy(), [*frames, (NO_STACK,)])


def _add(stacks: Stacks, rows: RowBatch, parts: tuple[_Coded | None, _Coded], pages: npt.NDArray[np.int64]) -> None:
    outer, inner = parts
    codes = inner.codes.astype(np.int64)
    if outer is not None:
        codes += outer.codes.astype(np.int64) * len(inner.frames)
    counts = np.ones(len(codes), np.uint64) if rows.counts is None else rows.counts
    distinct, which = np.unique(codes, return_inverse=True)
    calls, taken = np.zeros(len(distinct), np.uint64), np.zeros(len(distinct), np.uint64)
    np.add.at(calls, which, counts)
    np.add.at(taken, which, counts * pages[rows.indices].astype(np.uint64))
    for code, count, amount in zip(distinct.tolist(), calls.tolist(), taken.tolist(), strict=True):
        first, second = divmod(code, len(inner.frames))
        frames = ((*outer.frames[first],) if outer is not None else ()) + inner.frames[second]
        stacks.amounts.setdefault(frames, Amount()).add(Amount(count, amount))
