# SPDX-License-Identifier: MIT
"""Makes a fleet's dataset from the real requests and slow calls of fixtures: hosts, days, two kernels, and injections.

Each host makes the requests of a fixture with a mix of its own (log-normal factors of the square roots of the fixture's
counts, so that rare ones occur every day), and as many calls of each as chance has it (Poisson), but at least one.
After half of the days it has the second kernel: the same one under another release, so that nothing differs between
the two but what is injected.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from kalloctrace.console import json_text
from kalloctrace.fleet.add import Adding
from kalloctrace.fleet.circumstances import facts_json
from kalloctrace.fleet.dataset import Dataset, Writing, writing
from kalloctrace.fleet.tables import FLEET_TABLES, key_of
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.export.tables.columns import TABLES
from kalloctrace.trace.reader import TraceReader

LARGE, SMALL = "6.12/slow.arrows", "6.12/slow-stream.arrows"
"""Fixtures: of 499 distinct requests and 12,913 slow calls, and of 156 and 224, which is read sooner."""
BEFORE, AFTER = "6.12.118+deb13-amd64", "6.12.119+deb13-amd64"
OUTLIER = "host-00000"
MISMATCH = "host-00001"
_FIXTURES = Path(__file__).parents[2] / "fixtures"
_START = datetime(2026, 11, 1, tzinfo=UTC)
_DAY_NS = 86_400 * 10**9
_MIX = 0.3
"""How far hosts differ: the standard deviation of the logarithm of each request's rate."""
_PACE = 0.2
"""Likewise of how long a host's slow calls take."""
_HOSTS_AT_ONCE = 500


@dataclass(frozen=True)
class Fleet:
    """What to make.

    Attributes:
        hosts: how many.
        days: how many, each a recording of each host.
        requests: distinct ones of each host and day: the most frequent ones of the fixture.
        calls: of each host and day, about.
        slow: calls of the slow path of each host and day.
        seed: of the random numbers.
        outlier: the share of the calls of one host that become one request; 0 for none.
        regression: by how much slow calls take longer with the second kernel; 1 for nothing.
        mismatched: calls of another host that its kernel prepared otherwise.
        fixture: whose requests and slow calls.
    """

    hosts: int
    days: int = 2
    requests: int = 200
    calls: int = 20_000
    slow: int = 200
    seed: int = 1
    outlier: float = 0.0
    regression: float = 1.0
    mismatched: int = 0
    fixture: str = LARGE

    @property
    def rows(self) -> int:
        """Rows of allocations, but for the injected one."""
        return self.hosts * self.days * self.requests


@dataclass
class _Template:
    """A fixture as tables, with what a host does on a day."""

    rows: dict[str, pa.Table]
    recording: dict[str, Any]
    machine: dict[str, Any]


@cache
def _template(fixture: str) -> _Template:
    with TemporaryDirectory() as folder, Dataset.opened(Path(folder) / "fixture", create=True) as dataset:
        adding = Adding(dataset)
        with TraceReader(_FIXTURES / fixture) as reader:
            read = adding.read(reader)
    return _Template(read.rows, read.recording, read.rows["machines"].to_pylist()[0])


def _machine(machine: dict[str, Any], release: str) -> dict[str, Any]:
    """Return a row of machines for another release of the kernel."""
    data = json.loads(machine["snapshot_json"])
    data["release"] = release
    snapshot = Snapshot.from_json(data)
    return {
        **machine,
        "kernel_release": release,
        "machine_key": key_of(release),
        "facts_key": key_of(facts_json(snapshot)),
        "snapshot_json": json_text(data),
    }


class _Maker:
    """Makes the rows of hosts."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._random = np.random.default_rng(fleet.seed)
        template = _template(fleet.fixture)
        self.machines = {release: _machine(template.machine, release) for release in (BEFORE, AFTER)}
        allocations = template.rows["allocations"].sort_by([("calls", "descending")]).slice(0, fleet.requests)
        self._keys = allocations["request_key"].to_numpy()
        roots = np.sqrt(allocations["calls"].to_numpy())
        self._mix = roots / roots.sum()
        requests = template.rows["requests"]
        position = {key: place for place, key in enumerate(requests["request_key"].to_pylist())}
        used = requests.take(pa.array([position[key] for key in self._keys.tolist()]))
        self._wrong = {**used.to_pylist()[0], "request_key": 1, "migratetype": 99, "migratetype_name": "99"}
        self.requests = pa.concat_tables([used, pa.Table.from_pylist([self._wrong], used.schema)])
        self._slow = template.rows["slow_calls"]
        self._recording = template.recording
        hosts = fleet.hosts
        self._rates = np.exp(self._random.normal(0, _MIX, (hosts, len(self._keys)))) * self._mix
        self._rates *= fleet.calls / self._rates.sum(1, keepdims=True)
        self._paces = np.exp(self._random.normal(0, _PACE, hosts))
        if fleet.outlier:
            self._rates[0] *= 1 - fleet.outlier
            self._rates[0, len(self._keys) // 2] += fleet.outlier * fleet.calls

    def write(self, files: Writing, day: int, hosts: range) -> None:
        """Write the rows of some hosts on a day."""
        fleet = self._fleet
        release = BEFORE if day < (fleet.days + 1) // 2 else AFTER
        machine = self.machines[release]
        started = _START + timedelta(days=day)
        keys = np.array([key_of(files.token, str(host), str(day)) for host in hosts], np.int64)
        counts = np.maximum(1, self._random.poisson(self._rates[hosts.start : hosts.stop]))
        host, kind = np.nonzero(counts)
        counted, request = counts[host, kind], self._keys[kind]
        place, slow = self._slow_calls(hosts, release)
        if fleet.mismatched and 1 in hosts and day == 0:
            host, request = np.append(host, 1 - hosts.start), np.append(request, self._wrong["request_key"])
            counted = np.append(counted, fleet.mismatched)
        calls = np.bincount(host, counted, len(hosts)).astype(np.int64)
        number = len(host)
        allocations = {
            "recording_key": pa.array(keys[host]),
            "request_key": pa.array(request),
            "comm": pa.nulls(number, pa.utf8()),
            "cgroup": pa.nulls(number, pa.utf8()),
            "hour": pa.array(np.full(number, int(started.timestamp()) // 3600)),
            "calls": pa.array(counted),
        }
        recordings = [
            {
                **self._recording,
                "recording_key": key,
                "recording_id": f"{one}-{day}",
                "host": f"host-{one:05}",
                "file_key": None,
                "extent": 2 * (count + fleet.slow) + 1,
                "machine_key": machine["machine_key"],
                "facts_key": machine["facts_key"],
                "recording_day": started.date().isoformat(),
                "kernel_release": release,
                "calls": count,
                "slow_call_count": fleet.slow,
                "started_at": started.isoformat(),
                "duration_ns": _DAY_NS,
                "missing_rows": 0,
                "trace": f"host-{one:05}.arrows",
            }
            for one, key, count in zip(hosts, keys.tolist(), calls.tolist(), strict=True)
        ]
        slow = slow.add_column(0, "recording_key", pa.array(keys[place]))
        for table, rows in (
            ("allocations", pa.table(allocations)),
            ("slow_calls", slow),
            ("recordings", pa.Table.from_pylist(recordings, FLEET_TABLES["recordings"].remove_metadata())),
        ):
            schema = FLEET_TABLES[table].remove_metadata()
            files.write(table, rows.select(schema.names).cast(schema), day=started.date().isoformat(), kernel=release)

    def _slow_calls(self, hosts: range, release: str) -> tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Table]:
        """Return the slow calls of some hosts, and whose each is."""
        fleet = self._fleet
        place = np.repeat(np.arange(len(hosts)), fleet.slow)
        rows = self._slow.take(pa.array(self._random.integers(0, len(self._slow), len(place))))
        pace = self._paces[hosts.start : hosts.stop][place] * (fleet.regression if release == AFTER else 1)
        times = rows["duration_ns"].to_numpy(zero_copy_only=False) * pace
        column = pa.array(times, from_pandas=True).cast(pa.int64(), safe=False)
        rows = rows.set_column(rows.schema.get_field_index("duration_ns"), "duration_ns", column)
        numbers = pa.array(np.tile(np.arange(fleet.slow), len(hosts)))
        return place, rows.set_column(rows.schema.get_field_index("slow_call_id"), "slow_call_id", numbers)


def make_fleet(path: Path, fleet: Fleet) -> None:
    """Make a dataset."""
    maker = _Maker(fleet)
    with Dataset.opened(path, create=True) as dataset:
        for day, hosts in _parts(fleet):
            with writing(dataset) as files:
                if not day and not hosts.start:
                    files.write_into("requests", "requests", maker.requests)
                    machines = pa.Table.from_pylist(
                        list(maker.machines.values()), FLEET_TABLES["machines"].remove_metadata()
                    )
                    files.write_into("machines", "machines", machines)
                maker.write(files, day, hosts)
                files.commit()


def export_fleet(path: Path, folder: Path) -> None:
    """Write what `export --format tables` does of each recording of a fleet, each into a folder: calls, and kernel."""
    schema, numbers = TABLES["allocations"], count()
    with Dataset.opened(path) as dataset:
        requests = dataset.table("requests")
        place = {key: row for row, key in enumerate(requests["request_key"].to_pylist())}
        recordings = dataset.table("recordings", ["recording_key", "kernel_release"])
        release = dict(zip(*(column.to_pylist() for column in recordings.columns), strict=True))
        for data in dataset.files("allocations"):
            rows = dataset.read_files("allocations", [data]).sort_by("recording_key")
            keys = rows["recording_key"].to_numpy()
            for begin, end in pairwise([0, *(np.flatnonzero(np.diff(keys)) + 1).tolist(), len(keys)]):
                some = rows.slice(begin, end - begin)
                made = requests.take(pa.array([place[key] for key in some["request_key"].to_pylist()]))
                there = {**dict(zip(made.column_names, made.columns, strict=True)), "calls": some["calls"]}
                columns = [
                    there[field.name].cast(field.type) if field.name in there else pa.nulls(len(some), field.type)
                    for field in schema
                ]
                own = folder / f"{next(numbers)}"
                own.mkdir(parents=True)
                parquet.write_table(pa.table(columns, schema=schema), own / "allocations.parquet")
                about = pa.table({"kernel_release": [release[keys[begin]]]})
                parquet.write_table(about, own / "recording.parquet")


def _parts(fleet: Fleet) -> Iterator[tuple[int, range]]:
    for day in range(fleet.days):
        for begin in range(0, fleet.hosts, _HOSTS_AT_ONCE):
            yield day, range(begin, min(begin + _HOSTS_AT_ONCE, fleet.hosts))


def nothing_injected(fleet: Fleet) -> Fleet:
    """Return the same fleet in which nothing is wrong."""
    return replace(fleet, outlier=0.0, regression=1.0, mismatched=0)
