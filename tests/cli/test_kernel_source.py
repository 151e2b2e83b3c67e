# SPDX-License-Identifier: MIT
"""`--kernel` of every command: a release, this machine, or a trace that is recognised by its content."""

import json
import os
import shutil
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from kalloctrace.__main__ import main

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
RELEASE = "5.10.0-45-amd64"
OOM = "x invoked oom-killer: gfp_mask=0xa20(GFP_ATOMIC), order=0, oom_score_adj=0\n"
EVENT = (
    "              ls-1     [000]     1.000000: mm_page_alloc:        page=0x1 pfn=1 order=0 migratetype=0 "
    "gfp_flags=GFP_KERNEL\n"
)
COMMANDS = {
    "decode": (("decode", "--json", "0xa20"), ""),
    "decode a text": (("decode", "--json", "-"), OOM),
    "explain": (("explain", "--json", "--gfp", "GFP_KERNEL", "--order", "0"), ""),
    "explain a log": (("explain", "--json", "-"), OOM),
    "explain a batch": (("explain", "--batch", "-"), '{"gfp": 3264, "order": 0}\n'),
    "import": (("import", "--json", "-o", "new.arrows", "-"), EVENT),
}
each_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture(autouse=True)
def _in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Program:
    """Runs commands with --kernel, inside this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def run(self, name: str, kernel: str) -> tuple[int, str, str]:
        """Return the exit code, standard output and standard error."""
        words, stdin = COMMANDS[name]
        self._monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
        code = main([*words, "--kernel", kernel])
        return code, *self._capsys.readouterr()

    def accepted(self, name: str, kernel: str) -> str:
        """Return the kernel that a command worked with."""
        code, stdout, stderr = self.run(name, kernel)
        assert code == 0, stderr
        found: str = json.loads(stdout.splitlines()[0])["kernel"]
        return found

    def refused(self, name: str, kernel: str) -> tuple[str, str, str]:
        """Return what, why and fix of a refusal, which is wrong usage and leaves no output."""
        code, stdout, stderr = self.run(name, kernel)
        assert (code, stdout, Path("new.arrows").exists()) == (2, "", False), stderr
        what, why, fix = stderr.splitlines()
        assert (what[:7], why[:7], fix[:7]) == ("error: ", "  why: ", "  fix: ")
        return what[7:], why[7:], fix[7:]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Return the program."""
    return Program(monkeypatch, capsys)


@each_command
@pytest.mark.parametrize("file", ["trace", "my.arrows", "5.10.trace", "6.12"])
def test_trace_is_recognised_by_its_content(program: Program, name: str, file: str) -> None:
    """The name of a trace does not matter, not even where it is also a release's."""
    shutil.copy(TRACE, file)
    expected = file if name == "explain a batch" else RELEASE
    assert program.accepted(name, file).startswith(expected[:6])


@each_command
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_release_is_a_release_where_a_file_has_its_name(program: Program, name: str, make: object) -> None:
    """Fixtures are kept in folders that are called like releases."""
    assert callable(make)
    make(Path("6.12"))
    assert program.accepted(name, "6.12") == "6.12"


@each_command
@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        ("text.arrows", "it is not a trace: it does not begin as an Arrow stream"),
        ("text", "it is not a trace: it does not begin as an Arrow stream"),
        ("empty.arrows", "it is not a trace: it does not begin as an Arrow stream"),
        ("6.12.arrows", "it is not a trace: it does not begin as an Arrow stream"),
        ("folder", "it is a folder, not a trace"),
        ("folder.arrows", "it is a folder, not a trace"),
        ("fifo", "it is not a regular file"),
        ("missing.arrows", "there is no such file"),
        ("missing", "it is neither a kernel release nor a file"),
        ("folder/missing", "it is neither a kernel release nor a file"),
        ("9.9", "the newest known kernel is 7.3"),
    ],
)
def test_refusals_are_the_same_everywhere(program: Program, name: str, kernel: str, why: str) -> None:
    """What cannot be a kernel is wrong usage: what, why and fix in the same words, before any work is done."""
    for text in ("text", "text.arrows", "6.12.arrows"):
        Path(text).write_text("gfp_mask=0xa20(GFP_ATOMIC)\n")
    for folder in ("folder", "folder.arrows"):
        Path(folder).mkdir()
    Path("empty.arrows").touch()
    os.mkfifo("fifo")
    assert program.refused(name, kernel) == (
        f"cannot use {kernel!r} as a kernel",
        why,
        "name a release from 5.8 to 7.3, 'live', or a trace file",
    )


@each_command
def test_release_before_the_tables(program: Program, name: str) -> None:
    """Only a log can be judged by a release whose flags are not known."""
    if name == "explain a log":
        assert program.accepted(name, "4.19") == "4.19"
    else:
        assert program.refused(name, "4.19")[1] == "kernels before 5.8 have other bits under these names"


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ("text.arrows", "it is not a trace: it does not begin as an Arrow stream"),
        (".", "it is a folder, not a trace"),
        ("missing.arrows", "there is no such file"),
        ("6.12", "there is no such file"),
    ],
)
def test_machine_is_a_trace(capsys: pytest.CaptureFixture[str], machine: str, why: str) -> None:
    """--machine takes a trace and nothing else."""
    Path("text.arrows").write_text("no trace")
    assert main(["explain", "--kernel", "6.12", "--gfp", "0", "--order", "0", "--machine", machine]) == 2
    lines = [f"error: cannot take the machine of {machine!r}", f"  why: {why}", "  fix: name a trace file"]
    assert capsys.readouterr().err.splitlines() == lines
