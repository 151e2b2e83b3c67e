# SPDX-License-Identifier: MIT
"""A long question about a fleet shows how far it is, and Ctrl-C ends it at once, with whatever answers it."""

import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.fleet_answers import require_spark
from tests.fleets import add
from tests.terminal import on_terminal
from tests.traces import stream

_PATIENCE = 120
_ENGINES = {
    "duckdb": ("SELECT count(*) FROM range(1000000000000) AS t(i) WHERE hash(i) = 1",),
    "spark": (
        *("--engine", "spark", "--master", "local[2]", "--memory", "1g"),
        "SELECT count(*) FROM range(0, 1000000000000, 1, 2) WHERE hash(id) = id",
    ),
}


@pytest.mark.parametrize("engine", _ENGINES)
def test_a_long_query_is_interrupted(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is 130, nothing is printed as an answer, no process is left, and the dataset is as it was."""
    if engine == "spark":
        require_spark()
        # Java that compiles less starts sooner.
        monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    path = tmp_path / "fleet"
    add(path, stream(tmp_path / "one.arrows", {}))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    command = [sys.executable, "-m", "kalloctrace", "fleet", "sql", str(path), *_ENGINES[engine]]
    with on_terminal(command) as terminal:
        terminal.wait_for(b"answering", _PATIENCE)
        started = psutil.Process(terminal.process.pid).children(recursive=True)
        assert bool(started) == (engine == "spark")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end(_PATIENCE) == 130
    assert b"count" not in terminal.printed
    assert b"Traceback" not in terminal.printed
    gone, alive = psutil.wait_procs(started, timeout=_PATIENCE)
    assert (len(gone), alive) == (len(started), [])
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
