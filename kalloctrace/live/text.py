# SPDX-License-Identifier: MIT
"""A live table as lines of text, for pipes and for the head of the screen."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.live.columns import PlacedColumn, rate_text
from kalloctrace.live.history import History, sparkline
from kalloctrace.live.table import By, LiveRow, LiveTable, SortName, alloc_text, gfp_text, migratetype_name, zone_name
from kalloctrace.text import duration, printable, share
from kalloctrace.trace.filter_text import filter_words
from kalloctrace.trace.schema import frames_of
from kalloctrace.trace.slow_split import parts_json, spent_with
from kalloctrace.trace.totals import Totals, missed_json

Style = Literal["plain", "good", "bad", "doubt", "faint", "strong"]
Part = tuple[str, Style]

_HISTORY = 10
"""Intervals in a line of the head."""
_MEMBERS: Mapping[SortName, tuple[str, ...]] = {
    **{name: (name,) for name in ("comm", "pid", "stack", "order", "node", "zone")},
    "gfp": ("gfp_mask", "gfp"),
    "migratetype": ("migratetype", "migratetype_name"),
    "alloc_flags": ("entry", "alloc_flags", "alloc_flags_text"),
}
"""The members of a row's JSON object that a field has."""
_PIECE = re.compile(r"[^|<]*[|<]|[^|<]+")


def count_groups(
    table: LiveTable, *, replayed: bool, over: str = "", history: History | None = None
) -> list[list[Part]]:
    """Return all counts, a group for each line, what is wrong first; the arguments are those of the functions below."""
    groups = [
        slow_parts(table, over, history),
        time_parts(table),
        call_parts(table, over, history),
        loss_parts(table.totals, replayed=replayed),
        verdict_parts(table),
        reason_parts(table),
    ]
    return [group for group in groups if group]


def slow_parts(table: LiveTable, over: str = "", history: History | None = None) -> list[Part]:
    """Return the calls that got no page and those that took the slow path; none where this is not recorded.

    Args:
        table: the table.
        over: what the rates are of, after their unit.
        history: shown after the rates.
    """
    totals = table.totals
    counted: list[tuple[str, int | None, float | None, Sequence[float], Style]] = [
        ("failed", totals.slow_failed, table.failed_rate, history.failed if history else (), "bad"),
        ("slow", totals.slow, table.slow_rate, history.slow if history else (), "doubt"),
    ]
    return [
        (
            f"{name} {count:,} calls{_of(count, table)}, {rate_text(rate or 0.0)}/s{over}{_bars(rates)}",
            style if count else "plain",
        )
        for name, count, rate, rates, style in counted
        if count is not None
    ]


def _of(count: int, table: LiveTable) -> str:
    """Return which share of all calls some are; nothing where there are none, or where the others were lost."""
    return f" ({share(count, table.count)})" if 0 < count <= table.count else ""


def time_parts(table: LiveTable) -> list[Part]:
    """Return how long calls were in the slow path, and with what; nothing where that is not recorded."""
    if not table.slow_ns or table.slowest_ns is None:
        return []
    split = table.totals.slow_split
    spent = f": {spent_with(split.parts)}" if split is not None and split.total else ""
    return [
        (f"slow path {duration(table.slow_ns)} in all{spent}", "plain"),
        (f"the slowest {duration(table.slowest_ns)}", "plain"),
    ]


def call_parts(table: LiveTable, over: str = "", history: History | None = None) -> list[Part]:
    """Return the counts of calls; the arguments are those of `slow_parts`."""
    bars = _bars(history.calls) if history else ""
    return [
        (f"calls {table.count:,}, {rate_text(table.rate)}/s{over}{bars}", "strong"),
        (f"distinct {table.distinct:,}", "plain"),
    ]


def loss_parts(totals: Totals, *, replayed: bool) -> list[Part]:
    """Return what is not among the calls.

    Args:
        totals: the recorder's counts.
        replayed: they are of a whole trace.
    """
    events = totals.slow_lost + totals.slow_missed
    whole: list[Part] = [("of the whole trace:", "faint")] if replayed else []
    slow: list[Part] = [(f"slow-path events lost or missed {events:,}", "doubt")] if events else []
    return [
        *whole,
        (f"lost {totals.lost:,} calls", "bad" if totals.lost else "plain"),
        (f"missed {totals.missed:,} hits", "doubt" if totals.missed else "plain"),
        (f"running {totals.running:,} calls", "plain"),
        *slow,
    ]


def verdict_parts(table: LiveTable) -> list[Part]:
    """Return the verdicts on all calls since the start; green where the model predicted all of them."""
    good = table.count and table.matched == table.count
    return [
        (f"model: matched {table.matched:,} of {table.count:,} calls", "good" if good else "plain"),
        (f"mismatched {table.mismatched:,}", "bad" if table.mismatched else "plain"),
        (f"unknown {table.unknown:,}", "doubt" if table.unknown else "plain"),
    ]


def reason_parts(table: LiveTable) -> list[Part]:
    """Return why a count is coloured, for each that is; `View.missed_causes` says why hits were missed."""
    totals = table.totals
    reasons: list[tuple[int | None, str, Style]] = [
        (totals.slow_failed, "failed: the call got no page", "bad"),
        (totals.lost, "lost: a buffer was full", "bad"),
        (table.mismatched, "mismatched: the kernel prepared it differently", "bad"),
        (totals.slow, "slow: the fast path found no page", "doubt"),
        (table.unknown, "unknown: a fact was not captured", "doubt"),
    ]
    return [(text, style) for count, text, style in reasons if count]


def _bars(rates: Sequence[float]) -> str:
    return f" {sparkline(rates, _HISTORY)}" if rates else ""


def flow(parts: Sequence[Part], width: int) -> list[list[Part]]:
    """Distribute words over lines of a maximum width, with two spaces between words."""
    lines: list[list[Part]] = [[]]
    for text, style in parts:
        used = sum(len(word) + 2 for word, _ in lines[-1])
        if lines[-1] and used + len(text) > width:
            lines.append([])
        lines[-1].append((text, style))
    return lines


def mode_text(
    snapshot: Snapshot,
    recording: Mapping[str, Any],
    by: By,
    *,
    fields: Sequence[SortName] | None = None,
    replayed: str = "",
) -> str:
    """Return how the recording is made, and what it lacks.

    Args:
        snapshot: of the recording.
        recording: how it is made.
        by: what a row groups calls by.
        fields: rows are added up by these fields; None if they are not.
        replayed: name of the replayed trace; empty for a live recording.
    """
    if replayed:
        how = f"replay of {replayed}, with the counts of its time"
    elif recording.get("mode") == "stream":
        how = "stream: every call is sent to user space; calls are lost while the buffer is full"
    elif recording.get("by") == "comm":
        how = "aggregate: counted in the kernel, with the task's name; pids and stacks are not recorded"
    else:
        how = "aggregate: counted in the kernel, lowest overhead; callers are not recorded"
    filters = "; ".join(filter_words(recording, snapshot.tables))
    grouped = {"request": "", "task": "by task: ", "stack": "by task and stack: "}[by]
    grouped = grouped if fields is None else f"by {', '.join(fields)}: "
    return f"{grouped}{how}" + (f"; only {filters}" if filters else "")


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def row_words(row: LiveRow, tables: FlagTables) -> list[str]:
    """Return a row in full, in words that name what they count and its unit, most of them as a filter takes them."""
    request, task = row.request, row.task
    words: dict[SortName | Literal["entry"], object] = {
        "comm": task.comm,
        "pid": task.pid,
        "gfp": gfp_text(row, tables),
        "order": request.order,
        "node": request.node,
        "zone": zone_name(row, tables),
        "migratetype": migratetype_name(row, tables),
        "alloc_flags": "rejected" if request.rejected else alloc_text(row, tables),
        "entry": None if request.entry == "normal" else request.entry,
        "verdict": row.verdict,
        "stack": None if task.stack is None else "<".join(frames_of(task.stack)),
    }
    return [
        f"calls/s={rate_text(row.rate)}",
        f"calls={row.count:,}",
        f"share={row.share:.1%}",
        f"bytes={row.bytes:,}",
        *([] if row.failed is None else [f"failed={row.failed:,}"]),
        *([] if row.slow_ns is None else [f"slow_path_ms={row.slow_ns / 1e6:,.3f}"]),
        *(
            f"{name}={printable(str(value))}"
            for name, value in words.items()
            if value is not None and (name == "verdict" or row.shows("alloc_flags" if name == "entry" else name))
        ),
    ]


def wrapped(words: Sequence[str], width: int) -> list[str]:
    """Return words as lines of a maximum width: a word that does not fit one breaks after its | and <."""
    lines = [""]
    for word in words:
        pieces = [word] if len(word) <= width else _PIECE.findall(word)
        for number, piece in enumerate(pieces):
            gap = "" if number or not lines[-1] else "  "
            if lines[-1] and len(lines[-1]) + len(gap) + len(piece) > width:
                lines.append(piece)
            else:
                lines[-1] += gap + piece
    return lines


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
    hidden = [member for name, members in _MEMBERS.items() if not row.shows(name) for member in members]
    return {
        "type": "live",
        "seconds": round(table.seconds, 6),
        "interval": round(table.interval, 6),
        "rate": round(row.rate, 3),
        "new": row.new,
        "count": row.count,
        "share": round(row.share, 6),
        "bytes": row.bytes,
        "failed": row.failed,
        "slow_ns": row.slow_ns,
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
        **dict.fromkeys(hidden),
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
        **missed_json(totals),
        "own": totals.own,
        "filtered": totals.filtered,
        "running": totals.running,
        "slow": totals.slow,
        "slow_failed": totals.slow_failed,
        "slow_lost": totals.slow_lost,
        "slow_missed": totals.slow_missed,
        "slow_ns": table.slow_ns,
        "slowest_ns": table.slowest_ns,
        "slow_parts": None if totals.slow_split is None else parts_json(totals.slow_split.parts),
    }


def padded(text: str, placed: PlacedColumn) -> str:
    """Return the text of a cell, padded to the width of its column."""
    return text.rjust(placed.width) if placed.column.right else text.ljust(placed.width)
