# SPDX-License-Identifier: MIT
"""Output generated from the command-line parser: --help, manual pages, shell completion."""

import contextlib
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kalloctrace.cli import COMMANDS, cli
from kalloctrace.manual import manual_page, pages

PAGES = dict(pages(cli, "kalloctrace"))
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(?:3[0-8]|4[0-8]|9\d|10\d)(?:;[0-9;]*)?m")
LEAVES = [name for name, context in PAGES.items() if not isinstance(context.command, click.Group)]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def options(context: click.Context) -> list[str]:
    """Return every option of a command."""
    return [
        name
        for parameter in context.command.get_params(context)
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in parameter.opts
    ]


def test_every_command_has_a_page() -> None:
    """The program, each command and each command of the lab have a page."""
    assert {f"kalloctrace-{name}" for name in COMMANDS} < set(PAGES)
    assert {"kalloctrace", "kalloctrace-lab-run", "kalloctrace-lab-fetch", "kalloctrace-lab-kernels"} < set(PAGES)


@pytest.mark.parametrize("name", LEAVES)
def test_help_has_examples(name: str) -> None:
    """The help of each command shows what to type, and each example begins with the command."""
    text = PAGES[name].command.help or ""
    command = PAGES[name].command_path
    lines = [line.strip() for line in text.splitlines()]
    assert "Examples:" in lines
    assert any(command in line for line in lines[lines.index("Examples:") + 1 :])


@pytest.mark.parametrize("name", PAGES)
def test_page_lists_each_option(name: str) -> None:
    """A manual page has its parts, and every option that the parser takes."""
    plain = manual_page(name, PAGES[name], "1.0").replace("\\-", "-")
    for part in (".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXIT STATUS", ".SH SEE ALSO"):
        assert part in plain
    assert [option for option in options(PAGES[name]) if option not in plain] == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_page_is_roff_without_a_warning(name: str) -> None:
    """Groff formats each page, and warns only about lines that are too long for their column."""
    page = manual_page(name, PAGES[name], "1.0")
    done = subprocess.run(
        ["groff", "-Kutf8", "-man", "-Tutf8", "-ww", "-z"], input=page, capture_output=True, text=True, check=True
    )
    assert [line for line in done.stderr.splitlines() if "cannot adjust line" not in line] == []


def test_the_program_prints_a_page() -> None:
    """`man` prints the page of the named command, or its own."""
    for words, title in ((["lab", "run"], "KALLOCTRACE\\-LAB\\-RUN"), ([], "KALLOCTRACE")):
        done = run("man", *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f'.TH "{title}" "1"')


def test_pages_are_written_and_not_overwritten(tmp_path: Path) -> None:
    """-o writes all pages into a new folder, and replaces none without -f."""
    folder = tmp_path / "man" / "man1"
    assert run("man", "-o", str(folder)).returncode == 0
    assert {path.stem for path in folder.iterdir()} == set(PAGES)
    again = run("man", "-o", str(folder))
    assert (again.returncode, again.stdout) == (1, "")
    assert "exists" in again.stderr
    assert run("man", "-f", "-o", str(folder)).returncode == 0


@pytest.mark.parametrize("words", [["nothing"], ["-o", "folder", "verify"]])
def test_wrong_page(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown command is wrong usage, and so is a command with -o; nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = run("man", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """Each shell gets a script that calls the program."""
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_KALLOCTRACE_COMPLETE={shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["kalloctrace", "ver"], {"verify"}),
        (["kalloctrace", "explain", "--de"], {"--defrag-mode"}),
        (["kalloctrace", "explain", "--context", "h"], {"hardirq"}),
        (["kalloctrace", "lab", "r"], {"run"}),
    ],
)
def test_completion_answers(words: list[str], answers: set[str]) -> None:
    """Commands, options and their values are completed."""
    done = run(COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1), _KALLOCTRACE_COMPLETE="bash_complete")
    assert done.returncode == 0
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == answers


def test_bash_takes_the_script(tmp_path: Path) -> None:
    """Bash sources the script and registers the completion."""
    script = tmp_path / "kalloctrace.bash"
    script.write_text(run("completion", "bash").stdout, encoding="utf-8")
    done = subprocess.run(
        ["bash", "-c", f"source {script} && complete -p kalloctrace"], capture_output=True, text=True, check=True
    )
    assert "kalloctrace" in done.stdout


WITHOUT_JSON = {
    "completion": "its result is a script",
    "export": "its result is a file of the requested format",
    "lab-fetch": "it prints a path",
    "lab-run": "its output is the command's own",
    "man": "its result is a page",
    "monitor": "its results are traces",
    "prebuild": "its results are programs",
    "serve-metrics": "Prometheus has a format of its own",
}


@pytest.mark.parametrize("name", LEAVES)
def test_results_are_available_as_json(name: str) -> None:
    """Every command with text output also prints JSON; the exceptions are listed with their reasons."""
    has = "--json" in options(PAGES[name])
    assert has == (name.removeprefix("kalloctrace-") not in WITHOUT_JSON)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Run the program on a pseudo-terminal, and return what it printed."""
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", *arguments],
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "PAGER": "cat", "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(terminal)
        printed = b""
        # Linux ends a terminal whose other end is closed with an error.
        with contextlib.suppress(OSError):
            while part := os.read(main, 1 << 16):
                printed += part
        process.wait(timeout=60)
    os.close(main)
    return printed.decode()


@pytest.mark.parametrize(
    "arguments",
    [["doctor"], ["explain", "--kernel", "5.10", "--gfp", "1", "--order", "0"], ["explain", "--term", "ALLOC_CPUSET"]],
)
def test_colour_only_on_a_terminal_and_without_no_color(arguments: list[str]) -> None:
    """A terminal gets colour or bold, a pipe none, and a terminal with NO_COLOR no colour."""
    assert "\x1b[" in on_a_terminal(*arguments)
    assert "\x1b" not in run(*arguments, CLICOLOR="1", TERM="xterm-256color").stdout
    assert COLOUR.search(on_a_terminal(*arguments, NO_COLOR="1")) is None
