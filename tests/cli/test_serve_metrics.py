# SPDX-License-Identifier: MIT
"""`kalloctrace serve-metrics`, read by Prometheus's own parser; and the dashboard that shows it."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.report.metrics import prometheus
from kalloctrace.report.metrics.server import MOST_CONNECTIONS
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.slow_split import PARTS
from tests.traces import RECORDED, UNDER_PRESSURE, aggregate, slow, slow_calls, stream

STALLS = RECORDED.parents[1] / "7.3" / "slow-parts.arrows"
NEWEST = RECORDED.parents[1] / "7.3" / "stimulus-cpusets.arrows"
DASHBOARD = Path(__file__).parents[2] / "contrib" / "grafana" / "kalloctrace.json"
Values = dict[str, dict[tuple[tuple[str, str], ...], float]]


def started(*words: str | Path) -> subprocess.Popen[str]:
    """Start the real program on a free port."""
    return subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", "serve-metrics", "--port", "0", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(trace: Path, pid: list[int] | None = None) -> Iterator[str]:
    """Yield the address at which a trace's metrics are served; the program must exit with 0 on SIGINT."""
    with started(trace) as program:
        if pid is not None:
            pid.append(program.pid)
        assert program.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/metrics", program.stderr.readline())
            assert found is not None
            yield found[0]
        finally:
            program.send_signal(signal.SIGINT)
            rest = program.stderr.read()
        assert program.wait(timeout=30) == 0
        assert rest == ""


def text_of(url: str, accept: str = "text/plain") -> str:
    """Return the served text, in a format."""
    request = urllib.request.Request(url, headers={"Accept": accept})  # noqa: S310 - the address is that of the program
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - likewise
        text: str = answer.read().decode()
    return text


def scraped(url: str) -> Values:
    """Return the values of each sample by its labels."""
    values: Values = defaultdict(dict)
    for family in text_string_to_metric_families(text_of(url)):
        assert family.documentation
        for sample in family.samples:
            key = tuple(sorted(sample.labels.items()))
            assert key not in values[sample.name]
            values[sample.name][key] = sample.value
    return values


def by(values: Values, name: str, label: str) -> dict[str, float]:
    """Return a metric added up by one label, without zeros."""
    sums: Counter[str] = Counter()
    for labels, value in values[name].items():
        sums[dict(labels)[label]] += int(value)
    return {key: value for key, value in sums.items() if value}


def test_numbers_are_the_recording() -> None:
    """Each number is that of the trace, counted independently here."""
    with TraceReader(NEWEST) as trace:
        rows: list[dict[str, Any]] = [row for batch in trace.batches() for row in batch.to_pylist()]
        tables, release = trace.snapshot.tables, trace.snapshot.release
    with serving(NEWEST) as url:
        values = scraped(url)
    assert by(values, "kalloctrace_allocations_total", "order") == Counter(str(row["order"]) for row in rows)
    assert by(values, "kalloctrace_allocations_total", "entry") == Counter(row["entry"] for row in rows)
    failed = Counter(str(row["order"]) for row in rows if row["page"] is False)
    assert by(values, "kalloctrace_failed_total", "order") == failed
    slow = Counter(str(row["order"]) for row in rows if row["freelist_calls"] > 1)
    assert by(values, "kalloctrace_slow_path_total", "order") == slow
    rejected = Counter(str(row["order"]) for row in rows if not row["freelist_calls"] and row["entry"] != "bulk")
    assert by(values, "kalloctrace_rejected_total", "order") == rejected
    assert sum(failed.values()) * sum(slow.values()) * sum(rejected.values())
    masks = by(values, "kalloctrace_requests_total", "gfp")
    expected = Counter(decode_gfp(row["gfp_mask"], tables).text or "none" for row in rows)
    assert sum(masks.values()) == len(rows)
    assert masks.pop("other") > 0
    assert len(masks) == 200
    assert masks.items() <= expected.items()
    assert by(values, "kalloctrace_verdict_allocations", "verdict") == {"matched": len(rows)}
    ((labels, _),) = values["kalloctrace_info"].items()
    assert dict(labels)["kernel"] == release
    for name, value in (("up", 1), ("recording_complete", 1), ("lost_total", 0), ("missed_total", 0)):
        assert values[f"kalloctrace_{name}"] == {(): value}


def test_slow_path_of_an_aggregate() -> None:
    """If no return was traced, the slow path's events still show how many calls took it and how many failed."""
    calls = slow_calls()
    with serving(UNDER_PRESSURE) as url:
        values = scraped(url)
    assert values["kalloctrace_slow_path_calls_total"] == {(): len(calls)}
    assert values["kalloctrace_slow_path_failed_total"] == {(): sum(call["page"] is False for call in calls)}
    assert "kalloctrace_slow_path_lost_total" in values


def test_stalls_of_an_aggregate() -> None:
    """The parts of the time of slow calls, their histogram, and a call as an example of each power of two."""
    with TraceReader(STALLS) as trace:
        calls = list(trace.slow_calls())
    with serving(STALLS) as url:
        values, text = scraped(url), text_of(url, "application/openmetrics-text; version=1.0.0")
    spent = {
        dict(labels)["part"]: value for labels, value in values["kalloctrace_slow_path_part_seconds_total"].items()
    }
    assert spent == pytest.approx({name: sum(call[name] for call in calls) / 1e9 for name in PARTS})
    assert values["kalloctrace_slow_path_seconds_sum"][()] == pytest.approx(sum(spent.values()))
    for labels, count in values["kalloctrace_slow_path_seconds_bucket"].items():
        assert count == sum(call["duration"] / 1e9 < float(dict(labels)["le"]) for call in calls)
    slowest = next(line for line in text.splitlines() if 'caller="alloc_charge_folio"' in line)
    assert slowest.startswith('kalloctrace_slow_path_seconds_bucket{le="2.147483648"} 4467.0 # {')
    assert 'comm="khugepaged"' in slowest


def test_what_is_not_known_is_no_number(tmp_path: Path) -> None:
    """An aggregate without returns has no failures, and before its end no losses."""
    wrong = {"order": 1, "freelist_order": 1, "migratetype": 99}
    path = aggregate(tmp_path / "t.arrows", ({"page": None}, 3), ({"page": None, **wrong}, 2))
    path.write_bytes(path.read_bytes()[:-400])
    with serving(path) as url:
        values = scraped(url)
    unknown = ("failed_total", "slow_path_total", "lost_total", "missed_total", "recording_seconds")
    assert not {f"kalloctrace_{name}" for name in unknown} & {name for name, found in values.items() if found}
    assert values["kalloctrace_recording_complete"] == {(): 0}
    assert by(values, "kalloctrace_allocations_total", "order") == {"0": 3, "1": 2}
    assert by(values, "kalloctrace_verdict_allocations", "verdict") == {"matched": 3, "mismatched": 2}
    assert by(values, "kalloctrace_mismatched_allocations", "field") == {"migratetype": 2}


def test_trace_that_grows_is_followed(tmp_path: Path) -> None:
    """The next scrape counts appended rows; an unreadable file is reported until it can be read again."""
    path, whole = tmp_path / "t.arrows", stream(tmp_path / "whole.arrows", *[{}] * 5)
    stream(path, {}, {})
    with serving(path) as url:
        assert by(scraped(url), "kalloctrace_allocations_total", "order") == {"0": 2}
        shutil.copy(whole, path)
        assert by(scraped(url), "kalloctrace_allocations_total", "order") == {"0": 5}
        path.write_text("nonsense")
        assert dict(scraped(url)) == {"kalloctrace_up": {(): 0}}
        shutil.copy(whole, path)
        assert by(scraped(url), "kalloctrace_allocations_total", "order") == {"0": 5}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_objection() -> None:
    """Prometheus's own linter accepts the names, the types and the help."""
    with serving(NEWEST) as url:
        text = text_of(url)
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_kinds_keep_their_label() -> None:
    """A mask that once had a time series keeps it, however many others appear."""
    kinds = prometheus._Labels()  # noqa: SLF001 - the smallest place where it shows
    first = [kinds.label(f"mask {number}") for number in range(250)]
    assert first[:200] == [f"mask {number}" for number in range(200)]
    assert set(first[200:]) == {"other"}
    assert kinds.label("mask 7") == "mask 7"


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--port", "99999", RECORDED], 2), (["missing.arrows"], 1)],
    ids=["port", "missing"],
)
def test_refusals(words: list[str | Path], code: int) -> None:
    """The named trace must exist, and the port must be valid."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "serve-metrics", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 3)


def test_address_that_is_taken_is_named(tmp_path: Path) -> None:
    """A second program on the same port reports the port."""
    path = stream(tmp_path / "t.arrows", {})
    with serving(path) as url:
        port = url.split(":")[2].partition("/")[0]
        with started("--port", port, path) as second:
            _, messages = second.communicate(timeout=60)
        assert second.returncode == 1
        assert f"port {port}" in messages


class Clients:
    """Connections that misbehave."""

    def __init__(self, url: str) -> None:
        self._address = ("127.0.0.1", int(url.split(":")[2].partition("/")[0]))
        self._sockets: list[socket.socket] = []

    def open(self, count: int, sent: bytes) -> list[socket.socket]:
        """Open connections that send something and read nothing."""
        opened = [socket.create_connection(self._address, timeout=30) for _ in range(count)]
        self._sockets += opened
        for one in opened:
            # The server may have ended it already.
            with suppress(OSError):
                one.sendall(sent)
        return opened

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close them."""
        for one in self._sockets:
            one.close()


MISBEHAVIOUR = {
    "idle": b"",
    "half a request": b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
    "never reads": b"GET /metrics HTTP/1.1\r\n\r\n",
    "huge header": b"GET /metrics HTTP/1.1\r\nX: " + bytes(1 << 16),
    "junk": b"\x16\x03\x01\r\n\r\n\x00\xff",
    "other queries": b"GET /metrics?name[]=kalloctrace_up HTTP/1.0\r\nAccept: \xff\r\n\r\n",
}


@pytest.mark.parametrize("sent", MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
def test_bad_clients_do_not_keep_others_from_their_answer(tmp_path: Path, sent: bytes) -> None:
    """Behind 500 of them an answer comes within a second; threads and memory are bounded, and SIGINT ends it."""
    pid: list[int] = []
    with ExitStack() as hanging:
        with serving(stream(tmp_path / "t.arrows", {}), pid) as url:
            text_of(url)
            process = psutil.Process(pid[0])
            before = process.memory_info().rss
            hanging.enter_context(Clients(url)).open(500, sent)
            # A loaded machine may be late once.
            assert min(timed(lambda: text_of(url)) for _ in range(5)) < 1
            assert process.num_threads() <= 8
            assert len(process.net_connections()) <= MOST_CONNECTIONS + 1
            assert process.memory_info().rss - before < 64 << 20
            begin = time.monotonic()
        assert time.monotonic() - begin < 10


def timed(work: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    begin = time.monotonic()
    work()
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 15) + b"\r\n\r\n", b"431"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /favicon.ico HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_other_requests_have_their_status(tmp_path: Path, sent: bytes, status: bytes) -> None:
    """Requests that are not for metrics are answered, and the connection ends."""
    with serving(stream(tmp_path / "t.arrows", {})) as url, Clients(url) as clients:
        (one,) = clients.open(1, sent)
        answer = one.recv(1 << 16)
        assert answer.split(b" ")[1] == status


def test_dashboard_shows_what_is_served(tmp_path: Path) -> None:
    """Each query uses existing metrics and labels, and the selected data source and machines."""
    ended = stream(tmp_path / "t.arrows", {}, {"migratetype": 99}, {"cpusets_enabled": -1})
    with serving(ended) as url:
        values = scraped(url)
    with serving(slow(tmp_path / "s.arrows", *slow_calls()[:3])) as url:
        values.update((name, found) for name, found in scraped(url).items() if "_slow_path_" in name)
    with serving(STALLS) as url:
        values.update((name, found) for name, found in scraped(url).items() if "_seconds" in name)
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "job", "instance"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    queried = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            query = target["expr"]
            names = re.findall(r"kalloctrace_\w+", query)
            assert len(names) == 1
            assert values[names[0]], query
            queried |= set(names)
            labels = {label for key in values[names[0]] for label, _ in key}
            assert set(re.findall(r"by \((\w+)\)", query)) <= labels
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels
            assert 'job=~"$job"' in query
            assert ("rate(" in query) == (names[0].endswith("_total") and panel["type"] == "timeseries")
    silent = {"info", "recording_complete", "recording_sample", "recording_seconds", "followed_total"}
    silent |= {"slow_path_seconds_sum", "slow_path_seconds_count"}
    assert {name for name in values if values[name]} - queried <= {
        *(f"kalloctrace_{name}" for name in silent),
        "kalloctrace_mismatched_zonelists",
    }
