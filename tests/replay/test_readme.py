# SPDX-License-Identifier: MIT
"""What the README shows and what the docs say about reading traces, tried."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from kalloctrace.cli import main
from kalloctrace.errors import Exit
from kalloctrace.trace.reader import TraceReader
from tests.broken_rules import MUTATIONS

ROOT = Path(__file__).resolve().parents[2]
TRACES = sorted(ROOT.glob("fixtures/*/*.arrows"))
SLOW = ROOT / "fixtures" / "7.3" / "slow.arrows"


MOST_LINES = 120


def page(name: str) -> str:
    """Return a page in one line."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def shown(command: str) -> list[str]:
    """Return what README shows as the first lines of a command's output."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rest = lines[lines.index(f"$ {command}") + 1 :]
    return rest[: rest.index("…")]


@pytest.mark.parametrize(
    ("command", "broken"),
    [
        ("explain tests/logs/data/suppressed.log", None),
        ("report fixtures/7.3/slow.arrows", None),
        ("verify fixtures/5.10/two-nodes.arrows", "no ALLOC_KSWAPD"),
    ],
)
def test_examples_are_real(
    command: str, broken: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example begins with what the command prints; one rule is broken where README says so."""
    monkeypatch.chdir(ROOT)
    if broken is not None:
        module, name, mutant = MUTATIONS[broken]
        monkeypatch.setattr(module, name, mutant)
    main(command.split())
    lines = shown(f"kalloctrace {command}")
    assert lines
    assert capsys.readouterr().out.splitlines()[: len(lines)] == lines


def test_it_is_short() -> None:
    """The README takes a minute; everything else is in docs/."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_pyarrow_reads_the_file_and_polars_does_not() -> None:
    """The rows are all there, and no column has the calls of the slow path."""
    assert "dictionary deltas: pyarrow does, Polars does not" in page("docs/en/capture.md")
    with TraceReader(SLOW) as trace:
        rows = sum(batch.num_rows for batch in trace.batches())
        calls = len(list(trace.slow_calls()))
    with pa.ipc.open_stream(SLOW) as stream:
        assert sum(batch.num_rows for batch in stream) == rows
        assert not [name for name in stream.schema.names if "slow" in name]
    assert calls > 0
    with pytest.raises(pl.exceptions.ComputeError, match="delta dictionary"):
        pl.read_ipc_stream(SLOW)


def test_most_recordings_of_the_slow_path_lost_events(capsys: pytest.CaptureFixture[str]) -> None:
    """Each other fixture passes with --strict; most of these exit with 4, without a mismatch."""
    assert (
        "Most recordings of the slow path lost some events; the output counts them, and `--strict` exits with 4"
        in page("docs/kernels.md")
    )
    slow = [path for path in TRACES if path.stem == "slow"]
    codes = [main(["verify", "--strict", str(path)]) for path in slow]
    printed = capsys.readouterr().out
    assert set(codes) <= {Exit.OK, Exit.INCOMPLETE}
    assert codes.count(Exit.INCOMPLETE) > len(codes) / 2
    assert "mismatched 0  unknown 0" in printed
    assert main(["verify", "--strict", str(TRACES[0])]) == Exit.OK
