# SPDX-License-Identifier: MIT
"""`fleet diff` and `fleet outliers` find what was injected into a fleet of a fixture's requests, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kalloctrace.cli import main
from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.diff import diff_fleet, releases_like
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.measures import TYPICAL, Measures, Share, Times, recordings
from kalloctrace.fleet.outliers import find_outliers
from kalloctrace.fleet.verify import judge_fleet, model_version
from kalloctrace.trace.reader import TraceReader
from tests.bench.fleet_data import AFTER, BEFORE, MISMATCH, OUTLIER, SMALL, Fleet, make_fleet, nothing_injected
from tests.fleets import add
from tests.schemas import hold
from tests.traces import RECORDED, stream

INJECTED = Fleet(
    hosts=30, requests=40, slow=100, calls=20_000, outlier=0.6, regression=1.5, mismatched=600, fixture=SMALL
)
STREAM = RECORDED.parents[1] / SMALL


@pytest.fixture(scope="module")
def fleets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a fleet with injections, and one without."""
    paths = tmp_path_factory.mktemp("injected") / "fleet", tmp_path_factory.mktemp("plain") / "fleet"
    for path, fleet in zip(paths, (INJECTED, nothing_injected(INJECTED)), strict=True):
        make_fleet(path, fleet)
    return paths


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Run the program; return the objects that it prints, and the sums at last."""
    assert main(list(words)) == 0
    *rows, sums = map(json.loads, capsys.readouterr().out.splitlines())
    return rows, sums


def test_a_regression_is_found(fleets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The times of slow calls, within their intervals; no share differs."""
    rows, sums = printed(
        capsys, "fleet", "diff", "--json", str(fleets[0]), "--kernel", BEFORE, "--kernel", AFTER.partition("+")[0]
    )
    hold("fleet_difference", *rows)
    hold("fleet_diff", sums)
    assert (sums["kernels_before"], sums["kernels_after"]) == ([BEFORE], [AFTER])
    certain = [row for row in rows if row["certain"]]
    assert sums["certain"] == len(certain) > 0
    assert {row["unit"] for row in certain} == {"ns"}
    (typical,) = (row for row in certain if row["field"] == TYPICAL and row["value"] is None)
    assert 1 < typical["change_low"] < typical["change"] < typical["change_high"] < 2.5
    assert typical["change"] == pytest.approx(INJECTED.regression, rel=0.2)
    assert (typical["hosts_before"], typical["hosts_after"], typical["same_hosts"]) == (30, 30, True)
    assert main(["fleet", "diff", str(fleets[0]), "--kernel", BEFORE, "--kernel", AFTER, "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{len(certain)} of {len(rows)} compared values differ between {BEFORE} and {AFTER}")
    assert f"and {len(certain) - 1} more" in out


def test_an_outlier_is_found(fleets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """The host and its request; and the host whose calls differ from the model."""
    rows, sums = printed(capsys, "fleet", "outliers", "--json", str(fleets[0]))
    hold("fleet_outlier", *rows)
    hold("fleet_outliers", sums)
    assert {row["host"] for row in rows} == {OUTLIER, MISMATCH}
    assert {row["value"] for row in rows if row["host"] == MISMATCH} >= {"mismatched"}
    request = next(row for row in rows if row["host"] == OUTLIER and row["field"] == "request")
    assert request["own"] == pytest.approx(INJECTED.outlier, abs=0.05)
    calls = "sum(allocations.calls)"
    share = f"{calls} FILTER ('order ' || page_order || ' ' || gfp = '{request['value']}') / {calls}"
    joined = "allocations JOIN recordings USING (recording_key) JOIN requests USING (request_key)"
    of_hosts = (
        f"SELECT {share} AS share FROM {joined} WHERE kernel_release = '{request['kernel_release']}' GROUP BY host"
    )
    assert main(["fleet", "sql", "--json", str(fleets[0]), f"SELECT median(share) AS m FROM ({of_hosts})"]) == 0
    assert request["median"] == pytest.approx(json.loads(capsys.readouterr().out)["row"]["m"])
    assert request["median"] < request["own"] / 4
    assert (sums["hosts"], sums["alone"]) == (60, 0)
    assert main(["fleet", "outliers", str(fleets[0]), "--top", "1"]) == 0
    assert capsys.readouterr().out.startswith("3 of 60 hosts that were compared with peers are unlike them")


def test_the_progress_of_long_questions(fleets: tuple[Path, Path]) -> None:
    """It grows with each answer of the engine, up to the end."""
    with Dataset.opened(fleets[1]) as dataset, engine() as running:
        done: tuple[list[float], list[float]] = [], []
        diff_fleet(dataset, running, BEFORE, AFTER, done[0].append)
        find_outliers(dataset, running, done[1].append)
    assert done[0] == done[1] == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_nothing_wrong_gives_no_alarm(fleets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Neither of kernels nor of hosts."""
    words = ["fleet", "diff", str(fleets[1]), "--kernel", BEFORE, "--kernel", AFTER]
    rows, sums = printed(capsys, *words, "--json")
    assert (sums["certain"], sums["compared"]) == (0, len(rows))
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"no certain difference of {BEFORE} and {AFTER}")
    assert printed(capsys, "fleet", "outliers", "--json", str(fleets[1]))[0] == []


def test_measures_are_those_of_the_trace(tmp_path: Path) -> None:
    """Shares and times of one host, worked out from its trace by another way."""
    path = tmp_path / "fleet"
    add(path, STREAM)
    with Dataset.opened(path) as dataset, engine() as running:
        judge_fleet(dataset, running, processes=1)
        tables = running.tables(dataset)
        found = recordings(running, tables)
        kernel = found["kernel_release"][0].as_py()
        measures = Measures(running, tables, found, {kernel: "all"}, model_version())
        shares = {(share.field, share.value): share for share in measures.shares()}
        times = {(time.field, time.caller): time for time in measures.times()}
    with TraceReader(STREAM) as trace:
        counted = list(trace.counted())
        slow = list(trace.slow_calls())
    total = sum(count for _, count in counted)

    def has(share: Share) -> tuple[int, int]:
        return int(share.part[0]), int(share.whole[0])

    low = sum(count for row, count in counted if row["freelist_calls"] and row["alloc_flags"] & 1)
    assert has(shares["alloc_flags", "ALLOC_WMARK_LOW"])[0] == low > 0
    assert has(shares["verdict", "matched"]) == (total, total)
    pages = [sum(count for row, count in counted if row["page"] is page) for page in (True, False)]
    assert has(shares["outcome", "no page"]) == (pages[1], sum(pages))
    assert has(shares["path", "slow path"]) == (len(slow), total)
    assert has(shares["path", "slow path, no page"]) == (sum(call["page"] is False for call in slow), total)
    orders = [count for row, count in counted if row["order"] == 0 and row["gfp_mask"] == 0xCC0]
    if orders:
        assert has(shares["request", "order 0 GFP_KERNEL"]) == (sum(orders), total)
    whole: Times = times[TYPICAL, None]
    durations = [call["duration"] for call in slow if call["duration"] is not None]
    assert whole.calls.tolist() == [len(durations)]
    assert whole.logarithm[0] == pytest.approx(np.log(np.array(durations) + 1.0).mean())


def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One kernel, the same one twice, one that is not there; and too few hosts."""
    path = tmp_path / "fleet"
    add(path, stream(tmp_path / "one.arrows", {}, recording={"id": "1", "host": "web-1"}), STREAM)
    for kernels, why in (
        (["5.10"], "1 are given in place of 2"),
        (["5.10", "5.10"], "is on both sides"),
        (["5.10", "9.9"], "no recording has a kernel 9.9"),
    ):
        words = [word for kernel in kernels for word in ("--kernel", kernel)]
        assert main(["fleet", "diff", str(path), *words]) == 2
        assert why in capsys.readouterr().err
    assert main(["fleet", "diff", str(path), "--kernel", "5.10", "--kernel", "6.12"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("nothing to compare")
    assert "too few hosts on one side: 2 kinds of machine" in out
    assert main(["fleet", "outliers", str(path)]) == 0
    assert capsys.readouterr().out.startswith("nothing to compare")


def test_releases() -> None:
    """One as it is, or all that begin with its parts."""
    known = ["6.1.0-56-amd64", "6.12.117+deb13", "6.12.118+deb13", "6.12"]
    assert releases_like(known, "6.12") == ["6.12"]
    assert releases_like(known[:3], "6.12") == known[1:3]
    assert releases_like(known, "6.1") == known[:1]
    assert releases_like(known, "6.12.118") == [known[2]]
    with pytest.raises(KalloctraceError, match="no recording has a kernel 6"):
        releases_like(["61.0", "7.3"], "6")
