# SPDX-License-Identifier: MIT
"""Counts of the slow path in a trace; calls are counted one by one and not kept."""

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
        allocations: number of allocations; a sample is scaled up. The slow path itself is never sampled.
        complete: every allocation was recorded.
        lost: events of the slow path that were lost or missed; None where `truncated`.
        truncated: the end of the trace is missing, or its slow-path calls are damaged.
        calls: calls of the slow path.
        failed: calls that returned no page.
        unseen: calls whose return was not traced; they may have failed.
        attempts: calls of get_page_from_freelist() in the slow path.
        kinds: attempts of each kind, named as in `SlowVerification`.
        alloc_flags: attempts with each value, in the recorded kernel's bits.
        verdicts: attempts by verdict and subject: the field that differs, the reason for unknown, or None. An attempt
            that differs in two fields counts for both.
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
        """Return slow-path calls per allocation; None without allocations."""
        return self.calls / self.allocations if self.allocations else None

    @property
    def estimated(self) -> bool:
        """Return whether `share` is an estimate because something was not recorded."""
        return not self.complete or self.lost != 0

    @property
    def failed_share(self) -> float | None:
        """Return the fraction of calls that failed; None without calls."""
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
    """Count the slow path of a trace; None where it was not recorded.

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
