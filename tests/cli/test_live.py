# SPDX-License-Identifier: MIT
"""`kalloctrace live` where its output is not a terminal."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.cli import main
from kalloctrace.commands import live
from tests import played
from tests.terminal import LEFT_SCREEN, on_terminal

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
SLOW = TRACE.parents[1] / "6.12" / "slow-stream.arrows"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    command = [sys.executable, "-m", "kalloctrace", "live", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def objects(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return the JSON objects that it prints."""
    done = run("--json", *arguments)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_intervals_add_up_to_the_trace() -> None:
    """The new calls of all intervals add up to the trace."""
    lines = objects("--replay", TRACE, "--interval", "2")
    totals = [line for line in lines if line["type"] == "live_totals"]
    rows = [line for line in lines if line["type"] == "live"]
    assert len(totals) == 6
    assert totals[-1]["count"] == sum(row["new"] for row in rows) == 26_662
    assert (totals[-1]["matched"], totals[-1]["lost"], totals[-1]["missed"]) == (26_662, 0, 0)
    assert {row["verdict"] for row in rows} == {"ok"}


def test_each_line_of_text_can_be_read_alone() -> None:
    """Each has its time and says what it counts, in which unit; names are the kernel's."""
    done = run("--replay", TRACE, "--interval", "4", "--top", "5")
    assert done.returncode == 0
    blocks = [block.splitlines() for block in done.stdout.split("\n\n") if block.strip()]
    times = ["0:00:04", "0:00:08", "0:00:10"]
    assert [{line.split()[0] for line in block} for block in blocks] == [{time} for time in times]
    for block in blocks:
        head = [line for line in block if "calls/s=" not in line][:-1]
        assert all("calls" in line for line in head)
        assert any("/s in the last" in line for line in head)
        assert any("of the whole trace:  lost 0 calls  missed 0 hits" in line for line in head)
        rows = [line for line in block if "calls/s=" in line]
        assert len(rows) == 5
        assert all(f" {name}=" in line for line in rows for name in ("calls", "gfp", "order", "zone", "verdict"))
        assert block[-1].endswith("more rows")
    assert "gfp=GFP_HIGHUSER_MOVABLE" in done.stdout


def test_count_ends_it() -> None:
    """--count ends it after that many intervals."""
    lines = objects("--replay", TRACE, "--count", "2", "--top", "1")
    assert [line["type"] for line in lines] == ["live_totals", "live"] * 2
    assert lines[-1]["seconds"] == 2.0


def test_mismatch_is_exit_code_3(tmp_path: Path) -> None:
    """The exit code is 3, and the row says MISMATCH."""
    trace = played.trace(tmp_path / "wrong.arrows", wrong=True)
    done = run("--replay", trace, "--by", "task", "--sort", "verdict", "--interval", "9")
    assert done.returncode == 3
    first = next(line for line in done.stdout.splitlines() if "calls/s=" in line)
    assert "comm=sh" in first
    assert first.endswith("verdict=MISMATCH")


def test_stacks_are_lists_innermost_first(tmp_path: Path) -> None:
    """Stacks are the ones that `report` shows."""
    lines = objects("--replay", played.trace(tmp_path / "t.arrows"), "--stack", "--interval", "20")
    assert [line["stack"] for line in lines[1:]] == [played.FAULT.split(";")[::-1], played.FORK.split(";")[::-1]]


def test_filter_chooses_rows() -> None:
    """--filter and --top limit the rows; the totals still cover all."""
    lines = objects("--replay", TRACE, "--interval", "99", "--filter", "order>0 zone=Normal")
    assert lines[0]["count"] == 26_662
    assert lines[1:]
    assert all(line["order"] > 0 and line["zone"] == "Normal" for line in lines[1:])


def test_questions_are_those_of_report() -> None:
    """--failed, --slower-than and --sort answer as `report --by` does; text says what it shows."""
    for question in (["--failed", "--sort", "failed"], ["--slower-than", "0.1", "--sort", "time"], ["--sort", "bytes"]):
        _, *last = objects("--replay", SLOW, "--interval", "999", "--by", "gfp,order", *question)
        command = [sys.executable, "-m", "kalloctrace", "report", "--by", "gfp,order", *question, "--json", str(SLOW)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        groups = [json.loads(line) for line in done.stdout.splitlines()]
        sums = ("bytes", "failed", "slow_ns")
        assert {(row["gfp_mask"], row["order"], row["count"], *(row[sum_] for sum_ in sums)) for row in last} == {
            (group["by"]["gfp_mask"], group["by"]["order"], group["calls"], *(group[sum_] for sum_ in sums))
            for group in groups
        }
        name = {"failed": "failed", "time": "slow_ns", "bytes": "bytes"}[question[-1]]
        values = [row[name] for row in last]
        assert values == sorted(values, reverse=True)
    done = run("--replay", SLOW, "--interval", "999", "--failed", "--slower-than", "0.1", "--filter", "order>0")
    for words in ("only failed calls", "only calls longer than 0.1 ms in the slow path", "filter: order>0"):
        assert f"  rows: {words}\n" in done.stdout
    assert all(
        " failed=" in line and " slow_path_ms=" in line for line in done.stdout.splitlines() if "calls/s=" in line
    )


def test_calls_is_another_word_for_count() -> None:
    """`report --sort calls` has it."""
    assert objects("--replay", SLOW, "--sort", "calls", "-i", "99") == objects(
        "--replay", SLOW, "--sort", "count", "-i", "99"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--slower-than", "1", "--replay", TRACE], 2, "cannot select slow calls"),
        (["--sort", "time", "--replay", TRACE], 2, "cannot sort by time"),
        (["--sort", "pid", "--replay", TRACE], 2, "cannot sort by pid"),
        (["--stack", "--replay", TRACE], 2, "cannot show the stacks"),
        (["--sample", "2", "--replay", TRACE], 2, "--sample does not go with --replay"),
        (["-o", "x.arrows", "--replay", TRACE], 2, "-o does not go with --replay"),
        (["--filter", "oder=1", "--replay", TRACE], 2, "cannot filter by 'oder=1'"),
        (["--replay", "no-such.arrows"], 1, "cannot read no-such.arrows"),
        (["--by", "comm,order", "--sort", "gfp", "--replay", TRACE], 2, "cannot sort by gfp"),
        (["--max-rate", "5"], 2, "cannot watch with --max-rate alone"),
        (["--max-rate", "5", "--by", "comm"], 2, "cannot watch with --max-rate alone"),
    ],
    ids=lambda value: " ".join(map(str, value[:2])) if isinstance(value, list) else "",
)
def test_wrong_usage_is_three_lines(arguments: list[str | Path], code: int, what: str) -> None:
    """The error says what, why and the fix."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"error: {what}")
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize(
    ("by", "mode", "counted_by"),
    [
        ("request", "aggregate", None),
        ("order,gfp", "aggregate", None),
        ("comm", "aggregate", "comm"),
        ("order,comm", "aggregate", "comm"),
        ("comm,pid", "stream", None),
        ("comm,stack", "stream", None),
        ("task", "stream", None),
    ],
)
def test_what_the_kernel_can_count_is_no_stream(
    by: str, mode: str, counted_by: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of tasks are counted as by `record --by comm`."""
    shown: list[live._Show] = []
    monkeypatch.setattr(live, "_record", lambda show, *_, **__: shown.append(show))
    main(["live", "--by", by])
    assert [(show.mode, show.counted_by) for show in shown] == [(mode, counted_by)]


def test_existing_file_is_refused_before_anything_is_attached(tmp_path: Path) -> None:
    """Without -f an existing file is not replaced."""
    path = tmp_path / "mine.arrows"
    path.write_text("mine")
    done = run("-o", path)
    assert done.returncode == 1
    assert "will not overwrite" in done.stderr
    assert path.read_text() == "mine"


def test_reader_that_goes_away_is_no_failure() -> None:
    """A closed pipe ends it, as with `| head -1`."""
    program = f"{sys.executable} -m kalloctrace live --replay {TRACE} --interval 0.1"
    script = f'{program} | head -1; exit "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("way", ["q", "ctrl-c", "SIGTERM", "SIGINT", "SIGHUP"])
def test_screen_leaves_the_terminal_as_it_was(way: str) -> None:
    """SIGINT and SIGTERM end it with exit code 0."""
    keys = {"q": b"q", "ctrl-c": b"\x03"}
    with on_terminal([sys.executable, "-m", "kalloctrace", "live", "--replay", str(TRACE)]) as terminal:
        terminal.wait_for(b"verdict", 30)
        if way in keys:
            terminal.send(keys[way])
        else:
            terminal.process.send_signal(signal.Signals[way])
        assert terminal.end(30) == 0
        assert terminal.restored


def test_screen_ends_after_so_many_intervals() -> None:
    """It ends by itself at the end of the trace."""
    command = [sys.executable, "-m", "kalloctrace", "live", "--replay", str(TRACE), "--count", "1", "--interval", "0.5"]
    with on_terminal(command) as terminal:
        assert terminal.end(30) == 0
        assert terminal.restored


@pytest.mark.parametrize("arguments", [["verify"], ["report"], ["live", "--replay"]], ids=" ".join)
def test_screen_alone_loads_textual(arguments: list[str]) -> None:
    """Other commands, and text output, do not import textual."""
    script = (
        "import sys\nfrom kalloctrace.__main__ import main\n"
        f"code = main({[*arguments, str(TRACE)]})\nassert 'textual' not in sys.modules\nraise SystemExit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("redirected", ["stdin", "stdout", "stderr"])
def test_screen_needs_all_of_the_terminal(redirected: str) -> None:
    """Without a terminal the output is text, which needs no textual."""
    end, theirs = pty.openpty()
    files: dict[str, Any] = {"stdin": theirs, "stdout": theirs, "stderr": theirs, redirected: subprocess.DEVNULL}
    command = [sys.executable, "-m", "kalloctrace", "live", "--replay", str(TRACE), "--interval", "99", "--top", "1"]
    with subprocess.Popen(command, **files) as process:
        assert process.wait(60) == 0
        os.close(theirs)
    printed = os.read(end, 1 << 16) if redirected != "stdout" else b""
    os.close(end)
    assert LEFT_SCREEN not in printed
    assert (b"lost 0" in printed) == (redirected != "stdout")
