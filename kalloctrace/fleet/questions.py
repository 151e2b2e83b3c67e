# SPDX-License-Identifier: MIT
"""The questions, each defined once, for every engine.

Sums are cast, because DuckDB adds integers up to 128 bits.
"""

from typing import TypeAlias

import narwhals as nw

from kalloctrace.fleet.frames import Frame, Tables
from kalloctrace.fleet.tables import REQUEST_COLUMNS

_Columns: TypeAlias = list[str]

TRIPLE: _Columns = ["facts_key", "circumstances_key", "request_key"]
"""What a verdict is about: machine, circumstances, request."""


def _sum(name: str) -> nw.Expr:
    return nw.col(name).sum().cast(nw.Int64)


def _called(tables: Tables, *columns: str) -> Frame:
    """Return the allocations with columns of their recordings."""
    recordings = tables["recordings"].select("recording_key", *columns)
    return tables["allocations"].join(recordings, on="recording_key")


def judged_requests(tables: Tables) -> Frame:
    """Return what a verdict is needed about, each once."""
    return _called(tables, "facts_key", "circumstances_key").select(TRIPLE).unique(keep="any")


def unjudged(tables: Tables, model: str) -> Frame:
    """Return what has no verdict of a model, with the columns that the model reads.

    Args:
        tables: of the dataset.
        model: the model's version.
    """
    verdicts = tables["verdicts"].filter(nw.col("model_version") == model).select(TRIPLE)
    requests = tables["requests"].select("request_key", *REQUEST_COLUMNS)
    return judged_requests(tables).join(verdicts, on=TRIPLE, how="anti").join(requests, on="request_key")


def verdict_counts(tables: Tables, model: str) -> Frame:
    """Return the calls by verdict and reason."""
    verdicts = tables["verdicts"].filter(nw.col("model_version") == model).drop("model_version")
    called = _called(tables, "facts_key", "circumstances_key")
    whole = called.join(verdicts, on=TRIPLE, how="left")
    return (
        whole.group_by("verdict", "unknown_reason").agg(_sum("calls").alias("calls")).sort("verdict", "unknown_reason")
    )


def totals(tables: Tables) -> Frame:
    """Return one row: recordings, and their losses."""
    known = tables["recordings"].with_columns(
        nw.col("lost_calls").fill_null(0), nw.col("missing_rows").fill_null(0), nw.col("missed_hits").fill_null(0)
    )
    known = known.with_columns((nw.col("lost_calls") + nw.col("missing_rows")).alias("lost"))
    return known.select(
        nw.len().cast(nw.Int64).alias("recordings"),
        nw.col("host").n_unique().cast(nw.Int64).fill_null(0).alias("hosts"),
        _sum("calls").fill_null(0).alias("allocations"),
        _sum("lost").fill_null(0).alias("lost"),
        _sum("missed_hits").fill_null(0).alias("missed"),
        nw.col("truncated").cast(nw.Int64).sum().cast(nw.Int64).fill_null(0).alias("truncated"),
    )


def distinct_requests(tables: Tables) -> Frame:
    """Return one row: how many distinct requests and outcomes occurred."""
    return (
        tables["allocations"].select("request_key").unique(keep="any").select(nw.len().cast(nw.Int64).alias("distinct"))
    )


_MISMATCH: _Columns = ["kernel_release", "machine_kind", "rule", "field", "expected", "observed"]


def mismatches(tables: Tables, model: str) -> Frame:
    """Return what differs, by kernel, kind of machine, rule and values, most frequent first."""
    differences = tables["differences"].filter(nw.col("model_version") == model).drop("model_version")
    machines = tables["machines"].select("machine_key", "machine_kind")
    called = _called(tables, "facts_key", "circumstances_key", "machine_key", "kernel_release", "host", "started_at")
    found = called.join(differences, on=TRIPLE).join(machines, on="machine_key")
    groups = found.group_by(_MISMATCH).agg(
        _sum("calls").alias("calls"),
        nw.col("request_key").n_unique().cast(nw.Int64).alias("requests"),
        nw.col("host").n_unique().cast(nw.Int64).alias("hosts"),
        nw.col("host").min().alias("a_host"),
        nw.col("started_at").min().alias("first_seen"),
    )
    return groups.sort("calls", *_MISMATCH, descending=[True, *(False for _ in _MISMATCH)])


PERCENTILES = (50, 90, 99)
_CALLERS: _Columns = ["kernel_release", "caller", "cgroup"]
_ASKERS: _Columns = ["kernel_release", "comm", "cgroup"]


def _outcomes(tables: Tables) -> Frame:
    """Return calls and failures of each recording by task and control group.

    Where the slow path was recorded but not every return, as in aggregate mode, its calls show the failures: their task
    is known, but not how many calls it made.
    """
    followed = tables["requests"].select(
        "request_key",
        nw.col("got_page").is_null().alias("not_followed"),
        (~nw.col("got_page")).fill_null(value=False).cast(nw.Int64).alias("fails"),
    )
    called = _called(tables, "host", "kernel_release", "slow_call_count", "sampled_every")
    called = called.join(followed, on="request_key")
    by_slow_path = (
        called.filter(nw.col("not_followed"), nw.col("slow_call_count") > 0, nw.col("sampled_every") == 1)
        .select("recording_key")
        .unique(keep="any")
        .with_columns(nw.lit(0).cast(nw.Int64).alias("counted"))
    )
    called = called.join(by_slow_path, on="recording_key", how="left").with_columns(
        (nw.col("calls") * nw.col("fails") * nw.col("counted").fill_null(1)).alias("failed")
    )
    recordings = tables["recordings"].select("recording_key", "host", "kernel_release")
    slow = tables["slow_calls"].filter(~nw.col("got_page")).join(by_slow_path, on="recording_key")
    slow = slow.join(recordings, on="recording_key").with_columns(
        nw.col("counted").alias("calls"), nw.lit(1).cast(nw.Int64).alias("failed")
    )
    columns = ["host", *_ASKERS, "calls", "failed"]
    return nw.concat([called.select(columns), slow.select(columns)])


def failures(tables: Tables) -> Frame:
    """Return calls and failures by kernel, task and control group; most failures first, none without one."""
    groups = _outcomes(tables).group_by(_ASKERS)
    found = groups.agg(_sum("calls"), _sum("failed"), nw.col("host").n_unique().cast(nw.Int64).alias("hosts"))
    order = ["failed", "calls", *_ASKERS]
    return found.filter(nw.col("failed") > 0).sort(
        *order, descending=[True, True, *(False for _ in _ASKERS)], nulls_last=True
    )


def slow_totals(tables: Tables) -> Frame:
    """Return one row: all calls of the slow path, and the time that they took."""
    return tables["slow_calls"].select(
        nw.len().cast(nw.Int64).alias("slow_calls"), _sum("duration_ns").fill_null(0).alias("total_ns")
    )


def failed_calls(tables: Tables) -> Frame:
    """Return one row: all failed calls."""
    return _outcomes(tables).select(_sum("failed").fill_null(0))


def at_percentile(share: int) -> nw.Expr:
    """Return the duration where the `rank` of a call is the nearest one to a percentile of `timed` calls, else null."""
    return nw.when(nw.col("rank") == (nw.col("timed") * share + 99) // 100).then(nw.col("duration_ns"))


def stalls(tables: Tables) -> Frame:
    """Return calls of the slow path by kernel, caller and control group, with their times; most time first.

    A percentile is the nearest rank: a time that occurred. It is null where no return was captured.
    """
    recordings = tables["recordings"].select("recording_key", "kernel_release", "host")
    columns = tables["slow_calls"].select("recording_key", "caller", "cgroup", "got_page", "duration_ns")
    calls = columns.join(recordings, on="recording_key").with_columns(
        (~nw.col("got_page")).fill_null(value=False).cast(nw.Int64).alias("failed"),
        nw.col("duration_ns").rank("ordinal").over(_CALLERS).alias("rank"),
        nw.col("duration_ns").count().over(_CALLERS).cast(nw.Int64).alias("timed"),
    )
    calls = calls.with_columns(at_percentile(share).alias(f"p{share}_ns") for share in PERCENTILES)
    groups = calls.group_by(_CALLERS).agg(
        nw.len().cast(nw.Int64).alias("slow_calls"),
        _sum("failed"),
        nw.col("host").n_unique().cast(nw.Int64).alias("hosts"),
        _sum("duration_ns").alias("total_ns"),
        *(nw.col(f"p{share}_ns").max() for share in PERCENTILES),
        nw.col("duration_ns").max().alias("max_ns"),
    )
    return groups.sort("total_ns", *_CALLERS, descending=[True, *(False for _ in _CALLERS)], nulls_last=True)
