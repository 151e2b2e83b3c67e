# SPDX-License-Identifier: MIT
"""`kalloctrace report --html` as people run it: what it writes, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import traces

KEPT = "kept"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "report", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=60,
    )


def embedded(page: Path) -> dict[str, Any]:
    """Return the data inside a page."""
    (block,) = re.findall(r'id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    parsed: dict[str, Any] = json.loads(block)
    return parsed


def test_page_is_written(tmp_path: Path) -> None:
    """One file has the trace's data; standard output stays empty, and a message says what to do next."""
    page = tmp_path / "t.html"
    done = run("--html", page, traces.RECORDED)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"wrote {page}; open it in a browser\n"
    assert list(tmp_path.iterdir()) == [page]
    assert embedded(page)["trace"] == str(traces.RECORDED)


def test_same_trace_gives_the_same_page(tmp_path: Path) -> None:
    """Two pages of a trace can be compared byte by byte."""
    first, second = tmp_path / "1.html", tmp_path / "2.html"
    for page in (first, second):
        run("--html", page, traces.RECORDED)
    assert first.read_bytes() == second.read_bytes()


def test_mismatch_is_no_failure_of_the_report(tmp_path: Path) -> None:
    """As with the text, `verify` has the exit code for that."""
    page = tmp_path / "t.html"
    assert run("--html", page, traces.stream(tmp_path / "t.arrows", {"alloc_flags": 0})).returncode == 0
    assert embedded(page)["verification"]["mismatched"] == 1


def test_existing_file_stays(tmp_path: Path) -> None:
    """It is refused, with the fix, and replaced only with -f."""
    page = tmp_path / "t.html"
    page.write_text(KEPT)
    done = run("--html", page, traces.RECORDED)
    assert (done.returncode, done.stdout, page.read_text()) == (1, "", KEPT)
    assert f"will not overwrite {page}" in done.stderr
    assert "-f" in done.stderr
    assert run("-f", "--html", page, traces.RECORDED).returncode == 0
    assert embedded(page)["type"] == "page"


def test_trace_is_never_overwritten(tmp_path: Path) -> None:
    """Not even with -f or by another name of it."""
    trace = traces.stream(tmp_path / "t.arrows", {})
    before = trace.read_bytes()
    (tmp_path / "link.html").symlink_to(trace)
    for page in (trace, tmp_path / "link.html"):
        done = run("-f", "--html", page, trace)
        assert (done.returncode, "it is the file to read" in done.stderr) == (2, True)
    assert trace.read_bytes() == before


def test_bad_trace_leaves_no_page(tmp_path: Path) -> None:
    """An unreadable trace gets no page, and an existing page stays."""
    page, bad = tmp_path / "t.html", tmp_path / "bad.arrows"
    bad.write_text("no trace")
    assert run("--html", page, bad).returncode == 1
    assert not page.exists()
    page.write_text(KEPT)
    assert run("-f", "--html", page, bad).returncode == 1
    assert page.read_text() == KEPT


@pytest.mark.parametrize("target", ["missing/t.html", "folder"])
def test_place_that_cannot_be_written(tmp_path: Path, target: str) -> None:
    """Three lines and no traceback."""
    (tmp_path / "folder").mkdir()
    done = run("-f", "--html", tmp_path / target, traces.RECORDED)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_page_and_json_do_not_go_together(tmp_path: Path) -> None:
    """Both together are wrong usage, and nothing is written."""
    page = tmp_path / "t.html"
    assert run("--json", "--html", page, traces.RECORDED).returncode == 2
    assert not page.exists()


def test_truncated_trace_has_a_page(tmp_path: Path) -> None:
    """The page covers it up to its last complete batch."""
    whole = traces.stream(tmp_path / "t.arrows", {}, {})
    cut = tmp_path / "cut.arrows"
    cut.write_bytes(whole.read_bytes()[:-200])
    page = tmp_path / "t.html"
    assert run("--html", page, cut).returncode == 0
    assert embedded(page)["truncated"] is True


def test_name_of_the_file_is_no_markup(tmp_path: Path) -> None:
    """The title shows it as it is."""
    trace = traces.stream(tmp_path / "<b>&amp;.arrows", {})
    page = tmp_path / "t.html"
    assert run("--html", page, trace).returncode == 0
    assert f"<title>kalloctrace: {tmp_path}/&lt;b&gt;&amp;amp;.arrows</title>" in page.read_text("utf-8")


def test_locale_does_not_matter(tmp_path: Path) -> None:
    """The page is UTF-8 whatever the terminal is."""
    page = tmp_path / "t.html"
    program = [sys.executable, "-m", "kalloctrace", "report", "--html", str(page), str(traces.RECORDED)]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run(program, check=False, capture_output=True, env=environment, timeout=60).returncode == 0
    assert "×" in page.read_text("utf-8")
