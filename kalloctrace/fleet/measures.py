# SPDX-License-Identifier: MIT
"""What each host does, as numbers that can be compared: shares of its calls, and times of its slow calls.

The engine reduces a fleet to a row for each host and kind of request. All else works on arrays of hosts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.fleet.frames import Engine, Frame, Tables
from kalloctrace.fleet.questions import PERCENTILES, TRIPLE, at_percentile
from kalloctrace.fleet.statistics import Counts, Numbers

_READ = (
    *("page_order", "gfp", "alloc_flags_text", "migratetype_name", "highest_zone_name", "zonelist_kind", "got_page"),
)
"""What is compared of a request and its outcome."""
TYPICAL = "typical_ns"
"""The geometric mean of the times."""
TIMES = tuple(f"p{share}_ns" for share in PERCENTILES)
_LEAST_TIMED = 20
_LEAST_ABOVE = 10
_KEY = "\x1f"
_ANSWERS = 5
"""What the engine is asked, in all."""


@dataclass(frozen=True)
class Hosts:
    """The hosts that are compared; each has a place in all arrays, one for each group that it is in.

    Attributes:
        group: of each: a kernel, or a side.
        kind: the populated zones of its nodes.
        name: its own.
    """

    group: Sequence[str]
    kind: Sequence[str]
    name: Sequence[str]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.name)

    def places(self) -> dict[tuple[str, str], Counts]:
        """Return the places of the hosts of each group and kind."""
        found: dict[tuple[str, str], list[int]] = {}
        for place, key in enumerate(zip(self.group, self.kind, strict=True)):
            found.setdefault(key, []).append(place)
        return {key: np.array(places, np.int64) for key, places in sorted(found.items())}


@dataclass(frozen=True)
class Share:
    """The share of the calls of each host that have a value.

    Attributes:
        field: which value: `request`, `alloc_flags`, `migratetype`, `highest_zone`, `zonelist`, `verdict`, `outcome` or
            `path`.
        value: the value.
        part: calls of each host that have it.
        whole: calls of each host of which it is known.
    """

    field: str
    value: str
    part: Counts
    whole: Counts


@dataclass(frozen=True)
class Times:
    """A time of the slow calls of each host.

    Attributes:
        field: which: a percentile, or TYPICAL.
        caller: whose calls; None for all.
        calls: how many of each host have a time.
        logarithm: of the time in ns; not a number without one.
        noise: the standard deviation that chance makes of the logarithm of the typical time.
    """

    field: str
    caller: str | None
    calls: Counts
    logarithm: Numbers
    noise: Numbers

    @property
    def least_calls(self) -> int:
        """How many calls a host needs for it: ten above a percentile."""
        return (
            _LEAST_TIMED
            if self.field == TYPICAL
            else _LEAST_ABOVE * 100 // (100 - PERCENTILES[TIMES.index(self.field)])
        )


def recordings(engine: Engine, tables: Tables) -> pa.Table:
    """Return the recordings that count, with the kind of their machine; one without a host stands for itself."""
    machines = tables["machines"].select("machine_key", "machine_kind")
    names = ("recording_id", "recording_key", "host", "machine_key", "facts_key", "circumstances_key")
    more = ("kernel_release", "calls", "slow_call_count", "sampled_every", "follows_slow_path")
    return engine.arrow(tables["recordings"].select(*names, *more).join(machines, on="machine_key"))


class Measures:
    """Measures hosts.

    Args:
        engine: running.
        tables: of the dataset.
        found: rows of `recordings`.
        groups: the group of each; those without one are left out.
        model: the version of the model whose verdicts count.
        progress: is called with the answered share, from 0 to 1.

    Attributes:
        hosts: in the order of all arrays.
    """

    def __init__(
        self,
        engine: Engine,
        tables: Tables,
        found: pa.Table,
        groups: Mapping[str, str],
        model: str,
        *,
        progress: Callable[[float], object] = lambda _: None,
    ) -> None:
        self._tables = tables
        self._engine = engine
        self._progress = progress
        self._answered = 0
        group = pa.array([groups.get(kernel) for kernel in found["kernel_release"].to_pylist()], pa.utf8())
        host = pc.if_else(pc.equal(found["host"], "?"), found["recording_id"], found["host"])
        self._recordings = found.append_column("group", group).set_column(2, "host", host).filter(group.is_valid())
        columns = [self._recordings[name].combine_chunks() for name in ("group", "machine_kind", "host")]
        coded = pc.dictionary_encode(pc.binary_join_element_wise(*columns, _KEY))
        first = np.unique(coded.indices.to_numpy(), return_index=True)[1]
        self.hosts = Hosts(*(column.take(pa.array(first)).to_pylist() for column in columns))
        self._place = coded.indices.to_numpy().astype(np.int64)
        cells = self._recordings.select(["recording_key", "facts_key", "circumstances_key"])
        self._cells: Frame = nw.from_native(engine.hold(cells.append_column("place", pa.array(self._place)))).lazy()
        self._model = model

    def _answer(self, frame: Frame) -> pa.Table:
        """Return an answer of the engine, and say how many of all are there."""
        table = self._engine.arrow(frame)
        self._answered += 1
        self._progress(self._answered / _ANSWERS)
        return table

    def shares(self) -> Iterator[Share]:
        """Yield the shares of each field, and of each value that any host has."""
        requests = self._answer(self._tables["requests"].select("request_key", *_READ))
        texts = [requests[name].cast(pa.utf8()).fill_null("\0") for name in _READ]
        coded = pc.dictionary_encode(pc.binary_join_element_wise(*texts, _KEY).combine_chunks())
        number = coded.indices.to_numpy()
        first = np.unique(number, return_index=True)[1]
        kinds = requests.take(pa.array(first)).to_pylist()
        of_request = pa.table({"request_key": requests["request_key"], "number": pa.array(number.astype(np.int64))})
        rows = self._answer(self._counted(nw.from_native(self._engine.hold(of_request)).lazy()))
        place, kind, calls = (rows[name].to_numpy() for name in ("place", "number", "calls"))
        for field, values in _values(kinds).items():
            yield from self._of(field, values, place, kind, calls)
        verdict = pc.dictionary_encode(rows["verdict"].combine_chunks())
        known = pc.is_valid(rows["verdict"]).to_numpy()
        index = verdict.indices.fill_null(0).to_numpy()
        each = [[text] for text in verdict.dictionary.to_pylist()]
        yield from self._of("verdict", each, place[known], index[known], calls[known])
        yield from self._slow_path()

    def _counted(self, numbers: Frame) -> Frame:
        """Return calls by host, kind of request and verdict."""
        triples = self._tables["allocations"].join(self._cells, on="recording_key")
        triples = triples.group_by("place", *TRIPLE).agg(nw.col("calls").sum().cast(nw.Int64))
        verdicts = self._tables["verdicts"].filter(nw.col("model_version") == self._model)
        judged = triples.join(verdicts.select(*TRIPLE, "verdict"), on=TRIPLE, how="left").join(
            numbers, on="request_key"
        )
        return judged.group_by("place", "number", "verdict").agg(nw.col("calls").sum().cast(nw.Int64))

    def _of(
        self, field: str, values: Sequence[Sequence[str]], place: Counts, kind: Counts, calls: Counts
    ) -> Iterator[Share]:
        """Yield the shares of a field.

        Args:
            field: its name.
            values: those of each kind of request; none where they are not known.
            place: of the host of each row.
            kind: of the request of each row.
            calls: of each row.
        """
        hosts = len(self.hosts)
        known = np.array([bool(each) for each in values], bool)
        if not known.any():
            return
        rows = known[kind]
        place, kind, calls = place[rows], kind[rows], calls[rows]
        whole = np.bincount(place, calls, hosts).astype(np.int64)
        names = sorted({value for each in values for value in each})
        index = {name: number for number, name in enumerate(names)}
        ends = np.concatenate([[0], np.cumsum([len(each) for each in values])])
        flat = np.array([index[value] for each in values for value in each], np.int64)
        # Each row once for each value of its kind.
        times = (ends[1:] - ends[:-1])[kind]
        row = np.repeat(np.arange(len(kind)), times)
        within = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
        value = flat[ends[kind][row] + within]
        order = np.argsort(value, kind="stable")
        value, place, calls = value[order], place[row][order], calls[row][order]
        borders = np.searchsorted(value, np.arange(len(names) + 1))
        for number, name in enumerate(names):
            begin, end = borders[number], borders[number + 1]
            if begin < end:
                part = np.bincount(place[begin:end], calls[begin:end], hosts).astype(np.int64)
                yield Share(field, name, part, whole)

    def _slow_path(self) -> Iterator[Share]:
        """Yield the shares of calls that took the slow path, and that failed there, of recordings that followed it."""
        found = self._recordings
        failed = self._tables["slow_calls"].filter(~nw.col("got_page")).group_by("recording_key")
        counted = self._answer(failed.agg(nw.len().cast(nw.Int64).alias("failed")))
        row = pc.index_in(found["recording_key"].combine_chunks(), counted["recording_key"].combine_chunks())
        follows = pc.and_(pc.fill_null(found["follows_slow_path"], False), pc.equal(found["sampled_every"], 1))
        columns = (found["calls"], found["slow_call_count"], counted["failed"].take(row).fill_null(0))
        whole, slow, failures = (
            np.bincount(self._place, pc.if_else(follows, column, 0).to_numpy(), len(self.hosts)).astype(np.int64)
            for column in columns
        )
        yield Share("path", "slow path", np.minimum(slow, whole), whole)
        yield Share("path", "slow path, no page", np.minimum(failures, whole), whole)

    def times(self) -> Iterator[Times]:
        """Yield the times of all slow calls of each host, and of those of each caller."""
        slow = self._tables["slow_calls"].filter(~nw.col("duration_ns").is_null())
        slow = slow.select("recording_key", "caller", "duration_ns").join(self._cells, on="recording_key")
        slow = slow.with_columns((nw.col("duration_ns").cast(nw.Float64) + 1.0).log().alias("logarithm"))
        whole = self._answer(_quantiles(slow, ["place"]))
        yield from self._times(None, whole)
        by_caller = self._answer(_quantiles(slow.filter(~nw.col("caller").is_null()), ["place", "caller"]))
        for caller in sorted(pc.unique(by_caller["caller"]).to_pylist()):
            yield from self._times(caller, by_caller.filter(pc.equal(by_caller["caller"], caller)))

    def _times(self, caller: str | None, rows: pa.Table) -> Iterator[Times]:
        place, hosts = rows["place"].to_numpy(), len(self.hosts)

        def spread(values: Numbers | Counts, missing: float) -> Numbers:
            array = np.full(hosts, missing)
            array[place] = values
            return array

        number, total, squares = (rows[name].to_numpy() for name in ("timed", "sum", "squares"))
        mean = total / number
        deviation = np.sqrt(np.maximum(squares / number - mean * mean, 0))
        calls = spread(number, 0).astype(np.int64)
        noise = spread(deviation / np.sqrt(number), np.nan)
        yield Times(TYPICAL, caller, calls, spread(mean, np.nan), noise)
        for name in TIMES:
            yield Times(name, caller, calls, spread(np.log(rows[name].to_numpy() + 1.0), np.nan), noise)


def _values(requests: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Return the values of each field of requests; none where it is not known."""

    def one(name: str) -> list[list[str]]:
        return [[] if request[name] is None else [request[name]] for request in requests]

    outcomes = {True: ["page"], False: ["no page"], None: list[str]()}
    return {
        "request": [
            [] if request["gfp"] is None else [f"order {request['page_order']} {request['gfp']}"]
            for request in requests
        ],
        "alloc_flags": [
            [] if request["alloc_flags_text"] is None else request["alloc_flags_text"].split("|")
            for request in requests
        ],
        "migratetype": one("migratetype_name"),
        "highest_zone": one("highest_zone_name"),
        "zonelist": one("zonelist_kind"),
        "outcome": [outcomes[request["got_page"]] for request in requests],
    }


def _quantiles(calls: Frame, by: list[str]) -> Frame:
    """Return percentiles (nearest rank), the number of times, and what their geometric mean is made of."""
    placed = calls.with_columns(
        nw.col("duration_ns").rank("ordinal").over(by).alias("rank"),
        nw.col("duration_ns").count().over(by).cast(nw.Int64).alias("timed"),
        (nw.col("logarithm") * nw.col("logarithm")).alias("square"),
    )
    placed = placed.with_columns(at_percentile(share).alias(f"p{share}_ns") for share in PERCENTILES)
    return placed.group_by(by).agg(
        nw.col("timed").max(),
        nw.col("logarithm").sum().alias("sum"),
        nw.col("square").sum().alias("squares"),
        *(nw.col(name).max() for name in TIMES),
    )
