# SPDX-License-Identifier: MIT
"""The results of executed kernels, counted and as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from kalloctrace.model.slowpath.types import Kind, SlowCall
from kalloctrace.verify.slowpath.judge import CallVerdict
from tests.compiled.mask_flags import MaskFlags
from tests.compiled.rows import Called

SHOWN = 3


@dataclass
class Tally:
    """The results of one kernel.

    Attributes:
        name: of the kernel, as given on the command line.
        version: of its package.
        failure: why it could not be executed; empty if it was.
        has_defrag_mode: the kernel has that sysctl, and with it one more kind of attempt.
        calls: of the slow path.
        attempts: attempts of these calls.
        mismatched: calls with an attempt or an end that the model excludes.
        unknown: calls with an attempt or an end that it cannot judge; aborted calls have no end.
        unseen: unknown calls in which the cpuset was set again to the same nodes.
        kinds: attempts of each kind, as `AttemptVerdict.kind` has it.
        masks: attempts whose flags a mask shows without any facts, `tests.compiled.mask_flags`.
        masks_mismatched: those with other flags.
        requests: calls of the entry function.
        requests_mismatched: those that call the slow path with other arguments than the model predicts.
        checks: watermark checks.
        checks_mismatched: those with another result than the model's.
        shown: a few of the mismatches.
    """

    name: str
    version: str = ""
    failure: str = ""
    has_defrag_mode: bool = False
    calls: int = 0
    attempts: int = 0
    mismatched: int = 0
    unknown: int = 0
    unseen: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    masks_mismatched: int = 0
    requests: int = 0
    requests_mismatched: int = 0
    checks: int = 0
    checks_mismatched: int = 0
    shown: list[str] = field(default_factory=list)

    def count(self, called: Called, verdict: CallVerdict) -> None:
        """Count a call and the model's verdict."""
        left = called.call.page is None
        judged = verdict.attempts if left else (*verdict.attempts, verdict.end)
        self.calls += 1
        self.attempts += len(verdict.attempts)
        self.kinds.update(attempt.kind for attempt in verdict.attempts)
        if any(each.unknown for each in judged):
            self.unknown += 1
            self.unseen += called.unseen
        differences = [difference for each in judged for difference in each.differences]
        if differences:
            self.mismatched += 1
            self._show(f"{differences[0]}\n  in {called.call}")

    def count_mask(self, called: Called, flags: MaskFlags) -> None:
        """Count an attempt whose flags a mask shows."""
        self.masks += 1
        if flags.expected != flags.actual:
            self.masks_mismatched += 1
            self._show(f"a mask shows {flags.expected:#x}, an attempt has {flags.actual:#x}\n  in {called.call}")

    def count_request(self, given: SlowCall | None, expected: SlowCall) -> None:
        """Count a request to the entry function."""
        self.requests += 1
        if given != expected:
            self.requests_mismatched += 1
            self._show(f"the slow path is called with {given}\n  expected: {expected}")

    def count_check(self, run: dict[str, Any], *, agreed: bool) -> None:
        """Count a check of a watermark."""
        self.checks += 1
        if not agreed:
            self.checks_mismatched += 1
            self._show(f"__zone_watermark_ok: {run}")

    @property
    def differs(self) -> bool:
        """Whether the model and the kernel differ anywhere."""
        return bool(self.mismatched or self.masks_mismatched or self.requests_mismatched or self.checks_mismatched)

    def unmet(self) -> list[Kind]:
        """Return the kinds of attempts that never certainly occurred."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return [kind for kind in kinds if not self.kinds[kind] and (self.has_defrag_mode or "nofragment" not in kind)]

    def _show(self, text: str) -> None:
        if len(self.shown) < SHOWN:
            self.shown.append(text)


def tables(tallies: Sequence[Tally]) -> str:
    """Return two tables in Markdown: the results, and the kinds of attempts."""
    done = [each for each in tallies if not each.failure]
    results: list[tuple[str | int, ...]] = [
        (
            each.version,
            each.calls,
            each.attempts,
            each.mismatched,
            each.unknown,
            each.unseen,
            each.masks,
            each.masks_mismatched,
            each.requests,
            each.requests_mismatched,
            each.checks,
            each.checks_mismatched,
        )
        for each in done
    ]
    counts = ("calls", "attempts", "mismatched", "unknown", "of these unseen")
    head = ("image", *counts, "masks", "mismatched", "requests", "mismatched", "checks", "mismatched")
    kinds: list[tuple[str | int, ...]] = [
        (f"`{kind}`", *(each.kinds[kind] for each in done)) for kind in get_args(Kind)
    ]
    several: tuple[str | int, ...] = ("of several", *(each.kinds["several"] for each in done))
    names = ("kind", *(each.name for each in done))
    return f"{_table(head, results)}\n\n{_table(names, [*kinds, several])}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> str:
    lines = [list(head), ["---", *["--:"] * (len(head) - 1)]]
    lines += [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
