# SPDX-License-Identifier: MIT
"""What changed between the failures of two logs, such as before and after a kernel upgrade."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kalloctrace.console import Console
from kalloctrace.report.logs import CONCLUSIONS, EVENTS, Group, caller_of, order_of
from kalloctrace.styled import Table, sheet_of

Change = Literal["appeared", "vanished", "changed"]

_MARKS: dict[Change, str] = {"appeared": "+", "vanished": "-", "changed": "~"}
_STYLES: dict[Change, str] = {"appeared": "red", "vanished": "green", "changed": "yellow"}


class Failures(NamedTuple):
    """What alike failures have in common, whatever the kernel.

    Attributes:
        event: what happened, as in the JSON object of a failure.
        caller: the function that asked for the pages; None if unknown.
        order: of the request; None if the report has none.
        gfp_text: the names in its mask; None if unknown.
        constraint: what confined it.
        conclusion: why it failed.
    """

    event: str
    caller: str | None
    order: int | None
    gfp_text: str | None
    constraint: str
    conclusion: str


@dataclass
class LogSide:
    """The failures of one side.

    Attributes:
        log: the file or folder, as it was named.
        logs: how many logs of it could be read.
        kernels: the releases that its failures name, in the order of the first failure of each.
        counts: how many failures of each kind it has.
    """

    log: str
    logs: int = 0
    kernels: dict[str, None] = field(default_factory=dict)
    counts: dict[Failures, int] = field(default_factory=dict)

    def add(self, groups: Iterable[Group]) -> None:
        """Add a log, as its groups of alike failures."""
        self.logs += 1
        for group in groups:
            kind = Failures(
                group["event"],
                caller_of(group),
                order_of(group),
                *(group[name] for name in ("gfp_text", "constraint", "conclusion")),
            )
            self.counts[kind] = self.counts.get(kind, 0) + group["count"]
            if group["kernel"] is not None:
                self.kernels.setdefault(group["kernel"])

    @property
    def failures(self) -> int:
        """How many failures it has."""
        return sum(self.counts.values())

    def to_json(self) -> dict[str, Any]:
        """Return its totals."""
        return {"log": self.log, "logs": self.logs, "kernels": list(self.kernels), "failures": self.failures}


@dataclass(frozen=True)
class FailureChange:
    """Failures of one kind whose number differs.

    Attributes:
        kind: what they have in common.
        before: how many there are on the first side.
        after: how many there are on the second side.
    """

    kind: Failures
    before: int
    after: int

    @property
    def change(self) -> Change:
        """What became of them."""
        return "appeared" if not self.before else "vanished" if not self.after else "changed"


@dataclass(frozen=True)
class LogDiff:
    """The difference of two sides.

    Attributes:
        before: the first side.
        after: the second side.
        changes: the kinds whose numbers differ, the largest difference first.
        same: how many kinds are equally frequent.
    """

    before: LogSide
    after: LogSide
    changes: list[FailureChange]
    same: int

    @classmethod
    def of(cls, before: LogSide, after: LogSide) -> "LogDiff":
        """Compare two sides."""
        kinds = dict.fromkeys([*before.counts, *after.counts])
        rows = [FailureChange(kind, before.counts.get(kind, 0), after.counts.get(kind, 0)) for kind in kinds]
        changes = [row for row in rows if row.before != row.after]
        changes.sort(key=lambda row: -abs(row.after - row.before))
        return cls(before, after, changes, len(rows) - len(changes))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `diff --json` prints for logs."""
        return {
            "type": "log_diff",
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "rows": [
                {"change": row.change, "before": row.before, "after": row.after, **row.kind._asdict()}
                for row in self.changes
            ],
            "same": self.same,
        }


def write_log_diff(diff: LogDiff, console: Console, top: int) -> None:
    """Print a diff.

    Args:
        diff: of two logs.
        console: where to print.
        top: how many changes to show.
    """
    sheet = sheet_of(console)
    for name, side in (("before", diff.before), ("after", diff.after)):
        sheet.line(f"{name:7} {side.log}")
        sheet.line(f"{'':7} {', '.join(_details(side))}", "dim")
    sheet.blank()
    sheet.line(f"kinds of failures: {len(diff.changes):,} differ, {diff.same:,} are the same", "bold")
    if diff.changes:
        sheet.table(_table(diff, top))
    if len(diff.changes) > top:
        sheet.line(f"  … and {len(diff.changes) - top:,} more; --json has all")
    sheet.blank()
    sheet.line("+ only in the second log, - only in the first, ~ another number;", "dim")
    sheet.line("the numbers depend on how long a log is, and the kernel suppresses reports when there are many", "dim")
    sheet.show()


def _details(side: LogSide) -> Iterator[str]:
    logs = "" if side.logs == 1 else f" in {side.logs:,} logs"
    yield f"{side.failures:,} {'failure' if side.failures == 1 else 'failures'}{logs}"
    if side.kernels:
        shown = list(side.kernels)
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        yield f"on {', '.join(shown[:3])}{more}"


def _table(diff: LogDiff, top: int) -> Table:
    table = Table("dim")
    table.column()
    for name in ("before", "after"):
        table.column(name, right=True)
    table.column("what", wraps="words")
    table.column("order", right=True)
    table.column("caller", wraps="words")
    table.column("mask", wraps="names")
    table.column("why", wraps="words")
    for row in diff.changes[:top]:
        kind = row.kind
        table.row(
            (_MARKS[row.change], _STYLES[row.change]),
            f"{row.before:,}",
            f"{row.after:,}",
            EVENTS.get(kind.event, kind.event),
            "" if kind.order is None else str(kind.order),
            kind.caller or "?",
            kind.gfp_text or "?",
            CONCLUSIONS.get(kind.conclusion, kind.conclusion),
        )
    return table
