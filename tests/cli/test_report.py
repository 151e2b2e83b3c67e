# SPDX-License-Identifier: MIT
"""`kalloctrace report` as people and scripts run it."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.writer import TraceWriter
from tests import traces

TRACE = Path(__file__).parents[2] / "fixtures/5.10/two-nodes.arrows"
WIDTH = 80
COMMAND = re.compile(rf"  (more:|     ) kalloctrace [a-z ,-]+ {re.escape(str(TRACE))}")
ESCAPE = "\x1b"
TABLES = ["gfp", "order", "migratetype", "preferred_zone", "alloc_flags", "comm", "zonelist", "context", "stack"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "report", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def report(*arguments: str | Path) -> dict[str, Any]:
    """Run the program with --json and return its one object."""
    done = run("--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def on_a_terminal(columns: int, **environment: str) -> str:
    """Run the program on a terminal of a width, and return what it wrote there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", "report", str(TRACE)],
        stdin=theirs,
        stdout=theirs,
        env={**inherited, "PAGER": "cat", "TERM": "xterm", **environment},
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:
                # Linux says EIO where other pipes just end.
                break
            written += part
    os.close(ours)
    assert process.returncode == 0
    return written.decode().replace("\r\n", "\n")


def write(path: Path, *rows: dict[str, Any], closed: bool = True) -> Path:
    """Write the first row of the recorded trace, once for each set of changed columns."""
    with TraceReader(TRACE) as trace:
        batches, totals = list(trace.batches()), trace.ending().totals
    (row,) = batches[0].slice(0, 1).to_pylist()
    with TraceWriter(path, trace.snapshot, trace.recording) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**row, **change} for change in rows], schema=COLUMNS))
        if closed:
            assert totals is not None
            writer.close(totals)
    return path


def plain(text: str) -> str:
    """Return a text without the terminal's codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture(scope="module")
def text() -> str:
    """The report of a recorded trace, as printed into a pipe."""
    done = run(TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    """The same as JSON."""
    return report("--top", "1000", TRACE)


def test_lines_fit(text: str) -> None:
    """No line is wider than 80 columns or ends in blanks; a command to copy is one line of any length."""
    for line in text.splitlines():
        assert len(line) <= WIDTH or COMMAND.fullmatch(line)
        assert line == line.rstrip()


def test_pipe_gets_no_colour(text: str) -> None:
    """A pipe gets no terminal codes."""
    assert ESCAPE not in text


def test_text_says_what_was_recorded(text: str, data: dict[str, Any]) -> None:
    """The header names the file, the kernel, the machine's nodes and how it was recorded."""
    for words in (str(TRACE), data["kernel"], data["version"], "node 0: ", " MiB", data["recording"]["mode"]):
        assert words in text


@pytest.mark.parametrize("key", ["allocations", "pages", "failed", "rejected", "slow_path", "lost", "missed"])
def test_text_has_the_totals(text: str, data: dict[str, Any], key: str) -> None:
    """Each total is a line with its number."""
    assert re.search(rf"^  {key.replace('_', ' ')} +{data[key]:,}\b", text, re.MULTILINE)


def test_text_has_the_verdict(text: str, data: dict[str, Any]) -> None:
    """The model's verdict is shown, with the command for details."""
    assert f"matched {data['verification']['matched']:,}  mismatched 0  unknown 0" in text
    assert f"more: kalloctrace verify {TRACE}" in text


def test_numbers_are_whole(text: str, data: dict[str, Any]) -> None:
    """The first row of each table is printed with all its digits."""
    for name in TABLES[:-1]:
        row = data["by"][name]["rows"][0]
        assert re.search(rf" {row['count']:,} +{row['share']:.1%} +{row['pages']:,}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", TABLES)
def test_tables_add_up(data: dict[str, Any], name: str) -> None:
    """Each table divides all allocations and all pages."""
    rows = data["by"][name]["rows"]
    assert sum(row["count"] for row in rows) == data["allocations"]
    assert sum(row["pages"] for row in rows) == data["pages"]


def test_same_numbers_as_verify(data: dict[str, Any]) -> None:
    """The verdict is the one of `kalloctrace verify`."""
    program = [sys.executable, "-m", "kalloctrace", "verify", "--json", str(TRACE)]
    verdict = json.loads(subprocess.run(program, capture_output=True, check=True, timeout=60).stdout)
    assert data["verification"] == {key: verdict[key] for key in ("matched", "mismatched", "unknown", "not_judged")}
    assert (data["allocations"], data["lost"]) == (verdict["allocations"], verdict["lost"])


def test_top_limits_the_tables() -> None:
    """With --top 1 each table has one row, and the sum of the others."""
    data = report("--top", "1", TRACE)
    for table in data["by"].values():
        other = table["other"]
        assert len(table["rows"]) == 1
        assert table["rows"][0]["count"] + (other["count"] if other else 0) == data["allocations"]


@pytest.mark.parametrize("top", ["0", "-1", "many"])
def test_top_is_a_positive_number(top: str) -> None:
    """Any other value is wrong usage."""
    assert run("--top", top, TRACE).returncode == 2


def test_terminal_gets_colour_and_its_width() -> None:
    """On a terminal headings are bold, no line is too wide, and no number is cut."""
    written = on_a_terminal(60)
    assert ESCAPE in written
    assert max(len(line) for line in plain(written).splitlines() if not COMMAND.fullmatch(line)) <= 60
    assert "…" not in written


def test_no_color_is_respected() -> None:
    """With NO_COLOR nothing is coloured, though headings may be bold."""
    assert not re.search(r"\x1b\[(\d+;)*[34]\d", on_a_terminal(80, NO_COLOR="1"))


def test_truncated_trace(tmp_path: Path) -> None:
    """A truncated recording is summarised, and the text lists what is unknown."""
    path = write(tmp_path / "t.arrows", {}, {}, closed=False)
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  allocations +2\b", done.stdout, re.MULTILINE)
    assert re.search(r"^  lost +not known\b", done.stdout, re.MULTILINE)
    assert "The end of the recording is missing" in done.stdout


def test_truncated_aggregate(tmp_path: Path) -> None:
    """Its duration is unknown without its end."""
    path = traces.aggregate(tmp_path / "t.arrows", ({}, 3))
    path.write_bytes(path.read_bytes()[:-400])
    assert re.search(r"^lasted +not known$", run(path).stdout, re.MULTILINE)


def test_truncated_trace_in_json(tmp_path: Path) -> None:
    """Unknown values are null."""
    data = report(write(tmp_path / "t.arrows", {}, closed=False))
    assert (data["truncated"], data["lost"], data["missed"], data["running"]) == (True, None, None, None)


def test_empty_trace(tmp_path: Path) -> None:
    """An empty recording also has a report."""
    done = run(write(tmp_path / "t.arrows"))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^  allocations +0\b", done.stdout, re.MULTILINE)


def test_name_of_a_process_is_no_markup(tmp_path: Path) -> None:
    """Any process name is printed as it is, except for terminal codes."""
    path = write(tmp_path / "t.arrows", {"comm": "[red]x[/red]"}, {"comm": f"{ESCAPE}[2Jx"}, {"comm": ":smile:"})
    shown = run(path).stdout
    assert "[red]x[/red] (pid" in shown
    assert r"\x1b[2Jx (pid" in shown
    assert ":smile: (pid" in shown


def test_largest_numbers_fit(tmp_path: Path) -> None:
    """The largest orders that a trace may have make a report with lines that fit."""
    done = run(write(tmp_path / "t.arrows", *[{"order": 30}] * 3))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{3 << 30:,}" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= max(WIDTH, len(f"  more: kalloctrace verify {tmp_path}/t.arrows"))


def test_locale_without_the_character(tmp_path: Path) -> None:
    """A character that the locale cannot encode is escaped, and does not end the report."""
    done = run(write(tmp_path / "t.arrows", {"comm": "日本"}), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u65e5\u672c (pid" in done.stdout


def test_aggregate_says_what_it_does_not_know(tmp_path: Path) -> None:
    """An aggregate has counts; processes and stacks are reported as not recorded."""
    path = traces.aggregate(tmp_path / "t.arrows", ({"order": 0}, 30), ({"order": 2, "page": False}, 10))
    data = report(path)
    assert (data["allocations"], data["pages"], data["failed"]) == (40, 30, 10)
    assert (data["by"]["comm"], data["by"]["stack"]) == (None, None)
    assert [row["count"] for row in data["by"]["order"]["rows"]] == [30, 10]
    shown = run(path).stdout
    assert "An aggregate has no times, CPUs or processes" in shown
    assert "process  " not in shown
    assert re.search(r"^2 +10 +25.0% +0$", shown, re.MULTILINE)


def test_returns_that_were_not_traced(tmp_path: Path) -> None:
    """Without returns, the numbers that need them are unknown."""
    path = traces.aggregate(tmp_path / "t.arrows", ({"page": None}, 6), ({"page": None, "order": 2}, 4))
    data = report(path)
    assert (data["not_followed"], data["failed"], data["slow_path"], data["pages"]) == (10, 0, 0, 22)
    shown = run(path).stdout
    for name in ("failed", "slow path"):
        assert re.search(rf"^  {name} +not known\b", shown, re.MULTILINE)
    mixed = run(traces.stream(tmp_path / "mixed.arrows", {"page": False}, {"page": True}, {"page": None})).stdout
    assert re.search(r"^  failed +1  .*returns not traced: 1", mixed, re.MULTILINE)


def test_slow_path_replaces_missing_returns() -> None:
    """If returns were not traced, failed and slow calls are counted from the slow path's events."""
    calls = traces.slow_calls()
    failed = sum(call["page"] is False for call in calls)
    data = report(traces.UNDER_PRESSURE)
    assert (data["slow_calls"], data["slow_failed"]) == (len(calls), failed)
    shown = run(traces.UNDER_PRESSURE).stdout
    assert re.search(rf"^  failed +{failed:,}  left the slow path without a page", shown, re.MULTILINE)
    assert re.search(rf"^  slow path +{len(calls):,}  ", shown, re.MULTILINE)
    assert "is not known" not in shown


def test_first_failures(tmp_path: Path) -> None:
    """A table lists all; then come five groups, or --top, and the number of the others."""
    failed = [call for call in traces.slow_calls() if call["page"] is False]
    kinds = {call["given"]["order"]: call for call in failed}
    assert len(kinds) > 2
    path = traces.slow(tmp_path / "t.arrows", *kinds.values())
    shown = run("--failures", "--top", "2", path).stdout
    assert len(re.findall(r"^order \d+ ", shown, re.MULTILINE)) == 2
    assert f"… and {len(kinds) - 2} more groups" in shown
    assert len(run("--failures", "--top", "2", "--json", path).stdout.splitlines()) == 2
    shown = run("--failures", path).stdout
    assert shown.split()[:6] == ["reason", "zones", "order", "calls", "worst", "callers"]
    assert len(re.findall(r"^order \d+ ", shown, re.MULTILINE)) == 5
    assert "more groups" not in run("--failures", "--top", str(len(kinds)), path).stdout


def test_sample_is_scaled_and_marked(tmp_path: Path) -> None:
    """Totals of a sample are scaled up and marked as estimates; shares and the verdict are those of the rows."""
    rows = [{"order": 1}, {"order": 1}, {"order": 0, "page": False}, {"order": 1}]
    plain_data = report(traces.stream(tmp_path / "plain.arrows", *rows))
    path = traces.stream(tmp_path / "t.arrows", *rows, recording={"filters": {"sample": 100}})
    data = report(path)
    assert (plain_data["estimated"], plain_data["sample"]) == (False, 1)
    assert (data["estimated"], data["sample"], data["lost"]) == (True, 100, 0)
    for key in ("allocations", "pages", "bytes", "failed"):
        assert data[key] == 100 * plain_data[key]
    for name, table in data["by"].items():
        for row, unscaled in zip(table["rows"], plain_data["by"][name]["rows"], strict=True):
            assert (row["count"], row["pages"]) == (100 * unscaled["count"], 100 * unscaled["pages"])
            assert row["share"] == unscaled["share"]
    assert data["verification"] == plain_data["verification"]
    shown = run(path).stdout
    assert "totals, estimated from 1 call in 100" in shown
    assert "~count" in shown
    assert "an estimate: the recorded number times 100" in shown
    assert "~" not in run(tmp_path / "plain.arrows").stdout


def test_filters_are_shown(tmp_path: Path) -> None:
    """The header lists each filter, with the recorded kernel's names; unset filters are not mentioned."""
    filters = {
        **dict.fromkeys(("pid", "order", "gfp_none", "zone", "sample", "max_rate")),
        "comm": "make",
        "gfp_any": 0xCC0,
        "gfp_all": 0x400,
        "nid": 1,
        "alloc_flags": 0x800,
        "failed": True,
    }
    shown = run(traces.stream(tmp_path / "t.arrows", {}, recording={"filters": filters})).stdout
    head = " ".join(shown[: shown.index("totals")].split())
    assert "filters comm make; any of gfp 0xcc0 GFP_KERNEL; all of gfp 0x400 __GFP_DIRECT_RECLAIM; node 1;" in head
    assert "ALLOC_KSWAPD; failures only" in head
    assert "all processes" not in head
    for name in ("pid", "order", "none of gfp", "zone", "sample", "at most"):
        assert f"{name} " not in head[head.index("filters") :]


def test_groups_as_text() -> None:
    """The sums come first, then the largest groups, and what is left; no line is wider than a pipe's sheet."""
    done = run("--by", "gfp,order", "--sort", "bytes", "--top", "3", TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    head, blank, heading, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"[\d,]+ calls, [\d,.]+ MiB, \d+ failed: \d+ groups by gfp, order", head)
    assert (blank, heading.split()) == ("", ["gfp", "order", "calls", "size", "failed", "slow", "path"])
    assert rows[-1].startswith("other (")
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_groups_as_json() -> None:
    """All groups without --top, the first ones with it; each has its type first."""
    every = [json.loads(line) for line in run("--by", "order", "--json", TRACE).stdout.splitlines()]
    assert {one["type"] for one in every} == {"group"}
    assert [one["calls"] for one in every] == sorted((one["calls"] for one in every), reverse=True)
    assert sum(one["calls"] for one in every) == report(TRACE)["allocations"]
    assert len(run("--by", "order", "--json", "--top", "1", TRACE).stdout.splitlines()) == 1
    ranged = run("--by", "order", "--json", "--order", "1-", TRACE).stdout.splitlines()
    assert [json.loads(line) for line in ranged] == [one for one in every if one["by"]["order"] >= 1]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--sort", "bytes"), "--sort has no effect alone"),
        (("--failed",), "--failed has no effect alone"),
        (("--slower-than", "1"), "--slower-than has no effect alone"),
        (("--by", "gfp", "--failures"), "--by does not go with --failures"),
        (("--by", "nonsense"), "'nonsense' is not one of comm, pid"),
        (("--by", "gfp,"), "'' is not one of comm, pid"),
        (("--by", "gfp", "--order", "3:4"), "'3:4' is not an order"),
        (("--by", "gfp", "--gfp", "GFP_NONESUCH"), "GFP_NONESUCH"),
        (("--by", "gfp", "--slower-than", "1"), "cannot select slow calls"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_questions_that_are_refused(words: tuple[str, ...], what: str) -> None:
    """Three lines on standard error, exit code 2, nothing printed."""
    done = run(*words, TRACE)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr
    assert len(done.stderr.splitlines()) == 3
