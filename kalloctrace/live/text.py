# SPDX-License-Identifier: MIT
"""A live table as lines of text, for pipes and for the head of the screen."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.columns import GAP, Cells, PlacedColumn, place_columns, rate_text
from kalloctrace.live.table import By, LiveRow, LiveTable, alloc_text, gfp_text, migratetype_name, zone_name
from kalloctrace.trace.filter_text import filter_words
from kalloctrace.trace.schema import frames_of
from kalloctrace.trace.totals import Totals

Style = Literal["plain", "good", "bad", "doubt", "faint", "strong"]
Part = tuple[str, Style]


def count_parts(table: LiveTable) -> list[Part]:
    """Return the counts of calls and of losses, which are always shown."""
    totals = table.totals
    return [
        (f"{rate_text(table.rate)}/s", "strong"),
        (f"calls {table.count:,}", "plain"),
        (f"distinct {table.distinct:,}", "plain"),
        (f"lost {totals.lost:,}", "bad" if totals.lost else "plain"),
        (f"missed {totals.missed:,}", "doubt" if totals.missed else "plain"),
        (f"running {totals.running:,}", "plain"),
    ]


def slow_parts(totals: Totals) -> list[Part]:
    """Return the calls that took the slow path and those that failed; empty where the slow path is not recorded."""
    failed = totals.slow_failed
    parts: list[Part] = []
    if totals.slow is not None:
        parts.append((f"slow {totals.slow:,}", "doubt" if totals.slow else "plain"))
    if failed is not None:
        parts.append((f"failed {failed:,}", "bad" if failed else "plain"))
    return parts


def verdict_parts(table: LiveTable) -> list[Part]:
    """Return the verdicts on all calls since the start."""
    return [
        (f"matched {table.matched:,}", "good"),
        (f"mismatched {table.mismatched:,}", "bad" if table.mismatched else "plain"),
        (f"unknown {table.unknown:,}", "doubt" if table.unknown else "plain"),
    ]


def flow(parts: Sequence[Part], width: int) -> list[list[Part]]:
    """Distribute words over lines of a maximum width, with two spaces between words."""
    lines: list[list[Part]] = [[]]
    for text, style in parts:
        used = sum(len(word) + 2 for word, _ in lines[-1])
        if lines[-1] and used + len(text) > width:
            lines.append([])
        lines[-1].append((text, style))
    return lines


def mode_text(snapshot: Snapshot, recording: Mapping[str, Any], by: By, *, replayed: str = "") -> str:
    """Return how the recording is made, and what it lacks.

    Args:
        snapshot: of the recording.
        recording: how it is made.
        by: what a row groups calls by.
        replayed: name of the replayed trace; empty for a live recording.
    """
    if replayed:
        how = f"replay of {replayed}; lost and missed are of the whole trace"
    elif recording.get("mode") == "stream":
        how = "stream: every call is sent to user space; calls are lost while the buffer is full"
    else:
        how = "aggregate: counted in the kernel, lowest overhead; callers are not recorded"
    filters = "; ".join(filter_words(recording, snapshot.tables))
    grouped = {"request": "", "task": "by task: ", "stack": "by task and stack: "}[by]
    return f"{grouped}{how}" + (f"; only {filters}" if filters else "")


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def table_lines(
    table: LiveTable, rows: Sequence[LiveRow], by: By, tables: FlagTables, width: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return a table as lines, and the short names in them with the kernel's names.

    Args:
        table: the table.
        rows: the rows to show, sorted.
        by: what a row groups calls by.
        tables: of the recorded kernel.
        width: maximum characters in a line.
    """
    groups = (
        [(clock(table.seconds), "strong"), *count_parts(table)],
        [*verdict_parts(table), *slow_parts(table.totals)],
    )
    lines = ["  ".join(text for text, _ in line) for group in groups for line in flow(group, width)]
    placed = place_columns(by, width)
    cells = Cells(tables)
    lines.append(joined_cells([(part.heading, part) for part in placed]))
    lines += (joined_cells([(cells.text(row, part), part) for part in placed]) for row in rows)
    return lines, cells.legend()


def legend_lines(legend: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield lines of a maximum width that explain short names."""
    line = ""
    for text, name in legend:
        word = f"{text} {name}"
        if line and len(line) + 2 + len(word) > width:
            yield line
            line = ""
        line += f"  {word}" if line else word
    if line:
        yield line


def row_json(table: LiveTable, row: LiveRow, tables: FlagTables) -> dict[str, Any]:
    """Return a row as JSON values; the schema is `live`."""
    request = row.request
    return {
        "type": "live",
        "seconds": round(table.seconds, 6),
        "interval": round(table.interval, 6),
        "rate": round(row.rate, 3),
        "new": row.new,
        "count": row.count,
        "share": round(row.share, 6),
        "comm": row.task.comm,
        "pid": row.task.pid,
        "stack": None if row.task.stack is None else frames_of(row.task.stack),
        "entry": request.entry,
        "gfp_mask": request.gfp_mask,
        "gfp": gfp_text(row, tables),
        "order": request.order,
        "node": request.node,
        "zone": zone_name(row, tables),
        "migratetype": request.migratetype,
        "migratetype_name": migratetype_name(row, tables),
        "alloc_flags": request.alloc_flags,
        "alloc_flags_text": alloc_text(row, tables),
        "verdict": row.verdict,
        "matched": row.matched,
        "mismatched": row.mismatched,
        "unknown": row.unknown,
    }


def totals_json(table: LiveTable) -> dict[str, Any]:
    """Return the totals of a table as JSON values; the schema is `live_totals`."""
    totals = table.totals
    return {
        "type": "live_totals",
        "seconds": round(table.seconds, 6),
        "interval": round(table.interval, 6),
        "rate": round(table.rate, 3),
        "count": table.count,
        "distinct": table.distinct,
        "matched": table.matched,
        "mismatched": table.mismatched,
        "unknown": table.unknown,
        "lost": totals.lost,
        "missed": totals.missed,
        "running": totals.running,
        "slow": totals.slow,
        "slow_failed": totals.slow_failed,
    }


def padded(text: str, placed: PlacedColumn) -> str:
    """Return the text of a cell, padded to the width of its column."""
    return text.rjust(placed.width) if placed.column.right else text.ljust(placed.width)


def joined_cells(cells: Sequence[tuple[str, PlacedColumn]]) -> str:
    """Return the cells of a row as a line."""
    return (" " * GAP).join(padded(text, placed) for text, placed in cells).rstrip()
