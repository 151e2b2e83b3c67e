# SPDX-License-Identifier: MIT
"""What a trace says of the slow path, counted call by call: only counts are kept."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.verify.slowpath.judge import AttemptVerdict
from kalloctrace.verify.verification import Verification, slow_path_of


@dataclass
class SlowCounts:
    """The slow path of one trace.

    Attributes:
        allocations: what the trace's rows stand for, a sample scaled up; calls of the slow path are no sample.
        complete: each allocation was recorded.
        lost: events of the slow path that were lost or missed; None where the trace's end, which says so, is missing,
            or its calls are damaged.
        truncated: the end is missing, or its calls are damaged.
        calls: calls of the slow path.
        failed: those that returned no page.
        unseen: those whose return was not seen, so that they may have failed.
        attempts: calls of get_page_from_freelist() in them.
        kinds: attempts of each kind, as `SlowVerification` names them.
        alloc_flags: attempts with each value, of the recorded kernel.
        verdicts: attempts of each verdict and what it is about: the field that differs, why it is unknown, or None.
            One that differs in two fields is in both.
    """

    allocations: int
    complete: bool
    lost: int | None
    truncated: bool = False
    calls: int = 0
    failed: int = 0
    unseen: int = 0
    attempts: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    alloc_flags: Counter[int] = field(default_factory=Counter)
    verdicts: Counter[tuple[str, str | None]] = field(default_factory=Counter)

    @property
    def share(self) -> float | None:
        """Return calls for each allocation; None where there is none."""
        return self.calls / self.allocations if self.allocations else None

    @property
    def estimated(self) -> bool:
        """Tell whether `share` is an estimate: something was not recorded."""
        return not self.complete or self.lost != 0

    @property
    def failed_share(self) -> float | None:
        """Return which part of the calls failed; None where there is none."""
        return self.failed / self.calls if self.calls else None

    def to_json(self) -> dict[str, Any]:
        """Return the totals as JSON values."""
        return {
            "calls": self.calls,
            "share": _rounded(self.share),
            "estimated": self.estimated,
            "failed": self.failed,
            "failed_share": _rounded(self.failed_share),
            "unseen": self.unseen,
            "attempts": self.attempts,
            "lost": self.lost,
        }


def count_slow(trace: TraceReader, ending: Ending, verdict: Verification) -> SlowCounts | None:
    """Count what a trace has of the slow path; None where that was not recorded.

    Args:
        trace: the trace.
        ending: how it ends, by a pass over its rows.
        verdict: on its rows.

    Raises:
        KalloctraceError: its snapshot lacks something that every kernel has.
    """
    recorded = slow_path_of(trace, ending)
    if recorded is None:
        return None
    counts = SlowCounts(
        allocations=verdict.allocations * verdict.sample,
        complete=verdict.sample == 1 and not (verdict.lost or verdict.missed),
        lost=recorded.lost,
    )
    for call in recorded.calls:
        counts.calls += 1
        counts.failed += call["page"] is False
        counts.unseen += call["page"] is None
        counts.attempts += len(call["attempts"])
        counts.alloc_flags.update(attempt["alloc_flags"] for attempt in call["attempts"])
        for judged in recorded.judge(call).attempts:
            counts.kinds[judged.kind] += 1
            counts.verdicts.update((judged.verdict, about) for about in _abouts(judged))
    if recorded.calls.finish().truncated:
        counts.lost, counts.truncated = None, True
    return counts


def _abouts(judged: AttemptVerdict) -> Iterator[str | None]:
    if judged.verdict == "mismatched":
        yield from {difference.field for difference in judged.differences}
    else:
        yield judged.unknown or None


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)
