# SPDX-License-Identifier: MIT
"""The failures of many logs in one table: by kind, caller, order and kernel."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from kalloctrace.console import Console
from kalloctrace.diagnose.alike import Alike, AlikeFailures, Moment, alike_json
from kalloctrace.diagnose.text import add_failure
from kalloctrace.styled import Sheet, Table, sheet_of

Group = Mapping[str, Any]
"""An object of `explain --json`: alike failures of one log."""
EVENTS = {
    "failure": "page allocation failure",
    "stall": "page allocation stall",
    "oom": "OOM killer",
    "vmalloc": "vmalloc without pages",
    "vmap": "vmalloc without addresses",
    "slub": "slab allocation failure",
    "vmemmap": "vmemmap allocation failure",
    "cma": "CMA allocation failure",
    "contig": "contiguous allocation failure",
    "warning": "warning of the page allocator",
    "hugetlb": "hugetlb allocation failure",
    "memory": "state of memory, no failure",
}
"""What happened, for people."""
CONCLUSIONS = {
    "no_zone": "no zone allowed",
    "watermark": "too few pages",
    "block": "no block",
    "mixed": "too few pages, no block",
    "passes": "would pass later",
    "unknown": "unknown",
    "memcg": "cgroup's limit",
    "address_range": "no range of addresses",
    "size_refused": "size refused",
    "contiguous_range": "no range of pages",
    "order_too_large": "order too large",
    "nofail": "must not fail",
    "no_request": "no request",
}
"""Why a request failed, for people."""
MOST_ANSWERS = 10
"""How many groups of one log are explained as text; the most frequent are."""
_UNKNOWN = "?"
_HALF_A_YEAR = 183 * 86_400
"""Seconds. A time of day may have no year, so dates that are further apart cannot be ordered."""


class Kind(NamedTuple):
    """What the failures of a row have in common.

    Attributes:
        event: what happened, as in the JSON object.
        caller: the function that asked for the pages; None if unknown.
        order: of the request; None if the report has none.
        kernel: the release; None if unknown.
    """

    event: str
    caller: str | None
    order: int | None
    kernel: str | None


@dataclass
class Row:
    """The failures of one kind.

    Attributes:
        count: how many they are.
        logs: in how many logs.
        first: time and text of the first, or None if the times of different logs cannot be compared.
        last: likewise, of the last.
    """

    count: int = 0
    logs: set[str] = field(default_factory=set)
    first: Moment | None = None
    last: Moment | None = None


class LogTable:
    """Adds up the failures of logs.

    Attributes:
        rows: by kind, in the order of their first failures.
    """

    def __init__(self) -> None:
        self.rows: dict[Kind, Row] = {}

    def add(self, group: Group) -> None:
        """Add a group."""
        kind = kind_of(group)
        first = Moment(group["first"], group["first_text"] or "")
        last = Moment(group["last"], group["last_text"] or "")
        row = self.rows.get(kind)
        if row is None:
            row = self.rows[kind] = Row(first=first, last=last)
        else:
            same = row.logs == {group["log"]}
            row.first = _extreme(row.first, first, same=same, latest=False)
            row.last = _extreme(row.last, last, same=same, latest=True)
        row.count += group["count"]
        row.logs.add(group["log"])

    def sorted(self) -> list[tuple[Kind, Row]]:
        """Return the rows, the most frequent first."""
        return sorted(self.rows.items(), key=lambda item: -item[1].count)

    def to_json(self) -> Iterator[dict[str, Any]]:
        """Yield a row as an object."""
        for kind, row in self.sorted():
            yield {**kind._asdict(), "count": row.count, "logs": len(row.logs)}


def kind_of(group: Group) -> Kind:
    """Return the kind of a group."""
    return Kind(group["event"], caller_of(group), order_of(group), group["kernel"])


def caller_of(group: Group) -> str | None:
    """Return the function that asked for a group's pages; None if it is unknown."""
    caller = group["caller"]
    return None if caller is None else caller["function"]


def order_of(group: Group) -> int | None:
    """Return the order of a group's request; None if the report has none, or a person invoked the OOM killer (-1)."""
    order: int = group["order"]
    return order if group["order_shown"] and order >= 0 else None


def _extreme(one: Moment | None, other: Moment, *, same: bool, latest: bool) -> Moment | None:
    """Return the earlier or later of two times; None if they cannot be compared, as times since different boots."""
    if one is None:
        return None
    if same:
        return other if latest else one
    if not one.text or not other.text or one.time is None or other.time is None:
        return None
    if abs(one.time - other.time) > _HALF_A_YEAR:
        return None
    return max(one, other) if latest else min(one, other)


def time_text(moment: Moment | None) -> str:
    """Return when something was logged, as the log prints it; "" if that is unknown."""
    if moment is None:
        return ""
    return moment.text or ("" if moment.time is None else f"{moment.time:.3f} s")


def _times(row: Row) -> list[str]:
    """Return when the first and the last failure of a row were logged; only once where both are the same."""
    return list(dict.fromkeys(text for text in map(_short_time, (row.first, row.last)) if text))


def _short_time(moment: Moment | None) -> str:
    """Return `time_text`, but a date with its time in words, to the second: as one word it takes 32 columns."""
    text = time_text(moment)
    try:
        return datetime.fromisoformat(text).isoformat(" ", "seconds")
    except ValueError:
        return text


def add_table(table: LogTable, sheet: Sheet, most: int | None = None) -> None:
    """Add a table with a row for each kind to a sheet.

    Args:
        table: the failures.
        sheet: the sheet.
        most: rows to show; None for all.
    """
    rows = table.sorted()
    shown_rows = rows[:most]
    # Two that are long share a column, so that the table fits where the output is no terminal.
    by = [name for name in ("caller", "kernel") if any(getattr(kind, name) is not None for kind, _ in shown_rows)]
    columns: list[tuple[str, Literal["no", "words"], list[str | list[str]]]] = [
        ("count", "no", [f"{row.count:,}" for _, row in shown_rows]),
        ("logs", "no", [f"{len(row.logs):,}" for _, row in shown_rows]),
        ("what", "words", [EVENTS.get(kind.event, kind.event) for kind, _ in shown_rows]),
        ("order", "no", ["" if kind.order is None else str(kind.order) for kind, _ in shown_rows]),
        (", ".join(by), "words", [[getattr(kind, name) or _UNKNOWN for name in by] for kind, _ in shown_rows]),
        ("first, last", "words", [_times(row) for _, row in shown_rows]),
    ]
    used = [column for column in columns if any(column[2])]
    shown = Table("dim")
    for heading, wraps, _ in used:
        shown.column(heading, right=wraps == "no", wraps=wraps)
    for cells in zip(*(cells for *_, cells in used), strict=True):
        shown.row(*cells)
    sheet.table(shown)
    if most is not None and len(rows) > most:
        sheet.line(f"… and {len(rows) - most:,} more kinds; --json has all")


def write_table(table: LogTable, logs: int, console: Console) -> None:
    """Print the failures of many logs.

    Args:
        table: the failures.
        logs: how many logs were read.
        console: where to print.
    """
    sheet = sheet_of(console)
    count = sum(row.count for row in table.rows.values())
    with_any = len(set[str]().union(*(row.logs for row in table.rows.values())))
    sheet.line(f"{count:,} {'failure' if count == 1 else 'failures'} in {with_any:,} of {logs:,} logs", "bold")
    sheet.blank()
    add_table(table, sheet)
    sheet.blank()
    sheet.line("kalloctrace explain LOG shows why; --json has each log's groups", "dim")
    sheet.show()


def write_alike(found: AlikeFailures, log: str, console: Console) -> None:
    """Print the answer for each group of one log; of many groups a table, and the most frequent.

    Args:
        found: the failures of the log.
        log: its name.
        console: where to print.
    """
    sheet = sheet_of(console)
    groups = found.groups
    if len(groups) > MOST_ANSWERS:
        table = LogTable()
        for group in groups:
            table.add(alike_json(group, log))
        add_table(table, sheet)
        sheet.blank()
        groups = sorted(groups, key=lambda group: -group.count)[:MOST_ANSWERS]
        sheet.line(f"the {MOST_ANSWERS} most frequent of {len(found.groups):,} groups; --json has all:", "dim")
        sheet.blank()
    for number, group in enumerate(groups):
        if number:
            sheet.blank()
        add_failure(group.failure, sheet, where=_where(group))
    sheet.show()


def _where(group: Alike) -> str:
    """Return how often, in which lines and when, with a separator at the end."""
    first, last = time_text(group.first), time_text(group.last)
    kept_back = f"after {group.suppressed:,} that the rate limit suppressed; " if group.suppressed else ""
    if group.count == 1:
        return f"line {group.lines[0]}{'; ' + kept_back if kept_back else ', '}"
    times = f", {first} to {last}" if first and last else ""
    return f"{group.count:,} alike, lines {group.lines[0]} to {group.lines[-1]}{times}; {kept_back}"
