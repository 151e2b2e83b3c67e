# SPDX-License-Identifier: MIT
"""Why a request failed: the verdicts on all its zones together, and what would have let it succeed."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from kalloctrace.diagnose.remedies import remedies_for
from kalloctrace.diagnose.zones import (
    AllocationAttempt,
    Conclusion,
    Diagnosis,
    Doubt,
    Kind,
    Remedy,
    ZoneVerdict,
    judge_zone,
)
from kalloctrace.model.watermark import Range, Watermarks, ZoneState

_REFUSED = ("watermark", "block")


def judge_zones(kernel: Watermarks, attempt: AllocationAttempt, zones: Sequence[ZoneState]) -> Diagnosis:
    """Judge each zone, and find what would have let the request succeed.

    Args:
        kernel: the kernel's watermark check.
        attempt: the request.
        zones: their states at that moment, in the order of the zonelist if that is known.

    Returns:
        The verdicts in the same order, and the remedies.
    """
    verdicts = tuple(judge_zone(kernel, attempt, state) for state in zones)
    return _diagnosis(verdicts, lambda: remedies_for(kernel, attempt, zones, verdicts))


def in_every_case(first: Diagnosis, others: Iterable[tuple[Doubt, Diagnosis]]) -> Diagnosis:
    """Return a diagnosis that says for certain only what holds in every case.

    Args:
        first: the diagnosis in the likeliest case.
        others: what is different in each other case, and the diagnosis of the same zones there.
    """
    cases = list(others)
    verdicts = first.zones
    for doubt, other in cases:
        pairs = list(zip(verdicts, other.zones, strict=True))
        verdicts = tuple(_doubted(mine, its, doubt) for mine, its in pairs)
        if doubt == "zone_layout":
            verdicts = tuple(_with_range(mine, its) for mine, (_, its) in zip(verdicts, pairs, strict=True))

    def remedies() -> Iterator[Remedy]:
        kept = [{_place(remedy) for remedy in other.remedies} for _, other in cases]
        return (remedy for remedy in first.remedies if all(_place(remedy) in places for places in kept))

    return _diagnosis(verdicts, remedies) if cases else first


def _doubted(mine: ZoneVerdict, other: ZoneVerdict, doubt: Doubt) -> ZoneVerdict:
    if mine.kind == other.kind or (mine.kind in _REFUSED and other.kind == "excluded"):
        return mine
    # The free blocks are the same whatever zones there are, so that a zone without one refuses in either case.
    if doubt == "zone_layout" and mine.kind in _REFUSED and other.kind in _REFUSED:
        return mine
    # A zone that refuses if it is tried does not serve either way.
    if mine.kind == "excluded" and other.kind in _REFUSED:
        return other
    unless = mine.unless if doubt in mine.unless else (*mine.unless, doubt)
    return mine._replace(certain=False, unless=unless)


def _with_range(mine: ZoneVerdict, other: ZoneVerdict) -> ZoneVerdict:
    """Return a verdict whose lowmem_reserve is that of both cases."""
    if mine.check is None or other.check is None:
        return mine
    one, two = mine.check.lowmem_reserve, other.check.lowmem_reserve
    reserve = Range(min(one.low, two.low), max(one.high, two.high))
    return mine._replace(check=mine.check._replace(lowmem_reserve=reserve))


def _place(remedy: Remedy) -> tuple[str, int, str]:
    return remedy.change, remedy.node, remedy.zone


def _diagnosis(verdicts: tuple[ZoneVerdict, ...], find_remedies: Callable[[], Iterable[Remedy]]) -> Diagnosis:
    # A zone that could serve, but perhaps may not be used, decides nothing.
    tried: list[Kind] = [
        "unknown" if verdict.kind not in _REFUSED and not verdict.certain else verdict.kind
        for verdict in verdicts
        if verdict.kind != "excluded" or not verdict.certain
    ]
    conclusion = _conclusion(tried)
    # The logged state is later than the failure, so a pass now explains nothing.
    refused = conclusion not in ("passes", "unknown")
    certain = refused and all(verdict.certain for verdict in verdicts)
    return Diagnosis(conclusion, certain, verdicts, tuple if conclusion == "passes" else find_remedies)


def _conclusion(tried: Sequence[Kind]) -> Conclusion:
    kinds = set(tried)
    if not kinds:
        return "no_zone"
    if "passes" in kinds:
        return "passes"
    if "unknown" in kinds:
        return "unknown"
    return "mixed" if len(kinds) > 1 else "watermark" if "watermark" in kinds else "block"
