# SPDX-License-Identifier: MIT
"""Words of perf and memray, typing errors, completion of values, and a trace that is not named."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kalloctrace import habits
from kalloctrace.cli import COMMANDS, cli, main
from tests.terminal import on_terminal
from tests.traces import stream

PROGRAM = [sys.executable, "-m", "kalloctrace"]
LOG = Path(__file__).parents[1] / "logs" / "data" / "suppressed.log"
TRACE = Path(__file__).parents[2] / "fixtures" / "6.12" / "slow-stream.arrows"


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("stat", "kalloctrace record -- COMMAND, then kalloctrace report TRACE"),
        ("script", "kalloctrace export --format jsonl TRACE"),
        ("top", "kalloctrace live"),
        ("reprot", "did you mean report"),
        ("recrod", "did you mean record"),
        ("verfiy x", "did you mean verify"),
        ("nonsense", "see all commands: kalloctrace --help"),
        ("report -i x", "kalloctrace report TRACE"),
        ("export -i x", "kalloctrace export TRACE"),
        ("report -g x", "kalloctrace report --by stack TRACE"),
        ("record -g", "kalloctrace record --mode stream --stack"),
        ("record -p 1", "kalloctrace record --pid PID"),
        ("record -a", "leave it out"),
        ("live -a", "leave it out"),
        ("run x.py", "kalloctrace record --children -- COMMAND"),
        ("flamegraph x", "kalloctrace report --html PAGE TRACE"),
        ("table x", "kalloctrace report --by gfp,order TRACE"),
        ("tree x", "kalloctrace report --by stack TRACE"),
        ("summary x", "kalloctrace report TRACE"),
        ("stats x", "kalloctrace report TRACE"),
        ("attach 1", "kalloctrace record --pid PID"),
        ("kmem stat", "kalloctrace report --by stack TRACE"),
        ("record -e kmem:mm_page_alloc -a", "leave it out; filters select calls"),
        ("record -F 99 -- true", "leave it out, or kalloctrace record --sample N"),
        ("live -F 99", "leave it out, or kalloctrace live --sample N"),
        ("record --call-graph fp", "kalloctrace record --mode stream --stack"),
        ("record -C 0", "kalloctrace report --by cpu TRACE"),
        ("record --follow-fork", "kalloctrace record --children -- COMMAND"),
        ("report --stdio x", "leave it out; --html PAGE writes a page"),
        ("report --no-children x", "kalloctrace report --by stack TRACE"),
        ("report -s comm x", "kalloctrace report --by comm --sort bytes TRACE"),
        ("verify -x", "see its options and arguments: kalloctrace verify --help"),
    ],
)
def test_the_command_that_does_it(words: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines and exit code 2; the third is what to type instead."""
    assert main(words.split()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(f"  fix: {fix}")


def test_each_hint_is_needed_and_its_command_exists() -> None:
    """No hint hides a command or an option, and what it names is no error of its own."""
    assert not habits.COMMANDS.keys() & COMMANDS.keys()
    parsers = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
    options = {
        name: {word for part in parser.params if isinstance(part, click.Option) for word in part.opts}
        for name, parser in parsers.items()
        if parser is not None
    }
    assert not [(command, option) for command, option in habits.OPTIONS if option in options[command]]
    hints = [
        *habits.COMMANDS.values(),
        *((why, fix.format(command=command)) for (command, _), (why, fix) in habits.OPTIONS.items()),
    ]
    for _, fix in hints:
        for command, rest in re.findall(r"kalloctrace (\w+)([^,]*)", fix):
            assert command in COMMANDS, fix
            assert set(re.findall(r"(?<!\w)--\w[\w-]*", rest)) <= options[command], fix


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["report", "--by", "comm,o"], ["comm,order", "comm,outcome"]),
        (["report", "--sort", "b"], ["bytes"]),
        (["report", "--gfp", "GFP_KERNEL|__GFP_CO"], ["GFP_KERNEL|__GFP_COMP"]),
        (["explain", "--term", "prep"], ["prepare_alloc_pages"]),
        (["explain", "--term", "GFP_NOI"], ["GFP_NOIO"]),
        (["explain", "--kernel", "li"], ["live"]),
        (["decode", "--kernel", "7.3"], ["7.3"]),
        (["export", "--format", "t"], ["tables"]),
        (["ver"], ["verify"]),
        (["decode", "ALLOC_WMARK_LOW|ALLOC_KS"], ["ALLOC_WMARK_LOW|ALLOC_KSWAPD"]),
        (["decode", "GFP_AT"], ["GFP_ATOMIC"]),
        (["explain", "--task-flags", "PF_MEMALLOC_NOF"], ["PF_MEMALLOC_NOFS"]),
        (["record", "--gfp-all", "GFP_AT"], ["GFP_ATOMIC"]),
        (["record", "--alloc-flags", "ALLOC_KS"], ["ALLOC_KSWAPD"]),
        (["live", "--zone", "DMA"], ["DMA", "DMA32"]),
    ],
)
def test_completion_of_values(words: list[str], expected: list[str]) -> None:
    """A shell gets the values that continue what is typed."""
    environment = {
        "_KALLOCTRACE_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["kalloctrace", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(PROGRAM, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert [line.split(",", 1)[1] for line in done.stdout.splitlines()] == expected


def test_the_newest_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal `report` takes it, and says so; a script must name its trace."""
    monkeypatch.chdir(tmp_path)
    for age, name in enumerate(("new", "old")):
        os.utime(stream(tmp_path / f"{name}.arrows", {}), (1000 - age, 1000 - age))
    (tmp_path / "no-trace.arrows").write_text("x")
    assert main(["report"]) == 2
    assert "Missing argument 'TRACE'" in capsys.readouterr().err
    with on_terminal([*PROGRAM, "report", "--by", "order"], 50, 80) as terminal:
        assert terminal.end(120) == 0
    assert b"reading new.arrows, the newest trace in this folder" in terminal.printed
    assert b"1 call" in terminal.printed


def test_a_folder_without_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be read: exit code 2, and the command that records."""
    monkeypatch.chdir(tmp_path)
    with on_terminal([*PROGRAM, "report"], 50, 80) as terminal:
        assert terminal.end(120) == 2
    assert b"kalloctrace record" in terminal.printed


def test_a_pager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than the terminal goes through $PAGER, in colour and as wide; the rest does not."""
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "paged"\ncat\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", str(pager))
    command = [
        *PROGRAM,
        "report",
        "--by",
        "order",
        str(stream(tmp_path / "t.arrows", *({"order": n} for n in range(9)))),
    ]
    for rows, paged in ((8, True), (40, False)):
        with on_terminal(command, rows, 80, pager=None) as terminal:
            assert terminal.end(120) == 0
        assert (b"paged" in terminal.printed) == paged
        assert b"\x1b[1m" in terminal.printed
        assert b"9 calls" in terminal.printed
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "paged" not in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "explain --term watermarks",
        "explain --full --kernel 6.12 --gfp 0 --order 0",
        f"explain {LOG}",
        f"explain {LOG} {LOG.parent / 'cpuset-oom.log'}",
        f"diff {TRACE} {TRACE}",
        f"diff {LOG} {LOG.parent / 'cpuset-oom.log'}",
        f"explain - < {LOG}",
    ],
)
def test_whatever_is_long_goes_through_the_pager(tmp_path: Path, command: str) -> None:
    """Also what is made of standard input: a pager reads its keys from the terminal of the session."""
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\necho "paged"\ncat >/dev/null\n')
    pager.chmod(0o755)
    line = f"stty rows 4 cols 80; PAGER={pager} {sys.executable} -m kalloctrace {command}"
    session = f"import pty, sys; sys.exit(pty.spawn(['sh', '-c', {line!r}]) >> 8)"
    with on_terminal([sys.executable, "-c", session]) as terminal:
        assert terminal.end(120) == 0
    # On a slow machine it says first how far it has read.
    assert b"paged" in terminal.printed.split()


@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_less_shows_the_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the option that makes it pass them on, unless the user has other options."""
    trace = stream(tmp_path / "t.arrows", *({"order": order} for order in range(9)))
    monkeypatch.delenv("LESS", raising=False)
    with on_terminal([*PROGRAM, "report", "--by", "order", str(trace)], 8, 80, pager="less") as terminal:
        terminal.wait_for(b"9 groups", 120)
        terminal.send(b"q")
        assert terminal.end(120) == 0
    assert b"ESC" not in terminal.printed
    assert b"\x1b[1m" in terminal.printed


@pytest.mark.parametrize("command", [["verify"], ["export", "--format", "csv"]])
def test_a_trace_must_be_named(command: list[str]) -> None:
    """Where its choice would matter later, none is chosen."""
    assert main(command) == 2
