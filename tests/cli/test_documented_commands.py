# SPDX-License-Identifier: MIT
"""Every command in the README and in docs/ is run, or parsed, or tested elsewhere.

A command is a line of a ```console block that starts with "$ ", or with "# " for root. Commands that require root or a
virtual machine (`record`, `lab`, `live` of this machine) are parsed with click's parser; tests/live captures. `make`
runs with --dry-run. tests/cli/test_packages.py tests installations. A shell runs the other commands with a pipe or
redirection; `main` runs the rest, which saves starting Python for each.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from kalloctrace.__main__ import main
from kalloctrace.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^([$#]) (.*)\n((?:(?![$#] ).*\n)*)", re.MULTILINE)
_COMMENT = re.compile(r"\s{2,}#\s.*$|\s+#\s.*$")
# The output of `dmesg` and `journalctl -k` here; the real ones may require root and have no failures.
_LOG = ROOT / "tests/unit/data/failures/made-two-nodes.log"
_EVENTS = ROOT / "tests/unit/data/events/perf.txt"
_WRITTEN = ("-o", "--html")
_MESSAGES = re.compile(r"wrote |next: |[\d,]+ events of ")
"""Messages on standard error of commands that write files."""

TESTED_ELSEWHERE = {
    "apt install python3-bpfcc": "tests/setup",
    "pip install .": "tests/cli/test_packages.py",
    "pipx install .": "tests/cli/test_packages.py",
    "python -m build": "tests/cli/test_packages.py",
    "uv build": "tests/cli/test_packages.py",
    "uv tool install .": "tests/cli/test_packages.py",
}
MAY_FAIL = {"kalloctrace doctor": {0, 1}}
"""`doctor` exits with 1 if this machine cannot be traced."""


def commands() -> dict[str, list[str]]:
    """Return every command without its comment, and the pages that contain it."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                if line.startswith(("$ ", "# ")):
                    found.setdefault(_COMMENT.sub("", line[2:]).strip(), []).append(str(page.relative_to(ROOT)))
    return found


COMMANDS = commands()


def own_words(command: str) -> list[str] | None:
    """Return the words after "kalloctrace" up to a pipe; None for another program's command."""
    words = shlex.split(command.removeprefix("sudo ").replace("$(command -v kalloctrace)", "kalloctrace"))
    for stage in _stages(words):
        if stage[0] == "kalloctrace":
            return stage[1:]
    return None


def _stages(words: list[str]) -> list[list[str]]:
    stages: list[list[str]] = [[]]
    for word in words:
        if word in {"|", ">", "&"}:
            stages.append([])
        else:
            stages[-1].append(word)
    return stages


def is_only_parsed(command: str) -> bool:
    """Return whether a command requires root or a virtual machine."""
    words = own_words(command)
    if words is None:
        return False
    return words[0] in {"bench", "lab", "prebuild", "record"} or (words[0] == "live" and "--replay" not in words)


PARSED = [command for command in COMMANDS if is_only_parsed(command)]
MAKE = [command for command in COMMANDS if command.startswith("make ")]
RUN = [command for command in COMMANDS if command not in {*PARSED, *MAKE, *TESTED_ELSEWHERE}]
IN_A_SHELL = [command for command in RUN if len(_stages(shlex.split(command))) > 1 or "~" in command]
BY_ITSELF = [command for command in RUN if command not in IN_A_SHELL]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the traces and logs that the pages mention, and a home directory."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("contrib", "fixtures", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(_LOG, folder / "kern.log")
    for name in ("demo", "my", "before"):
        shutil.copy(ROOT / "fixtures/5.10/one-node.arrows", folder / f"{name}.arrows")
    shutil.copy(ROOT / "fixtures/5.10/slow.arrows", folder / "slow.arrows")
    assert main(["import", "-o", str(folder / "theirs.arrows"), str(_EVENTS)]) == 0
    shutil.copy(ROOT / "fixtures/5.10/two-nodes.arrows", folder / "after.arrows")
    for path in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions", "bin"):
        (folder / path).mkdir(parents=True)
    programs = {
        "kalloctrace": f'exec {shlex.quote(sys.executable)} -m kalloctrace "$@"',
        "dmesg": f"cat {shlex.quote(str(_LOG))}",
        "journalctl": f"cat {shlex.quote(str(_LOG))}",
        "perf": f"cat {shlex.quote(str(_EVENTS))}",
    }
    for name, line in programs.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize("command", BY_ITSELF)
def test_it_runs(
    command: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints something or writes a file, exits as expected, and prints no errors."""
    monkeypatch.chdir(folder)
    program, *words = shlex.split(command)
    assert program == "kalloctrace"
    code = main(words)
    printed = capsys.readouterr()
    assert code in MAY_FAIL.get(command, {0}), f"{COMMANDS[command]}: {printed.err}"
    written = [folder / words[words.index(option) + 1] for option in _WRITTEN if option in words]
    assert printed.out or (written and written[0].exists())
    assert [line for line in printed.err.splitlines() if not _MESSAGES.match(line)] == []


def in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a page shows it, in a folder with what it needs."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("command", IN_A_SHELL)
def test_it_runs_in_a_shell(command: str, folder: Path) -> None:
    """The command exits as expected, and prints no errors."""
    if "-o theirs.arrows" in command:
        (folder / "theirs.arrows").unlink()
    done = in_shell(command, folder)
    assert done.returncode == 0, f"{COMMANDS[command]}: {done.stderr}"
    assert [line for line in done.stderr.splitlines() if not _MESSAGES.match(line)] == []


@pytest.mark.parametrize("command", PARSED)
def test_it_is_parsed(command: str) -> None:
    """The parser accepts every word of a command that is not run here."""
    words = own_words(command)
    assert words is not None
    parse(cli, "kalloctrace", words)


@pytest.mark.parametrize("command", MAKE)
def test_make_knows_its_target(command: str) -> None:
    """`make -n` accepts the target; it is not built here, because it starts virtual machines."""
    done = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def parse(command: click.Command, name: str, words: list[str]) -> None:
    """Parse words as the command would, including sub-commands; a wrong option is an error."""
    context = command.make_context(name, list(words))
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]  # noqa: SLF001  (as click itself does)
        child, sub, left = command.resolve_command(context, rest)
        assert sub is not None
        parse(sub, child or "", left)
    inner = context.params.get("argv") or context.params.get("command_line") or ()
    if inner and inner[0] == "kalloctrace":
        parse(cli, "kalloctrace", list(inner[1:]))


def test_no_root_prompt_looks_for_a_program_of_the_user() -> None:
    """A "# " prompt is root's already: `command -v` there finds nothing that pipx installed for a user."""
    prompts = [line for page in PAGES for line in page.read_text(encoding="utf-8").splitlines() if line[:2] == "# "]
    assert [line for line in prompts if "command -v" in line] == []


def outputs() -> list[tuple[str, str, str]]:
    """Return each command of docs/ whose output is shown, with its page and that output."""
    found = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for prompt, command, shown in _SHOWN.findall(block):
                if prompt == "$" and shown.strip():
                    found.append((str(page.relative_to(ROOT)), command, shown))
    return found


def is_shown(shown: str, printed: str) -> bool:
    """Return whether an output is what a page shows, in which a line "…" stands for any lines."""
    pattern = "".join(r"(?:.*\n)*" if line == "…" else re.escape(line) + r"\n" for line in shown.splitlines())
    return re.fullmatch(pattern, printed) is not None


SHOWN = outputs()


@pytest.mark.parametrize(("page", "command", "shown"), SHOWN, ids=[f"{page}: {command}" for page, command, _ in SHOWN])
def test_it_prints_what_its_page_shows(page: str, command: str, shown: str, folder: Path) -> None:
    """An output in docs/ is what the program prints, to the letter."""
    del page
    done = in_shell(command, folder)
    assert is_shown(shown, done.stdout), done.stdout


def test_a_changed_output_is_found() -> None:
    """One other word, a line too many and a line too few are differences; left-out lines are none."""
    assert is_shown("one\n…\nfour\n", "one\ntwo\nthree\nfour\n")
    assert is_shown("one\n…\n", "one\n")
    for printed in ("one\nfour\nfive\n", "one\nfour \n", "zero\none\nfour\n", "one\n"):
        assert not is_shown("one\n…\nfour\n", printed)


def test_both_tutorials_show_outputs() -> None:
    """The tutorial's steps are shown with what they print, in both languages."""
    pages = [page for page, _, _ in SHOWN]
    assert pages.count("docs/en/tutorial.md") == pages.count("docs/zh-cn/tutorial.md") >= 5


def test_list_of_commands_tested_elsewhere_is_current() -> None:
    """Each entry is on some page, and names an existing file."""
    assert set(TESTED_ELSEWHERE) <= set(COMMANDS)
    assert all((ROOT / path).exists() for path in TESTED_ELSEWHERE.values())


def test_both_languages_show_the_same_commands() -> None:
    """A page and its translation have the same commands, in the same order."""
    for page in sorted((ROOT / "docs/en").rglob("*.md")):
        other = ROOT / "docs/zh-cn" / page.relative_to(ROOT / "docs/en")
        blocks = [_BLOCK.findall(path.read_text(encoding="utf-8")) for path in (page, other)]
        assert blocks[0] == blocks[1], page


def test_a_wrong_option_is_found() -> None:
    """The parser rejects an unknown option."""
    with pytest.raises(click.UsageError):
        parse(cli, "kalloctrace", ["record", "--no-such-option"])
    with pytest.raises(click.UsageError):
        parse(cli, "kalloctrace", ["lab", "run", "--kernel", "5.10", "--", "kalloctrace", "record", "--no-such-option"])
