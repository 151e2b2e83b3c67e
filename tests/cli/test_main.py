# SPDX-License-Identifier: MIT
"""The whole program on bad input: an exit code and three lines, never a traceback, never a crash."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from kalloctrace.cli import COMMANDS
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS, FORMAT_KEY, SNAPSHOT_KEY
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter

TRACE = Path(__file__).parents[2] / "fixtures/5.10/two-nodes.arrows"
ROWS = 20
FLIPS = 200
FLIPS_A_PROCESS = 50
# The report takes longer and reads the same files in the same way.
REPORTED_FLIPS = 10
READERS = ["verify", "report"]
TRACEBACK = "Traceback"

# Runs commands one by one in one process: which one it died of is the last that it named.
_RUN_MANY = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from kalloctrace.__main__ import main

for arguments in json.load(sys.stdin):
    print(json.dumps(arguments), flush=True)
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        code = main(arguments)
    print(int(code), flush=True)
"""


def run(*arguments: str | Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=folder,
    )


def shell(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, in which "$@" is the program with its arguments."""
    return subprocess.run(
        ["bash", "-c", script, "bash", sys.executable, "-m", "kalloctrace", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_three_lines(text: str) -> None:
    """Check that an error is one line of what, one of why, one of the fix."""
    what, why, fix = text.splitlines()
    assert what.startswith("error: ")
    assert why.startswith("  why: ")
    assert fix.startswith("  fix: ")


def seeded() -> random.Random:
    """Return a source of damage that is the same each time."""
    return random.Random(20_261_123)  # noqa: S311 - no secret is made of it


def small_trace(path: Path) -> Path:
    """Write the first rows of a recorded trace as a trace of their own."""
    with TraceReader(TRACE) as trace:
        totals = trace.ending().totals
        assert totals is not None
        rows = pa.Table.from_batches(list(trace.batches())).slice(0, ROWS).to_pylist()
    with TraceWriter(path, trace.snapshot, trace.recording) as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=COLUMNS))
        writer.close(Totals.from_json({**totals.to_json(), "submitted": ROWS}))
    return path


def foreign_stream(path: Path) -> None:
    """Write an Arrow stream of somebody else's."""
    table = pa.table({"a": [1, 2]})
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def arrow_file(path: Path) -> None:
    """Write an Arrow file, which is no stream."""
    table = pa.table({"a": [1, 2]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def parquet_file(path: Path) -> None:
    """Write a Parquet file."""
    from pyarrow import parquet  # noqa: PLC0415 - for one test only

    parquet.write_table(pa.table({"a": [1, 2]}), str(path))


def with_metadata(path: Path, key: bytes, value: bytes) -> None:
    """Write a trace in which a part of the metadata is another."""
    table = pa.ipc.open_stream(small_trace(path).read_bytes()).read_all()
    changed = table.replace_schema_metadata({**table.schema.metadata, key: value})
    with pa.ipc.new_stream(str(path), changed.schema) as writer:
        writer.write_table(changed)


# How an unreadable file is made, and a word of the reason.
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "No such file"),
    "a folder": (lambda path: path.mkdir(), "irectory"),
    "empty": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("kmalloc: call_site=0x1\n" * 40), "no trace"),
    "one byte": (lambda path: path.write_bytes(b"x"), "no trace"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), "no trace"),
    "random bytes": (lambda path: path.write_bytes(seeded().randbytes(4096)), "no trace"),
    "a picture": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)), "no trace"),
    "another Arrow stream": (foreign_stream, "no trace of kalloctrace"),
    "an Arrow file": (arrow_file, "no trace"),
    "a Parquet file": (parquet_file, "no trace"),
    "a newer format": (
        lambda path: with_metadata(path, FORMAT_KEY, b"3"),
        "its format is 3, this version reads 1 to 2",
    ),
    "a damaged snapshot": (lambda path: with_metadata(path, SNAPSHOT_KEY, b"{"), "damaged"),
    "a snapshot without tables": (lambda path: with_metadata(path, SNAPSHOT_KEY, b'{"release": "5.10"}'), "damaged"),
}


@pytest.mark.parametrize(("make", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_file(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    """A file that is no trace is exit code 1 and three lines, which name the file and the reason."""
    path = tmp_path / "t.arrows"
    make(path)
    done = run("verify", path)
    assert (done.returncode, done.stdout) == (1, "")
    assert_three_lines(done.stderr)
    assert str(path) in done.stderr
    assert reason in done.stderr


@pytest.mark.parametrize("name", ["missing", "text", "a damaged snapshot"])
def test_report_refuses_it_likewise(tmp_path: Path, name: str) -> None:
    """Every command that reads gives the same reason."""
    path = tmp_path / "t.arrows"
    UNREADABLE[name][0](path)
    assert run("report", path).stderr == run("verify", path).stderr


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of a trace, each with one bit flipped at a random place."""
    folder = tmp_path_factory.mktemp("flipped")
    whole = small_trace(folder / "whole.arrows").read_bytes()
    rng = seeded()
    paths = []
    for number in range(FLIPS):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        paths.append(folder / f"{number}.arrows")
        paths[-1].write_bytes(damaged)
    return paths


@pytest.mark.parametrize("first", range(0, FLIPS, FLIPS_A_PROCESS))
def test_flipped_bit(flipped: list[Path], first: int) -> None:
    """Whatever bit of a trace is wrong: no traceback, no crash, and an exit code that means something."""
    paths = flipped[first : first + FLIPS_A_PROCESS]
    commands = [["verify", str(path)] for path in paths]
    commands += [["report", str(path)] for path in paths[:REPORTED_FLIPS]]
    done = subprocess.run(
        [sys.executable, "-c", _RUN_MANY],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    last = done.stdout.splitlines()[-2:]
    assert (done.returncode, done.stderr) == (0, ""), last
    assert {int(code) for code in done.stdout.splitlines()[1::2]} <= {0, 1, 3, 4}


@pytest.mark.parametrize("command", READERS)
def test_reading_writes_nothing(tmp_path: Path, command: str) -> None:
    """A command that reads leaves the trace and the current folder as they were."""
    path = small_trace(tmp_path / "t.arrows")
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert run(command, "t.arrows", folder=tmp_path).returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.arrows"]
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["memorise"],
        ["--frobnicate"],
        ["verify"],
        ["verify", "--frobnicate", "t.arrows"],
        ["report"],
        ["report", "--top"],
        ["report", "one.arrows", "two.arrows"],
        ["export", "t.arrows"],
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: list[str]) -> None:
    """An unknown command or option, or a missing argument, is exit code 2, explained on standard error."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "why", "fix"]


def test_what_is_missing_is_not_refused() -> None:
    """The error for a missing argument says that the command requires it."""
    assert "why: kalloctrace report requires it" in run("report").stderr


def test_no_arguments_show_the_help() -> None:
    """Without a command there is help, and wrong usage."""
    done = run()
    assert done.returncode == 2
    assert "Start here:" in done.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_every_command(option: str) -> None:
    """The help has each command."""
    done = run(option)
    assert (done.returncode, done.stderr) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name: str) -> None:
    """Each command that the program lists is there and explains itself."""
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: kalloctrace {name} ")


@pytest.mark.parametrize("command", READERS)
def test_debug_shows_the_traceback(tmp_path: Path, command: str) -> None:
    """With --debug before the command Python's traceback is there, and the three lines too."""
    done = run("--debug", command, tmp_path / "missing.arrows")
    assert done.returncode == 1
    assert TRACEBACK in done.stderr
    assert "  fix: " in done.stderr


@pytest.mark.parametrize("arguments", [["verify"], ["report"], ["report", "--json"], ["--help"]], ids=" ".join)
def test_closed_pipe_is_silent(arguments: list[str]) -> None:
    """A closed pipe is not a failure, and prints nothing."""
    files = [] if arguments[0].startswith("-") else [TRACE]
    done = shell('"$@" | true; exit "${PIPESTATUS[0]}"', *arguments, *files)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", READERS)
def test_first_line_is_enough(command: str) -> None:
    """With `| head -1` the first line comes out, and the exit code is 0."""
    done = shell('"$@" | head -1; exit "${PIPESTATUS[0]}"', command, TRACE)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["verify"], ["report"], ["--help"]], ids=" ".join)
def test_full_disk(arguments: list[str]) -> None:
    """Output that cannot be written is a failure with its reason, reported once."""
    files = [] if arguments[0].startswith("-") else [TRACE]
    done = shell('"$@" >/dev/full', *arguments, *files)
    assert done.returncode == 1
    assert_three_lines(done.stderr)
    assert "No space left" in done.stderr


@pytest.mark.parametrize("command", READERS)
def test_closed_standard_output(command: str) -> None:
    """A caller that only wants the exit code may close standard output."""
    done = shell('"$@" >&-', command, TRACE)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_offers_commands() -> None:
    """The shell's completion is answered with the commands that begin so."""
    request = {"_KALLOCTRACE_COMPLETE": "bash_complete", "COMP_WORDS": "kalloctrace rep", "COMP_CWORD": "1"}
    program = [sys.executable, "-m", "kalloctrace"]
    done = subprocess.run(program, env={**os.environ, **request}, capture_output=True, check=False, timeout=60)
    assert done.stdout == b"plain,report\n"
