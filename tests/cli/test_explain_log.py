# SPDX-License-Identifier: MIT
"""`kalloctrace explain LOG` as people and scripts run it."""

import bz2
import gzip
import hashlib
import json
import lzma
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
    assert [line.split()[1].strip(",;") for line in text.split("\n") if line.startswith("line ")] == ["2", "22"]
    assert "order 0 (4 kB)" in text
    assert "too few free pages" in " ".join(text.split())
    assert "any one of these would have let it pass:" in text
    assert "is not advice" in text
    assert text.index("harmful?") < text.index("why ") < text.index("verdict") < text.index("any one of these")
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
        *("suppressed", "findings", "order_shown"),
        *("caller", "harm", "harm_why", "harm_certainty", "harm_line", "out_of_memory", "out_of_memory_why", "holders"),
        *("advice", "known_bugs"),
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


@pytest.mark.parametrize("option", [("--nid", "0"), ("--context", "task"), ("--cpusets",), ("--batch", "-")])
def test_options_of_a_single_request(option: tuple[str, ...]) -> None:
    """What describes a single request does not go with a log."""
    done = run(LOG, *option)
    assert done.returncode == 2
    assert option[0].encode() in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--gfp", "0x"),
        ("--gfp", "1|GFP_KERNEL"),
        ("--order", "-1"),
        ("--order", "99"),
        ("--page-size", "5k"),
    ],
)
def test_values_that_complete_no_log(option: str, value: str) -> None:
    """A mask, order or page size that cannot be is wrong usage, named on three lines."""
    done = run(LOG, option, value)
    assert done.returncode == 2
    what, why, fix = done.stderr.decode().splitlines()
    assert what.startswith("error: ")
    assert value in what
    assert (why[:7], fix[:7]) == ("  why: ", "  fix: ")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--page-size", "4k", "--kernel", "6.1", "--gfp", "0", "--order", "0"), "--page-size needs a log"),
        (("--html", "p.html", "--kernel", "6.1"), "--html needs a log"),
        (("--html", "p.html", "--json", LOG), "--html does not go with --json"),
        (("--force", LOG), "--force has no effect alone"),
        (("--html", "p.html", "--term", "index"), "--html does not go with --term"),
    ],
)
def test_options_of_logs(words: tuple[str, ...], named: str) -> None:
    """What belongs to logs needs one; a page is written or JSON printed, not both."""
    done = run(*words)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"error: {named}")
    assert len(done.stderr.splitlines()) == 3


def test_a_name_that_no_kernel_has() -> None:
    """The log's kernel is not known before it is read, so no kernel is named."""
    assert run(LOG, "--gfp", "GFP_KERNL").stderr.decode().splitlines() == [
        "error: cannot read 'GFP_KERNL'",
        "  why: no kernel has a gfp flag of that name",
        "  fix: did you mean GFP_KERNEL or GFP_USER or GFP_KERNEL_ACCOUNT?",
    ]


def test_language_without_a_term() -> None:
    """It is refused, also with a log."""
    for words in ((LOG,), ("--kernel", "6.1", "--gfp", "0", "--order", "0")):
        done = run("--lang", "en", *words)
        assert done.returncode == 2
        assert done.stderr.decode().startswith("error: --lang needs --term")


def test_mask_that_the_log_lacks() -> None:
    """--gfp completes a report whose mask is missing; a printed mask holds."""
    text = Path(LOG).read_bytes()
    cut = text.replace(b", mode:0x", b", mode:?")
    plain, completed, printed = (
        json.loads(run("--json", *words, "-", stdin=log).stdout.splitlines()[0])["gfp_text"]
        for words, log in (((), cut), (("--gfp", "GFP_NOWAIT"), cut), (("--gfp", "GFP_NOWAIT"), text))
    )
    assert (plain, completed) == (None, "GFP_NOWAIT")
    assert printed.startswith("GFP_NOFS")


def test_many_logs() -> None:
    """A folder is a table of kinds, with the logs of each; alike failures of two logs are in one row."""
    Path("logs/old").mkdir(parents=True)
    for name in ("logs/kern.log", "logs/old/kern.log.1"):
        shutil.copy("made-two-nodes.log", name)
    Path("logs/empty.log").write_text("nothing here\n")
    done = run("logs")
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "4 failures in 2 of 3 logs"
    assert [line.split()[:6] for line in lines if "7.3.4" in line] == [
        ["2", "2", "page", "allocation", "failure", "3"],
        ["2", "2", "page", "allocation", "stall", "0"],
    ]


def test_objects_of_many_logs() -> None:
    """They come in the order of the arguments, those of a folder by name, each file once."""
    Path("logs").mkdir()
    for name in ("b.log", "a.log"):
        shutil.copy("memcg-oom.log", Path("logs", name))
    done = run("--json", "made-two-nodes.log", "-", "logs", "logs/b.log", stdin=Path("memcg-oom.log").read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["log"] for one in found] == ["made-two-nodes.log"] * 2 + ["-", "logs/a.log", "logs/b.log"]


def test_log_that_cannot_be_read() -> None:
    """Of many logs it is named, the others are explained, and the exit code is 1; a pipe in a folder is left out."""
    Path("logs").mkdir()
    shutil.copy("memcg-oom.log", "logs")
    os.mkfifo("logs/pipe")
    Path("logs/gone").symlink_to("nowhere")
    done = run("--json", "logs", "none.log")
    assert done.returncode == 1
    assert [json.loads(line)["log"] for line in done.stdout.splitlines()] == ["logs/memcg-oom.log"]
    assert done.stderr.decode().splitlines() == [
        "error: cannot read none.log",
        "  why: No such file or directory",
        "  fix: check the path and its permissions",
    ]


def test_folder_without_files() -> None:
    """It is named on three lines."""
    Path("logs").mkdir()
    done = run("logs")
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[0] == "error: no log in logs"


def test_alike_failures() -> None:
    """They are explained once, with their number; of many groups there is a table, and the most frequent follow."""
    text = Path("6.19-boosted.log").read_bytes()
    done = run("-", stdin=text * 400)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().count("any one of these") == 1
    assert b"400 alike, lines 2 to " in done.stdout
    orders = b"".join(text.replace(b"order:0", b"order:%d" % order) for order in range(1, 13))
    lines = run("-", stdin=orders + text * 2).stdout.decode().splitlines()
    assert lines[1].split()[:5] == ["2", "1", "page", "allocation", "0"]
    assert lines[2].split()[0] == "failure"
    assert "the 10 most frequent of 13 groups; --json has all:" in lines
    assert sum(line.startswith("line ") or " alike, " in line for line in lines) == 10


def test_page_of_logs() -> None:
    """--html writes one file, also if a log cannot be read; an existing one needs -f."""
    done = run("--html", "p.html", LOG, "none.log")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines()[-1] == "wrote p.html; open it in a browser"
    assert b"GFP_NOFS" in Path("p.html").read_bytes()
    assert run("--html", "p.html", LOG).returncode == 1
    assert run("--html", "p.html", "-f", LOG).returncode == 0


def test_page_on_standard_output() -> None:
    """--html - prints the page, and makes no file of that name."""
    done = run("--html", "-", LOG)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"<!doctype html>")
    assert not Path("-").exists()


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, bz2.compress])
def test_damaged_compressed_log(compress: Callable[[bytes], bytes]) -> None:
    """What could be read is answered, as of a log that ends there; then comes the error, and the exit code is 1."""
    # bzip2 has blocks of 900 kB, of which it gives all or nothing.
    more = "\n".join(hashlib.sha512(b"%d" % at).hexdigest() for at in range(20_000))
    data = compress(Path(LOG).read_bytes() + more.encode())
    Path("cut.log").write_bytes(data[: len(data) * 9 // 10])
    for words in ((), ("--json",), ("--html", "cut.html")):
        done = run(*words, "cut.log")
        assert done.returncode == 1
        what, why, fix = done.stderr.decode().splitlines()[-3:]
        assert what == "error: cannot read all of cut.log"
        assert "damaged or cut off" in why
        assert fix.startswith("  fix: ")
        text = done.stdout or Path("cut.html").read_bytes()
        assert b"GFP_NOFS" in text


def test_kernel_that_is_not_known() -> None:
    """What is no release, or one to come, is wrong usage."""
    assert run("--kernel", "foo", LOG).returncode == 2
    assert run("--kernel", "9.9", LOG).returncode == 2


def test_old_kernel() -> None:
    """--kernel takes an old release; without one the zone is known all the same: the zone modifiers never moved."""
    text = (
        b"swapper: page allocation failure. order:0, mode:0x20\n"
        b"Node 0 DMA free:8000kB min:40kB low:50kB high:60kB present:16384kB\n"
        b"lowmem_reserve[]: 0 3000 4000 4000\n"
        b"Node 0 DMA32 free:100kB min:6000kB low:7500kB high:9000kB present:3072000kB\n"
        b"lowmem_reserve[]: 0 0 1000 1000\n"
    )
    answers = [json.loads(run("--json", *kernel, "-", stdin=text).stdout) for kernel in ((), ("--kernel", "2.6.32"))]
    assert [answer["highest_zone"] for answer in answers] == ["Normal", "Normal"]
    assert [answer["zones"][0]["verdict"] for answer in answers] == ["watermark", "watermark"]


def test_documented_answer() -> None:
    """docs/en/page-allocation-failure.md shows what the program prints."""
    page = (Path(__file__).parents[2] / "docs" / "en" / "page-allocation-failure.md").read_text()
    shown = page.split("made-two-nodes.log\n")[1].split("…\n```")[0]
    assert run("made-two-nodes.log").stdout.decode().startswith(shown)


def test_help_names_the_log() -> None:
    """The help has an example with a log."""
    assert b"dmesg | kalloctrace explain -" in run("--help").stdout


def test_traces_are_no_logs() -> None:
    """A trace is named; in a folder it is left out."""
    trace = next((Path(__file__).parents[2] / "fixtures" / "6.12").glob("*.arrows"))
    done = run(str(trace))
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[1] == "  why: it is a trace"
    Path("logs").mkdir()
    shutil.copy(trace, "logs")
    shutil.copy("memcg-oom.log", "logs")
    done = run("--json", "logs")
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, b"")


def test_what_is_not_read_is_said_of_each_log() -> None:
    """Of many logs a line that is too long, or damage, is named with its log, in their order."""
    Path("logs").mkdir()
    for name in ("b.log", "a.log"):
        Path("logs", name).write_bytes(b"x" * 20_000 + b"\n" + Path("memcg-oom.log").read_bytes())
    done = run("--json", "logs")
    assert done.returncode == 0
    assert [line.split(": ")[0] for line in done.stderr.decode().splitlines()] == ["logs/a.log", "logs/b.log"]


def runs(pid: str) -> bool:
    """Return whether a process runs; a dead one may wait for a parent that asks for it."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor reads one log after the other")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_ended_while_it_reads_many_logs(end: signal.Signals) -> None:
    """No process is left behind, whatever ends the program."""
    for number in range(2):
        os.mkfifo(f"p{number}")
    program = [sys.executable, "-m", "kalloctrace", "explain", "p0", "p1"]
    writers = [os.open(f"p{number}", os.O_RDWR) for number in range(2)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        try:
            children = Path(f"/proc/{done.pid}/task/{done.pid}/children")
            deadline = time.monotonic() + 30
            while len(found := children.read_text().split()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            done.send_signal(end)
            assert done.wait(20) == (130 if end == signal.SIGINT else -end)
            while any(runs(child) for child in found):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            done.kill()
            for writer in writers:
                os.close(writer)
