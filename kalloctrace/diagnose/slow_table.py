# SPDX-License-Identifier: MIT
"""Groups of slow-path calls in a table: by the reason, the zones that refused, and the order."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from kalloctrace.diagnose.from_log import Failure, FailureConclusion
from kalloctrace.diagnose.sentences import zone_name
from kalloctrace.diagnose.slow_calls import SlowGroup

_REASONS: dict[FailureConclusion, str] = {
    "no_zone": "no zone is allowed",
    "watermark": "too few pages",
    "block": "no block",
    "mixed": "too few pages, or no block",
    "passes": "enough pages by then",
}


@dataclass
class SlowRow:
    """Groups with one reason, zones and order.

    Attributes:
        reason: why their calls found no page.
        zones: those that refused, for people.
        order: of the requests.
        groups: largest first.
    """

    reason: str
    zones: str
    order: int
    groups: list[SlowGroup] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many calls there are."""
        return sum(group.calls for group in self.groups)

    @property
    def worst(self) -> int | None:
        """The longest duration in ns; None if none was captured."""
        known = (group.slowest.call["duration"] for group in self.groups)
        return max((duration for duration in known if duration is not None), default=None)

    @property
    def callers(self) -> Counter[str]:
        """Who asked, with the number of calls."""
        return sum((group.callers for group in self.groups), Counter())


def slow_rows(groups: Iterable[SlowGroup]) -> list[SlowRow]:
    """Return the rows of the table, those with most calls first.

    Args:
        groups: largest first.
    """
    rows: dict[tuple[str, str, int], SlowRow] = {}
    for group in groups:
        why = group.slowest.why
        key = _reason(why), _zones(why), why.logged.order
        rows.setdefault(key, SlowRow(*key)).groups.append(group)
    return sorted(rows.values(), key=lambda row: -row.calls)


def examples(rows: Sequence[SlowRow], most: int) -> list[SlowGroup]:
    """Return groups to show in full: the largest of each row, then the second of each, and so on."""
    turns = zip_longest(*(row.groups for row in rows))
    return [group for turn in turns for group in turn if group is not None][:most]


def _reason(why: Failure) -> str:
    reason = _REASONS.get(why.conclusion, "not known")
    return reason if why.logged.event == "failure" else f"got a page; at first {reason}"


def _zones(why: Failure) -> str:
    verdicts = () if why.why is None else why.why.zones
    refused = [zone_name(verdict.state) for verdict in verdicts if verdict.kind in ("watermark", "block")]
    return ", ".join(dict.fromkeys(refused)) or "none"
