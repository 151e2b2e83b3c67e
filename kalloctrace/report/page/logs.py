# SPDX-License-Identifier: MIT
"""The data of the page about failures in logs, as JSON values."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from kalloctrace.diagnose.alike import Alike, alike_json
from kalloctrace.diagnose.answers.answers import answer
from kalloctrace.diagnose.answers.text import answer_rows
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.sentences import VERDICTS, certainty, conditions, further_findings, zone_name
from kalloctrace.diagnose.zones import ZoneVerdict
from kalloctrace.report.logs import EVENTS, LogTable, time_text
from kalloctrace.report.page.texts import printable_json
from kalloctrace.version import __version__

Group = dict[str, Any]


@dataclass(frozen=True)
class LogLimits:
    """Maximum numbers on a page, so that a browser stays responsive.

    Attributes:
        groups: groups of alike failures.
        tasks: tasks of one group, the largest.
        all_tasks: tasks of all groups.
    """

    groups: int = 1_000
    tasks: int = 1_000
    all_tasks: int = 50_000


@dataclass
class LogsPage:
    """Collects the groups of logs.

    Attributes:
        limits: of the page.
    """

    limits: LogLimits = field(default_factory=LogLimits)
    _table: LogTable = field(default_factory=LogTable)
    _groups: list[Group] = field(default_factory=list)
    _beyond: int = 0
    _tasks: int = 0

    def add(self, groups: Iterable[Group]) -> None:
        """Add the groups of a log, as `page_group` makes them."""
        for group in groups:
            self._table.add(group)
            if len(self._groups) == self.limits.groups:
                self._beyond += group["count"]
                continue
            kept = max(0, min(self.limits.tasks, self.limits.all_tasks - self._tasks))
            self._tasks += len(group["tasks"][:kept])
            self._groups.append({**group, "tasks": group["tasks"][:kept], "more_tasks": len(group["tasks"][kept:])})

    def to_json(self, logs: int) -> dict[str, Any]:
        """Return what the page shows.

        Args:
            logs: how many logs were read.
        """
        rows = self._table.sorted()
        data = {
            "type": "logs",
            "kalloctrace": __version__,
            "logs": logs,
            "failures": sum(row.count for _, row in rows),
            "beyond": self._beyond,
            "kinds": [
                [
                    *(row.count, len(row.logs), EVENTS.get(kind.event, kind.event), kind.order, kind.caller),
                    *(kind.kernel, time_text(row.first), time_text(row.last)),
                ]
                for kind, row in rows
            ],
            "groups": self._groups,
        }
        made: dict[str, Any] = printable_json(data)
        return made


def page_group(group: Alike, log: str) -> Group:
    """Return what the page shows of a group: its JSON object, the picture of its zones, and its tasks."""
    failure = group.failure
    why, size = failure.why, failure.page_kb
    return {
        **alike_json(group, log),
        "what": EVENTS.get(failure.logged.event, failure.logged.event),
        "sure": certainty(failure),
        "times": [time_text(group.first), time_text(group.last)],
        "answers": [list(row) for row in answer_rows(failure, answer(failure))],
        "further": [finding.text for finding in further_findings(failure)],
        "picture": [_zone(failure, verdict) for verdict in (why.zones if why is not None else ())],
        "unless": list(conditions(why)) if why is not None else [],
        # In kB, the largest first.
        "tasks": [
            [
                *(task.pid, task.name, task.rss_pages * size),
                None if task.swapents_pages is None else task.swapents_pages * size,
                None if task.pgtables_bytes is None else task.pgtables_bytes >> 10,
                *(task.total_vm_pages * size, task.oom_score_adj),
            ]
            for task in sorted(failure.logged.tasks, key=lambda task: -task.rss_pages)
        ],
    }


def _zone(failure: Failure, verdict: ZoneVerdict) -> dict[str, Any]:
    """Return a zone's numbers in kB; None for what is not known or was not compared."""
    state, size = verdict.state, failure.page_kb
    check = None if verdict.kind == "excluded" else verdict.check
    shown = {
        "zone": zone_name(state),
        "verdict": VERDICTS[verdict.kind],
        "kind": verdict.kind,
        "certain": verdict.certain,
        "free": state.free * size,
        "marks": [pages * size for pages in state.watermarks],
    }
    if check is None:
        return {**shown, "usable": None, "needed": None}
    return {
        **shown,
        "usable": [max(0, pages) * size for pages in check.usable],
        "highatomic": check.highatomic.low * size,
        "cma": check.cma.low * size,
        "needed": [pages * size for pages in check.needed],
    }
