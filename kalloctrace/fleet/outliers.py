# SPDX-License-Identifier: MIT
"""Which hosts are unlike their peers: those with the same kernel and the same kind of machine."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.measures import TYPICAL, Hosts, Measures, recordings
from kalloctrace.fleet.statistics import ALARM, LEAST_PEERS, Counts, Numbers, log_odds, number_of_tests, outliers
from kalloctrace.fleet.verify import model_version

LEAST_CALLS = 100
"""Calls that a host needs to be compared by their shares."""
LEAST_SHARE = 0.01
"""A smaller difference of a share makes no host an outlier."""
LEAST_RATIO = 1.25
"""Nor does a smaller ratio of times."""


@dataclass(frozen=True)
class Outlier:
    """A host that is unlike its peers in a field.

    Attributes:
        host: its name.
        kernel: its kernel's release.
        kind: the populated zones of its nodes.
        field: in what.
        value: which value of it; for times whose calls, None for all.
        peers: how many hosts were compared.
        own: its share, or its typical time in ns.
        median: that of all of them.
        is_time: whether it is a time.
        p_value: of all tests together.
    """

    host: str
    kernel: str
    kind: str
    field: str
    value: str | None
    peers: int
    own: float
    median: float
    is_time: bool
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "type": "fleet_outlier",
            "host": self.host,
            "kernel_release": self.kernel,
            "machine_kind": self.kind,
            "field": self.field,
            "value": self.value,
            "unit": "ns" if self.is_time else "share",
            "own": self.own,
            "median": self.median,
            "peers": self.peers,
            "p_value": self.p_value,
        }


@dataclass
class FleetOutliers:
    """The outliers of a fleet.

    Attributes:
        hosts: that were compared with peers; one with two kernels counts twice.
        alone: those with too few peers.
        tests: how many values of how many groups were tested, at both ends.
        found: the outliers, surest first.
    """

    hosts: int
    alone: int
    tests: int
    found: list[Outlier]

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON object for each outlier, and the sums at last."""
        yield from (one.to_json() for one in self.found)
        yield {
            "type": "fleet_outliers",
            "hosts": self.hosts,
            "alone": self.alone,
            "tests": self.tests,
            "outliers": len({(one.host, one.kernel, one.kind) for one in self.found}),
        }


@dataclass(frozen=True)
class _Group:
    """What is tested at once: a value of the hosts of a kernel and kind of machine."""

    field: str
    value: str | None
    places: Counts
    values: Numbers
    noise: Numbers
    plain: Numbers
    is_time: bool

    def is_large(self, own: float, median: float) -> bool:
        """Return whether a difference is worth an alarm."""
        if self.is_time:
            return abs(math.log(own / median)) >= math.log(LEAST_RATIO)
        return abs(own - median) >= LEAST_SHARE


def find_outliers(
    dataset: Dataset, engine: Engine, progress: Callable[[float], object] = lambda _: None
) -> FleetOutliers:
    """Return the hosts that are unlike their peers.

    Args:
        dataset: opened, and judged.
        engine: running.
        progress: is called with the finished share, from 0 to 1.
    """
    tables = engine.tables(dataset)
    known = recordings(engine, tables)
    groups = {kernel: kernel for kernel in known["kernel_release"].to_pylist()}
    measures = Measures(engine, tables, known, groups, model_version(), progress=progress)
    hosts = measures.hosts
    peers = [places for places in hosts.places().values() if len(places) >= LEAST_PEERS]
    tested = list(_groups(measures, peers))
    tests = sum(number_of_tests(len(group.places)) for group in tested)
    found = [one for group in tested for one in _outliers(hosts, group, tests)]
    found.sort(key=lambda one: (one.p_value, one.host, one.kernel, one.field, one.value or ""))
    compared = sum(map(len, peers))
    return FleetOutliers(compared, len(hosts) - compared, tests, found)


def _groups(measures: Measures, peers: list[Counts]) -> Iterator[_Group]:
    for share in measures.shares():
        for places in peers:
            enough = places[share.whole[places] >= LEAST_CALLS]
            plain = share.part[enough] / share.whole[enough]
            if len(enough) >= LEAST_PEERS and np.ptp(plain) >= LEAST_SHARE:
                values, noise = log_odds(share.part[enough], share.whole[enough])
                yield _Group(share.field, share.value, enough, values, noise, plain, is_time=False)
    for times in measures.times():
        if times.field == TYPICAL:
            for places in peers:
                enough = places[times.calls[places] >= times.least_calls]
                if len(enough) >= LEAST_PEERS:
                    values = times.logarithm[enough]
                    yield _Group(
                        times.field, times.caller, enough, values, times.noise[enough], np.exp(values), is_time=True
                    )


def _outliers(hosts: Hosts, group: _Group, tests: int) -> Iterator[Outlier]:
    median = float(np.median(group.plain))
    for index, chance in outliers(group.values, group.noise, ALARM / tests):
        own, place = float(group.plain[index]), int(group.places[index])
        if group.is_large(own, median):
            yield Outlier(
                hosts.name[place],
                hosts.group[place],
                hosts.kind[place],
                group.field,
                group.value,
                len(group.places),
                own,
                median,
                group.is_time,
                min(1.0, chance * tests),
            )
