# SPDX-License-Identifier: MIT
"""The public API: what `import kalloctrace` offers to scripts and notebooks.

Masks are integers (`gfp_t` and ALLOC_* bits, unsigned 32 bits), orders are powers of two of pages, node lists are texts
as the kernel prints them ("0,2-3"), times are nanoseconds of CLOCK_MONOTONIC.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from kalloctrace.commands.kernel_source import kernel_snapshot, kernel_tables
from kalloctrace.errors import KalloctraceError
from kalloctrace.explain.request import WhatIf
from kalloctrace.flags.builtin import default_tables
from kalloctrace.flags.decode import Decoded, decode_alloc, decode_gfp, decode_text, parse_flags
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Preparation, Step, UnknownFact
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION, ROWS, TRACEPOINT
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.compare import predict as predict_row
from kalloctrace.verify.verification import Judge, Mismatch, Shown, Verification, verify_trace

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = [
    "Decoded",
    "Difference",
    "ExplainedRow",
    "KalloctraceError",
    "Mismatch",
    "Preparation",
    "Step",
    "Trace",
    "Verification",
    "decode",
    "open_trace",
    "predict",
]

Row = Mapping[Any, Any]
"""One allocation of a trace: column names, as those of `Trace.to_arrow`, and their values."""


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """What the model says about one allocation of a trace.

    Attributes:
        outcome: "matched", "mismatched", or "unknown" where a fact that decides was not captured.
        reason: why the outcome is unknown; empty otherwise.
        differences: the fields that differ, with the model's value, the kernel's value and the rule.
        not_judged: rules that were not judged, because a fact that they need is inferred and not captured.
        preparation: the prediction, with its steps; None where it depends on a fact that was not captured.
    """

    outcome: Literal["matched", "mismatched", "unknown"]
    reason: str
    differences: tuple[Difference, ...]
    not_judged: tuple[str, ...]
    preparation: Preparation | None


class Trace:
    """A recorded trace, open for reading. Reading does not change it. Use it as a context manager to close the file.

    Attributes:
        path: its file.
        kernel: release of the recorded kernel, as `uname -r` prints it.
        recording: how it was recorded: mode, command, filters and the like.
        aggregate: a row is a count of alike allocations, without time and task; otherwise a row is one call.

    Args:
        path: the file to read.

    Raises:
        KalloctraceError: the file cannot be read, is not a trace, or has a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = TraceReader(Path(path))
        self.path = self._reader.path
        self.kernel = self._reader.snapshot.release
        self.recording: Mapping[str, Any] = self._reader.recording
        self.aggregate = self._reader.aggregate

    def __enter__(self) -> Self:
        """Return the trace."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def verify(self) -> Verification:
        """Predict every allocation and compare it with what the kernel did, as `kalloctrace verify` does.

        Raises:
            KalloctraceError: the description of the kernel in the trace is damaged.
        """
        return verify_trace(self._reader)

    def explain(self, row: Row) -> ExplainedRow:
        """Predict one allocation of this trace and compare it.

        Args:
            row: a mapping with the columns of a row of this trace, such as `allocations` yields, or
                `frame.iloc[0].to_dict()`; missing values may be None, NaN or pandas' NA.

        Raises:
            KeyError: the row lacks a column.
            KalloctraceError: the description of the kernel in the trace is damaged.
        """
        plain = {field.name: _plain(row[field.name], field.type) for field in ALLOCATION}
        judged = self._judge(plain)
        try:
            preparation = (
                None if plain["entry"] == TRACEPOINT else predict_row(self._kernel, plain, self._reader.inferred)
            )
        except UnknownFact:
            preparation = None
        if judged.unknown:
            return ExplainedRow("unknown", judged.unknown, (), (), preparation)
        outcome: Literal["matched", "mismatched"] = "mismatched" if judged.differences else "matched"
        return ExplainedRow(outcome, "", judged.differences, judged.not_judged, preparation)

    def allocations(self) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield each distinct allocation and how many calls it stands for.

        Memory grows with the number of distinct allocations, not with the number of calls.
        """
        yield from self._reader.counted()

    def slow_calls(self) -> Iterator[dict[str, Any]]:
        """Yield the calls that entered the slow path, each with its attempts and zones; none if it was not recorded."""
        yield from self._reader.slow_calls()

    def to_arrow(self) -> pa.Table:
        """Return all rows as an Arrow table; the schema's metadata describes each column."""
        return pa.Table.from_batches(list(self._reader.batches()), schema=ROWS).unify_dictionaries()

    def to_pandas(self) -> "pd.DataFrame":
        """Return all rows as a pandas DataFrame with nullable (Arrow) types; texts are categorical.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas as pd  # noqa: PLC0415  (an optional dependency)

        def dtype(kind: pa.DataType) -> Any:  # noqa: ANN401  (pandas' types have no common base)
            return None if pa.types.is_dictionary(kind) else pd.ArrowDtype(kind)

        frame: pd.DataFrame = self.to_arrow().to_pandas(types_mapper=dtype)
        return frame

    def to_polars(self) -> "pl.DataFrame":
        """Return all rows as a Polars DataFrame; texts are categorical.

        Raises:
            ImportError: Polars is not installed.
        """
        import polars as pl  # noqa: PLC0415  (an optional dependency)

        frame = pl.from_arrow(self.to_arrow())
        assert isinstance(frame, pl.DataFrame)  # noqa: S101  (a table never becomes a series)
        return frame

    @cached_property
    def _kernel(self) -> Kernel:
        return Kernel.of(self._reader.snapshot)

    @cached_property
    def _judge(self) -> Judge:
        rows, ending = self._reader.distinct()
        return Judge.of(self._kernel, Shown(row for row, _ in rows), ending.totals, self._reader.inferred)


def open_trace(path: str | os.PathLike[str]) -> Trace:
    """Open a trace that `kalloctrace record` or `kalloctrace import` wrote.

    Raises:
        KalloctraceError: the file cannot be read, is not a trace, or has a newer format.
    """
    return Trace(path)


def predict(
    kernel: str,
    gfp: int | str,
    order: int = 0,
    *,
    nid: int | None = None,
    nodemask: Sequence[int] | None = None,
    entry: Literal["normal", "nolock"] = "normal",
    alloc_flags: int = 0,
    task_flags: int = 0,
    context: Literal["task", "bh_disabled", "softirq", "hardirq", "nmi"] = "task",
    machine: Mapping[str, Any] | None = None,
) -> Preparation:
    """Predict how a kernel prepares a request: the arguments of its first `get_page_from_freelist` call, and the steps.

    Args:
        kernel: a release such as "5.10" or "7.3", "live", or the path of a trace, whose machine is used then.
        gfp: the gfp mask, as a number or as names joined by "|".
        order: 2 to the power of `order` pages.
        nid: the preferred node; None: the machine's first.
        nodemask: the caller's nodemask as node ids; None: the NULL pointer.
        entry: the function called: the normal one, or the lockless one.
        alloc_flags: the entry's argument of that name (7.3 and later), ALLOC_* bits.
        task_flags: `current->flags`, PF_* bits.
        context: where the request is made.
        machine: members of "machine" of a line of `kalloctrace explain --batch`, such as
            `{"cpusets_enabled": True, "mems_allowed": [0]}`.

    Raises:
        KalloctraceError: no such kernel is known, or the mask cannot be read.
        ValueError: this request cannot be made on this kernel and machine.
    """
    snapshot = kernel_snapshot(kernel)
    line: dict[str, Any] = {
        "kernel": snapshot.release,
        "gfp": parse_flags(gfp, snapshot.tables) if isinstance(gfp, str) else gfp,
        "order": order,
        "nodemask": None if nodemask is None else list(nodemask),
        "entry": entry,
        "alloc_flags": alloc_flags,
        "task_flags": task_flags,
        "context": context,
        "machine": dict(machine or {}),
    }
    if nid is not None:
        line["preferred_nid"] = nid
    return WhatIf(lambda _: snapshot).answer(line).preparation


def decode(value: int | str, kernel: str | None = None, kind: Literal["gfp", "alloc"] = "gfp") -> Decoded:
    """Name the bits of a gfp mask or of alloc_flags, as that kernel prints them.

    Args:
        value: a number, or names joined by "|".
        kernel: a release such as "5.10" or "7.3", "live", or the path of a trace; None: the running kernel's release
            if its flags are built in, the newest built-in release otherwise.
        kind: what the value is.

    Raises:
        KalloctraceError: no such kernel is known, it has no such name, or the value does not fit 32 bits.
    """
    tables = default_tables() if kernel is None else kernel_tables(kernel)
    if isinstance(value, str):
        return decode_text(value, tables, kind)
    return decode_gfp(value, tables) if kind == "gfp" else decode_alloc(value, tables)


def _plain(value: Any, kind: pa.DataType) -> Any:  # noqa: ANN401  (whatever a data frame holds)
    """Return a value of a data frame as the Python value that the trace's own rows have."""
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if value is None or value != value or type(value).__name__ == "NAType":  # noqa: PLR0124  (NaN is not itself)
        return None
    if pa.types.is_string(kind):
        return str(value)
    return bool(value) if pa.types.is_boolean(kind) else int(value)
