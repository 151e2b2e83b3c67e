# SPDX-License-Identifier: MIT
"""What changed with an upgrade: hosts with one kernel against hosts with another, by kind of machine."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.measures import Hosts, Measures, Share, Times, recordings
from kalloctrace.fleet.statistics import (
    ALARM,
    LEAST_HOSTS,
    Counts,
    Estimate,
    Numbers,
    adjusted,
    counting_variance,
    paired,
    unpaired,
)
from kalloctrace.fleet.verify import model_version

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Difference:
    """What differs between the kernels, on one kind of machine.

    Attributes:
        field: what is compared.
        value: which value of it; for times whose calls, None for all.
        kind: the populated zones of the nodes.
        hosts: how many before and after.
        same_hosts: whether hosts were compared with themselves.
        before: the mean share, or the typical time in ns.
        after: likewise.
        change: the difference of shares, or the ratio of times, with its uncertainty.
        is_time: whether it is a time.
        p_value: of all tests together.
    """

    field: str
    value: str | None
    kind: str
    hosts: tuple[int, int]
    same_hosts: bool
    before: float
    after: float
    change: Estimate
    is_time: bool
    p_value: float

    @property
    def is_certain(self) -> bool:
        """Whether chance hardly explains it."""
        return self.p_value <= ALARM

    @property
    def size(self) -> float:
        """How large it is, for the order of what is equally sure."""
        return abs(math.log(self.change.value)) if self.is_time else abs(self.change.value)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "type": "fleet_difference",
            "field": self.field,
            "value": self.value,
            "machine_kind": self.kind,
            "hosts_before": self.hosts[0],
            "hosts_after": self.hosts[1],
            "same_hosts": self.same_hosts,
            "unit": "ns" if self.is_time else "share",
            "before": self.before,
            "after": self.after,
            "change": self.change.value,
            "change_low": self.change.low,
            "change_high": self.change.high,
            "p_value": self.p_value,
            "certain": self.is_certain,
        }


@dataclass
class FleetDiff:
    """The differences between two kernels.

    Attributes:
        kernels: the releases before and after.
        kinds: kinds of machine with enough hosts on both sides.
        left_out: those without.
        differences: all that could be tested, surest first.
    """

    kernels: tuple[list[str], list[str]]
    kinds: list[str]
    left_out: list[str]
    differences: list[Difference]

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON object for each difference, and the sums at last."""
        yield from (difference.to_json() for difference in self.differences)
        yield {
            "type": "fleet_diff",
            "kernels_before": self.kernels[0],
            "kernels_after": self.kernels[1],
            "machine_kinds": self.kinds,
            "left_out": self.left_out,
            "compared": len(self.differences),
            "certain": sum(difference.is_certain for difference in self.differences),
        }


def releases_like(known: Iterable[str], wanted: str) -> list[str]:
    """Return the releases that are meant: one as it is, else all that begin with these parts, as 6.12 does 6.12.3-1.

    Raises:
        KalloctraceError: none is.
    """
    found = sorted(set(known))
    if wanted in found:
        return [wanted]
    like = [release for release in found if re.match(re.escape(wanted) + r"(?=[^0-9A-Za-z])", release)]
    if not like:
        why = f"no recording has a kernel {wanted}"
        fix = f"give --kernel one of: {', '.join(found) or 'none is there'}"
        raise KalloctraceError("cannot compare kernels", why, fix, Exit.USAGE)
    return like


def diff_fleet(
    dataset: Dataset, engine: Engine, before: str, after: str, progress: Callable[[float], object] = lambda _: None
) -> FleetDiff:
    """Compare hosts before and after an upgrade.

    Args:
        dataset: opened, and judged.
        engine: running.
        before: a kernel's release, or its beginning.
        after: likewise.
        progress: is called with the finished share, from 0 to 1.

    Raises:
        KalloctraceError: a kernel is not there, or both are the same.
    """
    tables = engine.tables(dataset)
    found = recordings(engine, tables)
    known = found["kernel_release"].to_pylist()
    sides = releases_like(known, before), releases_like(known, after)
    if set(sides[0]) & set(sides[1]):
        what, why = "cannot compare kernels", f"{sides[0][0]} is on both sides"
        raise KalloctraceError(what, why, "give two different kernels, or more of their releases", Exit.USAGE)
    groups = {**dict.fromkeys(sides[0], BEFORE), **dict.fromkeys(sides[1], AFTER)}
    measures = Measures(engine, tables, found, groups, model_version(), progress=progress)
    pairs, left_out = _pairs(measures.hosts)
    tested = [
        *(one for share in measures.shares() for pair in pairs for one in _share(share, pair)),
        *(one for times in measures.times() for pair in pairs for one in _time(times, pair)),
    ]
    chances = adjusted([difference.p_value for difference in tested])
    differences = [replace(one, p_value=chance) for one, chance in zip(tested, chances, strict=True)]
    differences.sort(key=lambda one: (one.p_value, -one.size, one.field, one.value or "", one.kind))
    return FleetDiff(sides, [pair.kind for pair in pairs], left_out, differences)


@dataclass(frozen=True)
class _Pair:
    """The places of the hosts of one kind of machine on both sides.

    Attributes:
        kind: the populated zones of their nodes.
        before: the places with the first kernel.
        after: with the second one; where hosts are compared with themselves, in the same order.
        same: whether they are.
    """

    kind: str
    before: Counts
    after: Counts
    same: bool

    def known(self, has: npt.NDArray[np.bool_]) -> "_Pair | None":
        """Return the pair without the hosts of which a value is not known; None if too few are left."""
        before, after = has[self.before], has[self.after]
        if self.same:
            before = after = before & after
        pair = replace(self, before=self.before[before], after=self.after[after])
        return pair if min(len(pair.before), len(pair.after)) >= LEAST_HOSTS else None

    def estimate(self, values: Numbers, counting: float) -> Estimate:
        """Return the difference of the means of all hosts; counting alone gives it a variance."""
        compare = paired if self.same else unpaired
        return compare(values[self.before], values[self.after], counting)

    def difference(
        self, field: str, value: str | None, means: tuple[float, float], change: Estimate, *, is_time: bool = False
    ) -> Difference:
        """Return what differs, with the p-value of its test alone; see the attributes of `Difference`."""
        sizes = len(self.before), len(self.after)
        return Difference(field, value, self.kind, sizes, self.same, *means, change, is_time, change.p_value)


def _pairs(hosts: Hosts) -> tuple[list[_Pair], list[str]]:
    """Return the pairs of each kind of machine, and the kinds that have too few hosts.

    Hosts are compared with themselves if enough have had both kernels: what a host does differs most from host to host.
    """
    places = hosts.places()
    pairs, left_out = [], []
    for kind in sorted({kind for _, kind in places}):
        sides = [places.get((side, kind), np.zeros(0, np.int64)) for side in (BEFORE, AFTER)]
        by_name = [{hosts.name[place]: place for place in side.tolist()} for side in sides]
        both = sorted(by_name[0].keys() & by_name[1].keys())
        if len(both) >= LEAST_HOSTS and 2 * len(both) >= min(map(len, sides)):
            same = [np.array([names[name] for name in both], np.int64) for names in by_name]
            pairs.append(_Pair(kind, same[0], same[1], same=True))
        elif min(map(len, sides)) >= LEAST_HOSTS:
            pairs.append(_Pair(kind, sides[0], sides[1], same=False))
        else:
            left_out.append(kind)
    return pairs, left_out


def _share(share: Share, kind: _Pair) -> Iterator[Difference]:
    """Yield the difference of a share, if enough hosts have the value on one side."""
    pair = kind.known(share.whole > 0)
    if pair is None or not _occurs(share.part, pair):
        return
    counting = sum(counting_variance(share.part[side], share.whole[side]) for side in (pair.before, pair.after))
    values = share.part / np.maximum(share.whole, 1)
    change = pair.estimate(values, counting)
    means = (float(values[pair.before].mean()), float(values[pair.after].mean()))
    yield pair.difference(share.field, share.value, means, change)


def _occurs(part: Counts, pair: _Pair) -> bool:
    return any(np.count_nonzero(part[side]) >= LEAST_HOSTS for side in (pair.before, pair.after))


def _time(times: Times, kind: _Pair) -> Iterator[Difference]:
    """Yield the ratio of times, if enough hosts have them."""
    pair = kind.known(times.calls >= times.least_calls)
    if pair is None:
        return
    counting = sum(float((times.noise[side] ** 2).sum()) / len(side) ** 2 for side in (pair.before, pair.after))
    logs = pair.estimate(times.logarithm, counting)
    change = Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.p_value)
    means = (math.exp(times.logarithm[pair.before].mean()), math.exp(times.logarithm[pair.after].mean()))
    yield pair.difference(times.field, times.caller, means, change, is_time=True)
