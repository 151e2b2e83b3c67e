# SPDX-License-Identifier: MIT
"""Text from traces, logs, file names and arguments can neither act on a terminal nor begin a line, in any command.

Every command and option comes from the parser, so that a new one takes part. Hostile texts are a recording of an
attacker (`tests/data/untrusted`) and twins of it with other texts.
"""

import csv
import io
import itertools
import json
import os
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kalloctrace.cli import cli, main
from kalloctrace.console import guard_tracebacks
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.probe.checks import Check
from kalloctrace.report.metrics.prometheus import RecordingCollector
from kalloctrace.report.metrics.source import TraceSource
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.writer import TraceWriter
from tests.terminal import on_terminal
from tests.traces import slow_calls

DATA = Path(__file__).parents[1] / "data" / "untrusted"
TRACE, LOG = DATA / "inject-st.arrows", DATA / "log-inject.txt"

ATTACK = (
    "FOREIGN\x1b[2J\x1b]8;;http://e/\x07L\x1b]52;c;AAAA\x07\x9b31m\u202eRTL\u2066\u2028[red]R[/red][link=http://e]l"
    "\nnot ok 1 - forged\rok 2 forged # SKIP\n=cmd|'/c calc'!A1;a\x00\x7f\u200b\U000e0041\t\ufe0f"
)
ARGUMENT = ATTACK.replace("\0", "")
"""No argument of a program holds a NUL."""
TWINS = {
    "everything": ATTACK,
    "bidi": "FOREIGN\u202e\u2066\u200f\u061c",
    "lines": "FOREIGN\nnot ok 1 - x\r\nok 2\x85error: x\u2029[bold]b[/bold]",
    "long": "FOREIGN " + "not ok 1 " * 1100,
    "wide": "FOREIGN" + "漢" * 60 + " not ok 1 " + "漢" * 60 + "not ok 2",
}
OURS = re.compile(r"\x1b\[(?:0|1|2|3[0-7]|4[0-7]|[0-9;]*;[0-9;]*)?m")
"""Select Graphic Rendition, which cannot do more than colour."""
FORGED = ("FOREIGN", "not ok 1 - ", "not ok 1 not", "ok 2 forged", '{"type":"x"', "[red]")

# These would record, boot or serve. Their arguments here are refused when they are parsed.
REFUSED = {
    "bench": ["bench", ARGUMENT],
    "prebuild": ["prebuild", "--kernel", "x", "--cpus", ARGUMENT],
    "record": ["record", "--pid", ARGUMENT],
    "lab run": ["lab", "run", "--cpus", ARGUMENT, "--kernel", "x", "--", "true"],
    "lab fetch": ["lab", "fetch", ARGUMENT],
    "lab kernels": ["lab", "kernels", ARGUMENT],
    "doctor": ["doctor", ARGUMENT],
    "serve-metrics": ["serve-metrics", "--port", ARGUMENT],
}
DATA_FOR_PROGRAMS = {"folded"}
"""Formats whose lines begin with a name by definition."""


def arguments(trace: str) -> dict[str, list[list[str]]]:
    """Return arguments for every other command, with hostile inputs."""
    log, text = str(LOG), f"0x{ARGUMENT}"
    return {
        "completion": [["completion", "bash"], ["completion", "zsh"], ["completion", "fish"], ["completion", ARGUMENT]],
        "decode": [
            ["decode", "0xffffffff", "--kernel", trace],
            ["decode", text],
            ["decode", "--kernel", ARGUMENT, "1"],
        ],
        "diff": [["diff", trace, str(TRACE)], ["diff", trace, ARGUMENT]],
        "explain": [
            ["explain", "--machine", trace, "--gfp", "0xffffff", "--order", "1"],
            ["explain", "--kernel", trace, "--gfp", "0xcc0", "--order", "1"],
            ["explain", log],
            ["explain", "--kernel", trace, log],
            ["explain", ARGUMENT],
        ],
        "export": [["export", trace], ["export", ARGUMENT]],
        "fleet add": [["fleet", "add", "fleet", trace, log, ARGUMENT], ["fleet", "add", ARGUMENT, trace]],
        "fleet compact": [["fleet", "compact", "fleet"], ["fleet", "compact", ARGUMENT]],
        "fleet diff": [
            ["fleet", "diff", "fleet", "--kernel", "5.10", "--kernel", ARGUMENT],
            ["fleet", "diff", ARGUMENT, "--kernel", "5.10", "--kernel", "6.1"],
        ],
        "fleet outliers": [["fleet", "outliers", "fleet"], ["fleet", "outliers", ARGUMENT]],
        "fleet report": [["fleet", "report", "fleet"], ["fleet", "report", ARGUMENT]],
        "fleet sql": [["fleet", "sql", "fleet", "FROM recordings"], ["fleet", "sql", "fleet", ARGUMENT]],
        "fleet verify": [["fleet", "verify", "fleet"], ["fleet", "verify", ARGUMENT]],
        "import": [["import", log], ["import", ARGUMENT]],
        "live": [["live", "--plain", "--interval", "60", "--replay", trace], ["live", "--plain", "--replay", ARGUMENT]],
        "monitor": [["monitor", "--check-config", "--config", path] for path in (ARGUMENT, log)],
        "man": [["man"], ["man", "verify"], ["man", ARGUMENT]],
        "report": [
            ["report", trace],
            ["report", "--failures", trace],
            ["report", "--slow", "--by", "comm,stack,gfp", trace],
            ["report", "--by", "comm,stack,gfp", trace],
            ["report", ARGUMENT],
        ],
        "verify": [["verify", trace], ["verify", trace, ARGUMENT, str(TRACE)], ["verify", ARGUMENT]],
    }


def leaves(command: click.Command, context: click.Context, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Yield every command that is no group, with its path."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, click.Context(child, info_name=name, parent=context), f"{path} {name}".strip())


COMMANDS = dict(leaves(cli, click.Context(cli)))


def settings(option: click.Parameter, folder: Path) -> list[list[str]]:
    """Return the ways to give an option; a value is hostile, or the type's."""
    if not isinstance(option, click.Option) or option.name == "help":
        return []
    name = option.opts[-1]
    if option.is_flag:
        return [[flag] for flag in (name, *option.secondary_opts[-1:])]
    match option.type:
        case click.Choice():
            return [[name, str(choice)] for choice in option.type.choices]
        case click.IntRange() | click.FloatRange():
            return [[name, str(int(option.type.min or 0) + 1)], [name, ARGUMENT]]
        case click.Path():
            return [[name, str(folder / "out\x1b[31m\nnot ok 1\u202e")], [name, f"{folder}/no/{ARGUMENT}"]]
    return [[name, ARGUMENT], [name, "1"]]


def combinations(command: click.Command, folder: Path) -> Iterator[list[str]]:
    """Yield no option, each one, and each pair of options that have no value of their own."""
    given = [setting for option in command.params for setting in settings(option, folder)]
    small = [setting for setting in given if len(setting) == 1 or "format" in setting[0]]
    yield []
    yield from given
    yield from (first + second for first, second in itertools.combinations(small, 2))


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class _Input(io.TextIOWrapper):
    def isatty(self) -> bool:
        return False


def printed(argv: Sequence[str], *, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code, standard output and standard error."""
    kind = _Terminal if terminal else io.TextIOWrapper
    streams = [kind(io.BytesIO(), "utf-8", "backslashreplace", newline="\n") for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", _Input(io.BytesIO(LOG.read_bytes() + ATTACK.encode())))
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.setattr("kalloctrace.output.files.standard_output", lambda _: _bytes_of(streams[0]))
        # Its cursor movements are ours, and its text is escaped as here.
        patch.setattr("kalloctrace.commands.progress.PATIENCE", 1e6)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "80")
        patch.delenv("NO_COLOR", raising=False)
        code = main(list(argv))
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(errors="replace") for stream in streams)  # type: ignore[attr-defined]
    return code, out, err


class _bytes_of:  # noqa: N801 - a context manager in place of a function
    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def __enter__(self) -> Any:  # noqa: ANN401 - whatever is below the stream
        self._stream.flush()
        return self._stream.buffer

    def __exit__(self, *_: object) -> None:
        self._stream.flush()


def faults(text: str, *, terminal: bool, names_first: bool = False) -> Iterator[str]:
    """Yield what a text does to a terminal or pretends to be."""
    plain = OURS.sub("", text) if terminal else text
    for character in sorted(set(plain) - {"\n", "\t"}):
        if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}:
            yield f"{character!r}"
    for line in plain.split("\n"):
        # What stands below something else is indented; a harness of the kernel also reads indented lines.
        shown = line.lstrip() if plain.startswith("KTAP") else line
        if shown.startswith(FORGED) and not names_first:
            yield line[:100]


@cache
def twin(name: str, folder: Path) -> Path:
    """Return a trace in which every text is a twin of the attacker's."""
    path = folder / f"{name}.arrows"
    text = TWINS[name]
    attack = json.loads(pa.ipc.open_stream(TRACE).schema.metadata[b"kalloctrace.recording"])["started"]

    def swapped(value: Any, text: str = text) -> Any:  # noqa: ANN401 - JSON
        match value:
            case str():
                return value.replace(attack, text)
            case list():
                return [swapped(item, text) for item in value]
            case dict():
                return {swapped(key, text): swapped(item, text) for key, item in value.items()}
        return value

    with TraceReader(TRACE) as reader:
        rows = [swapped(row) for batch in reader.batches() for row in batch.to_pylist()]
        calls = [{**call, "comm": text, "stack": f"{text};f{text}"} for call in slow_calls()[:3]]
        totals = reader.ending().totals
        assert totals is not None
        # The texts of a description have a limit.
        snapshot = Snapshot.from_json(swapped(reader.snapshot.to_json(), text[:200]))
        with TraceWriter(path, snapshot, swapped(reader.recording)) as writer:
            writer.write(pa.RecordBatch.from_pylist(rows, COLUMNS))
            writer.write_slow(calls)
            writer.close(replace(totals, slow=len(calls), reason=text))
    return path


def test_every_command_takes_part() -> None:
    """A new command needs arguments here."""
    assert COMMANDS.keys() == REFUSED.keys() | arguments("").keys()


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_no_option_prints_raw_text(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command with every option, and every pair of flags, over the attacker's files, on a terminal and not."""
    monkeypatch.chdir(tmp_path)
    bases = [REFUSED[path]] if path in REFUSED else arguments(str(TRACE))[path]
    runs = 0
    for base, more in itertools.product(bases, combinations(COMMANDS[path], tmp_path)):
        terminal = runs % 2 == 1
        argv = [*base[: len(path.split())], *more, *base[len(path.split()) :]]
        _, out, err = printed(argv, terminal=terminal, monkeypatch=monkeypatch)
        binary = "perfetto" in argv or "-o" in argv or "--output" in argv
        names_first = not DATA_FOR_PROGRAMS.isdisjoint(argv)
        found = [*([] if binary else faults(out, terminal=terminal, names_first=names_first))]
        found += faults(err, terminal=terminal)
        assert not found, (argv, found)
        runs += 1
    assert runs > 0


def text_commands(trace: Path, *, small: bool = False) -> list[list[str]]:
    """Return the commands that print what a trace contains."""
    name = str(trace)
    first = [
        ["verify", name],
        ["verify", "--ktap", name],
        ["report", "--top", "50", name],
        ["report", "--failures", "--slower-than", "0", name],
        ["report", "--slow", "--by", "comm,stack", name],
        ["export", "--format", "csv", name],
    ]
    return (
        first
        if small
        else [
            *first,
            ["verify", "--json", name],
            ["report", "--json", name],
            ["diff", name, str(TRACE)],
            ["diff", str(TRACE), name],
            ["decode", "--kernel", name, "0xffffffff"],
            ["explain", "--machine", name, "--gfp", "0xffffff", "--order", "1"],
            ["export", "--format", "jsonl", name],
            ["export", "--format", "speedscope", name],
            ["export", "--format", "folded", name],
            *(
                ["live", "--plain", "--interval", "60", *by, "--replay", name]
                for by in ([], ["--by", "task"], ["--stack"])
            ),
        ]
    )


@pytest.mark.parametrize("name", sorted(TWINS))
def test_twins(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other hostile texts, in every place that holds a text, are harmless too."""
    for number, argv in enumerate(text_commands(twin(name, tmp_path))):
        terminal = number % 2 == 0
        code, out, err = printed(argv, terminal=terminal, monkeypatch=monkeypatch)
        names_first = "folded" in argv
        assert not [*faults(out, terminal=terminal, names_first=names_first), *faults(err, terminal=terminal)], argv
        assert code in {0, 1, 4}, err
        assert out or err


def test_the_name_of_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's name may hold anything but a slash, in any encoding."""
    name = os.path.join(os.fsencode(tmp_path), b"x\x1b[2J\nnot ok 1 - \xff\x9b31m\xe2\x80\xae[red].arrows")  # noqa: PTH118 - bytes
    path = Path(os.fsdecode(name))
    path.write_bytes(TRACE.read_bytes())
    for number, argv in enumerate(text_commands(path)):
        terminal = number % 2 == 0
        _, out, err = printed(argv, terminal=terminal, monkeypatch=monkeypatch)
        assert not [*faults(out, terminal=terminal), *faults(err, terminal=terminal)], argv
    path.write_bytes(TRACE.read_bytes()[:60])
    for argv in text_commands(path):
        _, out, err = printed(argv, terminal=True, monkeypatch=monkeypatch)
        assert not [*faults(out, terminal=True), *faults(err, terminal=True)], argv
        assert "error: " in err


def test_a_surrogate_in_the_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON can hold half a character, which no encoding of text can."""
    with TraceReader(TRACE) as reader:
        rows = [batch.to_pylist() for batch in reader.batches()]
        totals = reader.ending().totals
        assert totals is not None
        snapshot = replace(reader.snapshot, release="6.12.0-\ud800", version="\udfff")
        recording = {**reader.recording, "command": ["\ud800"], "started": "\udc9b"}
        with TraceWriter(tmp_path / "half.arrows", snapshot, recording) as writer:
            for batch in rows:
                writer.write(pa.RecordBatch.from_pylist(batch, COLUMNS))
            writer.close(totals)
    exports = [
        ["export", "--format", form, str(tmp_path / "half.arrows")] for form in ("folded", "speedscope", "perfetto")
    ]
    page = ["report", "--html", str(tmp_path / "page.html"), str(tmp_path / "half.arrows")]
    for argv in (*text_commands(tmp_path / "half.arrows"), *exports, page):
        code, out, err = printed(argv, terminal=False, monkeypatch=monkeypatch)
        assert code in {0, 1, 4}, (argv, err)
        assert not [*faults("" if "perfetto" in argv else out, terminal=False), *faults(err, terminal=False)], argv


@pytest.mark.parametrize("number", range(len(text_commands(TRACE, small=True))))
def test_on_a_terminal(number: int, tmp_path: Path) -> None:
    """The real program on a real terminal, with colours, sends nothing but lines and colours."""
    argv = text_commands(twin("everything", tmp_path), small=True)[number]
    with on_terminal([sys.executable, "-m", "kalloctrace", *argv]) as terminal:
        assert terminal.end(60) in {0, 3}
    # The terminal itself ends lines so. A progress bar is ours, and appears only if the machine is slow.
    shown = terminal.printed.decode().replace("\r\n", "\n")
    if "reading" not in shown:
        assert not [*faults(shown, terminal=True)]
    assert "FOREIGN" in shown


def test_cells_are_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that a spreadsheet would compute begins with an apostrophe; numbers stay as they are."""
    names = ["=1+1", "+1", "-bash", "@SUM(A1)", "\t=1", "\r=1", "  =1", "plain", "3-4", "＝1"]
    with TraceReader(TRACE) as reader:
        row = next(row for batch in reader.batches() for row in batch.to_pylist())
        totals = reader.ending().totals
        assert totals is not None
        rows = [{**row, "comm": name, "stack": None, "preferred_nid": -1} for name in names]
        with TraceWriter(tmp_path / "cells.arrows", reader.snapshot, reader.recording) as writer:
            writer.write(pa.RecordBatch.from_pylist(rows, COLUMNS))
            writer.close(replace(totals, opened=len(rows), submitted=len(rows)))
    _, out, _ = printed(
        ["export", "--format", "csv", str(tmp_path / "cells.arrows")], terminal=False, monkeypatch=monkeypatch
    )
    cells = list(csv.DictReader(io.StringIO(out)))
    assert [cell["comm"] for cell in cells] == [
        *("'=1+1", "'+1", "'-bash", "'@SUM(A1)", r"'\t=1", r"'\r=1", "'  =1", "plain", "3-4", "'＝1"),
    ]
    assert {cell["preferred_nid"] for cell in cells} == {"-1"}


def test_messages_of_crashes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback of a programming error may quote a file."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    guard_tracebacks()
    sys.excepthook(RuntimeError, RuntimeError(ATTACK), None)
    err = capsys.readouterr().err
    assert "RuntimeError: FOREIGN" in err
    assert not [*faults(err, terminal=False)]


def test_what_a_check_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` prints what this machine's files hold."""
    check = Check(ATTACK, "warn", ATTACK, ATTACK)
    monkeypatch.setattr("kalloctrace.probe.checks.run_checks", lambda _: [check])
    for terminal, argv in itertools.product((False, True), (["doctor"], ["doctor", "--json"])):
        _, out, err = printed(argv, terminal=terminal, monkeypatch=monkeypatch)
        assert not [*faults(out, terminal=terminal), *faults(err, terminal=terminal)]
        assert "FOREIGN" in out


def test_metrics() -> None:
    """A label holds no line end and no control character, and no series appears twice."""
    registry = CollectorRegistry()
    registry.register(RecordingCollector(TraceSource(TRACE).now))
    text = generate_latest(registry).decode()
    assert not [*faults(text, terminal=False)]
    assert "evil" in text
    samples = [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
