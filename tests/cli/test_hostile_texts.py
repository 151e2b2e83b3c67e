# SPDX-License-Identifier: MIT
"""Texts that once broke a command, given to every command that reads text."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "unit" / "data" / "hostile"
FIELDS = "page=0 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL"
# Each command reads each text in one process, which prints the exit code, the seconds and what stood on standard error.
SCRIPT = """
import contextlib, io, json, sys, time
from kalloctrace.__main__ import main
for arguments, file in json.loads(sys.argv[1]):
    errors = io.StringIO()
    nothing = io.TextIOWrapper(io.BytesIO())
    with open(file) as text, contextlib.redirect_stderr(errors), contextlib.redirect_stdout(nothing):
        sys.stdin = text
        begin = time.process_time()
        code = main(arguments)
        took = time.process_time() - begin
    print(json.dumps([int(code), took, errors.getvalue()]), flush=True)
"""


def texts(folder: Path) -> list[Path]:
    """Return the texts; two are a line of 40 KB each."""
    zone, event = folder / "zone.txt", folder / "event.txt"
    zone.write_text("x: page allocation failure: order:1, mode:0x20\nNode 0 DMA free:1kB " + "a" * 40_000)
    event.write_text(f"a-1 [000] 1.0: kmem:mm_page_alloc: {FIELDS}\na-1 [000] 1.0: kmem:mm_page_alloc: " + "a" * 40_000)
    return [zone, event, ROOT / "tests" / "data" / "untrusted" / "log-inject.txt", *sorted(DATA.glob("*.txt"))]


def test_every_command_has_an_answer_for_every_text(tmp_path: Path) -> None:
    """The exit code is one of the contract's, an error has three lines, and none takes long."""
    commands = (
        ["explain", "-"],
        ["decode", "-"],
        ["import", "--kernel", "6.1", "-f", "-o", str(tmp_path / "out.arrows"), "-"],
        ["explain", "--batch", "-"],
    )
    asked = [(command, str(text)) for text in texts(tmp_path) for command in commands]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)], capture_output=True, text=True, check=False, timeout=150
    )
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert (len(answers), run.stderr) == (len(asked), "")
    for (command, text), (code, took, errors) in zip(asked, answers, strict=True):
        assert code in (0, 1), (command, text, errors)
        assert took < 2, (command, text)
        assert "Traceback" not in errors
        if code and "--batch" not in command:
            what, why, fix = errors.splitlines()[-3:]
            assert (what[:7], why[:7], fix[:7]) == ("error: ", "  why: ", "  fix: "), (command, text)


def test_number_of_any_length_is_named_by_its_line(tmp_path: Path) -> None:
    """An event with a number that no kernel prints is no event; too many lost events to count are refused."""
    trace = tmp_path / "out.arrows"
    texts = sorted(DATA.glob("import-ev*.txt"))
    for text in texts:
        arguments = ["import", "--kernel", "6.1", "-o", str(trace), str(text)]
        run = subprocess.run(
            [sys.executable, "-m", "kalloctrace", *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        assert run.returncode == 1
        assert "line 1" in run.stderr
        assert len(run.stderr.splitlines()) == 3
        assert not trace.exists()
    assert len(texts) == 4
