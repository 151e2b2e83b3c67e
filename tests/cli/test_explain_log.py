# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG` as people and scripts run it."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "unit" / "data" / "failures"
LOG = "6.19-lowmem-reserve.log"


@pytest.fixture(autouse=True)
def _in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in DATA.glob("*.log"):
        shutil.copy(path, tmp_path)


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "explain", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_text() -> None:
    """A log file gets, for each failure, a sentence, a row a zone, and what would have helped."""
    done = run(LOG)
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode()
    assert text.count("line ") == 2
    assert "order 0 (4 kB)" in text
    assert "too few free pages" in text
    assert "any one of these would have let it pass:" in text
    assert "\x1b" not in text


def test_json_from_standard_input() -> None:
    """With - the log comes from standard input; --json prints one object a line, for each group of alike failures."""
    done = run("--json", "-", stdin=Path(LOG).read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["type"], first["line"], second["line"]) == ("failure", 2, 22)
    assert set(first) == {
        *("type", "line", "event", "comm", "kernel", "rules", "order", "gfp", "gfp_text", "nodemask", "mems_allowed"),
        *("highest_zone", "alloc_flags", "conclusion", "certainty", "summary", "zones", "remedies", "missing"),
        *("contradictions", "log", "count", "lines", "first", "last", "first_text", "last_text", "constraint"),
    }
    assert set(first["zones"][0]) == {
        *("node", "zone", "verdict", "excluded_by", "certainty", "unless", "passes_if", "why", "free_kb", "min_kb"),
        *("boost_kb", "lowmem_reserve", "free_blocks"),
    }
    assert set(second["remedies"][0]) == {"change", "node", "zone", "value", "text"}


def test_kernel_option() -> None:
    """--kernel judges by another release than the log names."""
    done = run("--json", "--kernel", "5.10", LOG)
    assert json.loads(done.stdout.splitlines()[0])["kernel"] == "5.10"


def test_kernel_of_a_trace() -> None:
    """--kernel takes a trace, whose own tables then hold."""
    trace = next((Path(__file__).parents[2] / "fixtures" / "6.12").glob("*.arrows"))
    done = run("--json", "--kernel", str(trace), LOG)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.splitlines()[0])["kernel"].startswith("6.12.")


def test_bytes_of_any_encoding() -> None:
    """A log may hold bytes that are no text."""
    done = run("-", stdin=b"\xff\x00 noise \xfe\n" + Path(LOG).read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")


def test_pasted_into_a_terminal() -> None:
    """On a terminal the program prints how to end the pasted text."""
    ours, theirs = pty.openpty()
    program = [sys.executable, "-m", "kalloctrace", "explain", "-"]
    with subprocess.Popen(program, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stderr is not None
        assert b"paste the log; Ctrl-D" in done.stderr.readline()
        os.write(ours, b"x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1\n\x04")
        assert done.stdout is not None
        assert b"SysRq f" in done.stdout.read()
    os.close(ours)
    os.close(theirs)


def test_no_failure() -> None:
    """Text without a failure is an error of three lines."""
    done = run("-", stdin=b"[    0.000000] Linux version 6.12\n")
    assert done.returncode == 1
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0].strip() for line in lines] == ["error", "why", "fix"]


def test_missing_file() -> None:
    """A file that is not there is named."""
    done = run("none.log")
    assert done.returncode == 1
    assert b"none.log" in done.stderr


@pytest.mark.parametrize("option", [("--gfp", "0xcc0"), ("--order", "0"), ("--cpusets",), ("--batch", "-")])
def test_options_of_a_single_request(option: tuple[str, ...]) -> None:
    """What describes a single request does not go with a log."""
    done = run(LOG, *option)
    assert done.returncode == 2
    assert option[0].encode() in done.stderr


def test_kernel_that_is_not_known() -> None:
    """What is no release, or one to come, is wrong usage."""
    assert run("--kernel", "foo", LOG).returncode == 2
    assert run("--kernel", "9.9", LOG).returncode == 2


def test_old_kernel() -> None:
    """--kernel takes an old release if the log names none: its zones are known, its flags are not."""
    text = (
        b"swapper: page allocation failure. order:0, mode:0x20\n"
        b"Node 0 DMA free:8000kB min:40kB low:50kB high:60kB present:16384kB\n"
        b"lowmem_reserve[]: 0 3000 4000 4000\n"
        b"Node 0 DMA32 free:100kB min:6000kB low:7500kB high:9000kB present:3072000kB\n"
        b"lowmem_reserve[]: 0 0 1000 1000\n"
    )
    answers = [json.loads(run("--json", *kernel, "-", stdin=text).stdout) for kernel in ((), ("--kernel", "2.6.32"))]
    assert [answer["highest_zone"] for answer in answers] == [None, "Normal"]
    assert [answer["zones"][0]["verdict"] for answer in answers] == ["unknown", "watermark"]


def test_documented_answer() -> None:
    """docs/page-allocation-failure.md shows what the program prints."""
    page = (Path(__file__).parents[2] / "docs" / "page-allocation-failure.md").read_text()
    shown = page.split("made-two-nodes.log\n")[1].split("…\n```")[0]
    assert run("made-two-nodes.log").stdout.decode().startswith(shown)


def test_help_names_the_log() -> None:
    """The help has an example with a log."""
    assert b"dmesg | kalloctrace explain -" in run("--help").stdout
