# SPDX-License-Identifier: MIT
"""Judges a fleet: the model runs once for each request on machines with the same facts, and its verdicts are kept.

The engine finds what has no verdict of this model, the model runs in plain Python on all processors, and a small table
goes back into the dataset.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import narwhals as nw
import pyarrow as pa
import pyarrow.compute as pc

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.fleet import questions
from kalloctrace.fleet.circumstances import judge_of
from kalloctrace.fleet.dataset import Dataset, writing
from kalloctrace.fleet.frames import Engine, Frame
from kalloctrace.fleet.tables import FLEET_TABLES, REQUEST_COLUMNS
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.verify.verification import Judge

_ROOMS = ("flags", "kernel", "model", "verify")
_PART = 2048
"""Requests that a process judges at once."""
_COMMIT_PARTS = 128
"""Parts after which verdicts are kept: so much work an interruption loses."""

MOST_HERE = 1_000_000
"""Requests that this machine judges alone; more go to the executors of an engine that has some, as many at once."""

_Job = tuple[str, str, pa.RecordBatch]
_ABOUT = ("verdict", "unknown_reason")
_SAID = ("field", "expected", "observed", "rule", "effect")
_FOUND = pa.schema(
    [*((name, pa.int64()) for name in questions.TRIPLE), *((name, pa.utf8()) for name in (*_ABOUT, *_SAID))]
)
"""Verdicts and differences in one table: where one has columns, the other has nulls."""


@cache
def model_version() -> str:
    """Return a hash of the code that a verdict depends on."""
    digest = blake2b(digest_size=8)
    package = Path(__file__).parents[1]
    for room in _ROOMS:
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0")
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass
class FleetVerification:
    """The verdict on a fleet: allocations = matched + mismatched + unknown.

    Attributes:
        recordings: how many were judged.
        hosts: different names of hosts.
        allocations: their calls.
        distinct: different requests with their context and outcome.
        matched: calls that the kernel prepared as the model predicts.
        mismatched: calls that differ.
        unknown: calls that could not be judged.
        lost: calls that are not in the traces.
        missed: probe hits that the kernel skipped.
        truncated: recordings whose end is missing.
        judged: how often the model ran now; the other verdicts were there.
        mismatches: what differs, most frequent first.
        unknown_reasons: why calls could not be judged, with counts.
    """

    recordings: int = 0
    hosts: int = 0
    allocations: int = 0
    distinct: int = 0
    matched: int = 0
    mismatched: int = 0
    unknown: int = 0
    lost: int = 0
    missed: int = 0
    truncated: int = 0
    judged: int = 0
    mismatches: list[dict[str, Any]] = field(default_factory=list)
    unknown_reasons: dict[str, int] = field(default_factory=dict)

    def exit_code(self, *, strict: bool) -> Exit:
        """Return the exit code: a mismatch outweighs incomplete data."""
        if self.mismatched:
            return Exit.MISMATCH
        incomplete = self.unknown or self.lost or self.missed or self.truncated
        return Exit.INCOMPLETE if strict and incomplete else Exit.OK

    def json_lines(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON object for each mismatch, and the verification at last."""
        for mismatch in self.mismatches:
            yield {"type": "fleet_mismatch", **mismatch}
        names = ("recordings", "hosts", "allocations", "distinct", "matched", "mismatched", "unknown", "lost", "missed")
        yield {
            "type": "fleet_verification",
            **{name: getattr(self, name) for name in (*names, "truncated", "judged")},
            "unknown_reasons": self.unknown_reasons,
            "model": model_version(),
        }


def verify_fleet(
    dataset: Dataset, engine: Engine, progress: Callable[[float], object] = lambda _: None, processes: int | None = None
) -> FleetVerification:
    """Judge what has no verdict of this model yet, keep the verdicts, and add them up.

    Args:
        dataset: opened.
        engine: running.
        progress: is called with the judged share, from 0 to 1.
        processes: how many judge; one for each processor by default.

    Raises:
        KalloctraceError: the model failed, or the verdicts cannot be written.
    """
    model = model_version()
    found = FleetVerification(judged=judge_fleet(dataset, engine, progress, processes))
    tables = engine.tables(dataset)
    (counts,) = engine.rows(questions.totals(tables))
    for name, count in counts.items():
        setattr(found, name, count)
    (distinct,) = engine.rows(questions.distinct_requests(tables))
    found.distinct = distinct["distinct"]
    for row in engine.rows(questions.verdict_counts(tables, model)):
        if row["verdict"] not in {"matched", "mismatched", "unknown"}:
            raise KalloctraceError(
                "cannot verify the fleet",
                f"{row['calls']:,} calls have no verdict",
                "somebody else changed the dataset meanwhile: run the command again",
            )
        setattr(found, row["verdict"], getattr(found, row["verdict"]) + row["calls"])
        if row["unknown_reason"] is not None:
            found.unknown_reasons[row["unknown_reason"]] = row["calls"]
    if found.mismatched:
        found.mismatches = engine.rows(questions.mismatches(tables, model))
    return found


def judge_fleet(
    dataset: Dataset, engine: Engine, progress: Callable[[float], object] = lambda _: None, processes: int | None = None
) -> int:
    """Judge what has no verdict of this model yet, and keep the verdicts.

    Args:
        dataset: opened.
        engine: running.
        progress: is called with the judged share, from 0 to 1.
        processes: how many judge; one for each processor by default.

    Returns:
        How often the model ran.

    Raises:
        KalloctraceError: the model failed, or the verdicts cannot be written.
    """
    model = model_version()
    unjudged = questions.unjudged(engine.tables(dataset), model)
    here = engine.arrow(unjudged.head(MOST_HERE + 1) if engine.has_executors else unjudged)
    if not here.num_rows:
        return 0
    facts = _Facts.of(dataset)
    if engine.has_executors and here.num_rows > MOST_HERE:
        number = _judge_on_executors(dataset, engine, unjudged, facts, progress)
    else:
        number = here.num_rows
        jobs = list(facts.jobs(here))
        pending: list[pa.RecordBatch] = []
        for done, part in enumerate(_results(jobs, processes or os.cpu_count() or 1), 1):
            pending.append(part)
            progress(done / len(jobs))
            if done % _COMMIT_PARTS == 0 or done == len(jobs):
                _keep(dataset, model, pa.Table.from_batches(pending))
                pending = []
    dataset.read()
    return number


def _judge_on_executors(
    dataset: Dataset, engine: Engine, unjudged: Frame, facts: "_Facts", progress: Callable[[float], object]
) -> int:
    """Judge in parts that this machine's memory holds, and return how many requests there were."""
    model = model_version()
    (counted,) = engine.rows(unjudged.select(nw.len().cast(nw.Int64).alias("number")))
    parts = -(-counted["number"] // MOST_HERE)

    def work(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return _judge_there(batches, facts, model)

    for part in range(parts):
        some = unjudged.filter(nw.col("request_key") % parts == part)
        _keep(dataset, model, engine.arrow(engine.on_executors(some, work, _FOUND)))
        progress((part + 1) / parts)
    return int(counted["number"])


def _judge_there(batches: Iterable[pa.RecordBatch], facts: "_Facts", model: str) -> Iterator[pa.RecordBatch]:
    """Judge on an executor, by the code that is there."""
    if model_version() != model:
        raise RuntimeError("an executor has another version of kalloctrace")
    for batch in batches:
        yield from map(_judge_part, facts.jobs(pa.Table.from_batches([batch])))


@dataclass(frozen=True)
class _Facts:
    """What a verdict depends on besides the request.

    Attributes:
        snapshots: a snapshot with each key of facts.
        shown: the circumstances of each key.
    """

    snapshots: dict[int, str]
    shown: dict[int, str]

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Return those of a dataset."""
        machines = dataset.table("machines", ["facts_key", "snapshot_json"])
        recordings = dataset.table("recordings", ["circumstances_key", "circumstances_json"])
        return cls(
            *(
                dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
                for table in (machines, recordings)
            )
        )

    def jobs(self, unjudged: pa.Table) -> Iterator[_Job]:
        """Yield requests that are judged alike."""
        unjudged = unjudged.sort_by([("facts_key", "ascending"), ("circumstances_key", "ascending")]).combine_chunks()
        pairs = list(zip(unjudged["facts_key"].to_pylist(), unjudged["circumstances_key"].to_pylist(), strict=True))
        begin = 0
        for end in range(1, len(pairs) + 1):
            if end == len(pairs) or pairs[end] != pairs[begin] or end - begin == _PART:
                facts, circumstances = pairs[begin]
                (batch,) = unjudged.slice(begin, end - begin).to_batches()
                yield self.snapshots[facts], self.shown[circumstances], batch
                begin = end


def _results(jobs: list[_Job], processes: int) -> Iterator[pa.RecordBatch]:
    if len(jobs) < 2 * processes or processes == 1:
        yield from map(_judge_part, jobs)
        return
    # Not forked: the engine has threads.
    try:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(_judge_part, jobs)
    except BrokenProcessPool as error:
        why, fix = (
            "a process that judges was killed",
            "run the command again: it goes on where it ended",
        )
        raise KalloctraceError("cannot judge the fleet", why, fix) from error


@lru_cache(maxsize=64)
def _judge_of(snapshot_json: str, circumstances: str) -> Judge:
    return judge_of(Snapshot.from_json(json.loads(snapshot_json)), circumstances)


def _judge_part(job: _Job) -> pa.RecordBatch:
    """Return verdicts and differences."""
    snapshot_json, circumstances, batch = job
    judge = _judge_of(snapshot_json, circumstances)
    rows = []
    for row in batch.to_pylist():
        about = {name: row[name] for name in questions.TRIPLE}
        try:
            verdict = judge({name: row[column] for column, name in REQUEST_COLUMNS.items()})
        except KalloctraceError as error:
            # As the plain error, which can come from another process.
            raise KalloctraceError(error.what, error.why, error.fix, error.code) from error
        kind = "unknown" if verdict.unknown else "mismatched" if verdict.differences else "matched"
        rows.append({**about, "verdict": kind, "unknown_reason": verdict.unknown or None})
        if kind == "mismatched":
            for one in verdict.differences:
                said = {"expected": str(one.expected), "observed": str(one.observed)}
                rows.append({**about, "field": one.field, "rule": one.rule, "effect": one.effect, **said})
    return pa.RecordBatch.from_pylist(rows, _FOUND)


def _keep(dataset: Dataset, model: str, found: pa.Table) -> None:
    is_verdict = pc.is_valid(found["verdict"])
    with writing(dataset) as files:
        for table, rows in (
            ("verdicts", found.filter(is_verdict)),
            ("differences", found.filter(pc.invert(is_verdict))),
        ):
            schema = FLEET_TABLES[table].remove_metadata()
            named = rows.append_column("model_version", pa.array([model] * len(rows), pa.utf8()))
            files.write_into(table, table, named.select(schema.names))
        files.commit()
