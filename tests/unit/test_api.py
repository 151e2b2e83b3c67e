# SPDX-License-Identifier: MIT
"""The public API, used as a script outside the package does: by the names of `kalloctrace.__all__` alone."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import kalloctrace

ROOT = Path(__file__).parents[2]
AGGREGATE = ROOT / "fixtures/7.2/stimulus.arrows"
CPUSETS = ROOT / "fixtures/5.10/cpusets.arrows"
SLOW = ROOT / "fixtures/6.12/slow-stream.arrows"
DIRECTORIES = {path.name for path in (ROOT / "kalloctrace").iterdir() if path.is_dir()}

SCRIPT = """
import kalloctrace

with kalloctrace.open_trace({trace!r}) as trace:
    verdict: kalloctrace.Verification = trace.verify()
    print(verdict.allocations, verdict.mismatched, len(trace.to_pandas()), len(trace.to_polars()))
    row, count = next(trace.allocations())
    explained: kalloctrace.ExplainedRow = trace.explain(row)
    print(explained.outcome, count > 0)
preparation: kalloctrace.Preparation = kalloctrace.predict("5.10", "GFP_KERNEL", 0)
print(preparation.gfp, [step.rule for step in preparation.steps][:1])
decoded: kalloctrace.Decoded = kalloctrace.decode(0xcc0, "5.10")
print(decoded.text)
try:
    kalloctrace.open_trace("missing.arrows")
except kalloctrace.KalloctraceError as error:
    print(error.why)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script in a directory of its own."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(trace=str(CPUSETS)))
    return path


def test_a_script_outside_the_package(script: Path) -> None:
    """The documented calls work from another directory."""
    done = subprocess.run([sys.executable, script], cwd=script.parent, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    first, explained, predicted, decoded, error = done.stdout.splitlines()
    allocations, mismatched, pandas_rows, polars_rows = map(int, first.split())
    assert allocations == pandas_rows == polars_rows > 1000
    assert mismatched == 0
    assert explained == "matched True"
    assert predicted == "3264 ['order']"
    assert (decoded, error) == ("GFP_KERNEL", "No such file or directory")


def test_the_script_has_the_documented_types(script: Path) -> None:
    """Mypy finds the types of all public names, in strict mode."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "Success: no issues found in 1 source file", done.stdout


def test_no_public_name_is_that_of_a_directory() -> None:
    """`kalloctrace.trace` is a package; a function of the same name would hide it."""
    assert not set(kalloctrace.__all__) & DIRECTORIES
    assert set(kalloctrace.__all__) <= set(dir(kalloctrace))
    with pytest.raises(AttributeError, match="no attribute 'record'"):
        _ = kalloctrace.record


@pytest.mark.parametrize("name", [name for name in kalloctrace.__all__ if name != "__version__"])
def test_every_public_name_is_documented(name: str) -> None:
    """Each has a docstring, and a section of docs/en/api.md and docs/zh-cn/api.md names it."""
    assert getattr(kalloctrace, name).__doc__
    for language in ("en", "zh-cn"):
        assert f"`{name}" in (ROOT / "docs" / language / "api.md").read_text()


@pytest.mark.parametrize("path", [AGGREGATE, CPUSETS, SLOW], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_explain_agrees_with_verify(path: Path) -> None:
    """Counted by outcome, the rows add up to the verification."""
    with kalloctrace.open_trace(path) as trace:
        verdict = trace.verify()
        counts = {"matched": 0, "mismatched": 0, "unknown": 0}
        for row, count in trace.allocations():
            counts[trace.explain(row).outcome] += count
    assert counts == {"matched": verdict.matched, "mismatched": verdict.mismatched, "unknown": verdict.unknown}
    assert verdict.allocations == sum(counts.values())


def test_rows_of_data_frames_are_explained() -> None:
    """A row of pandas or Polars says the same as the trace's own row."""
    with kalloctrace.open_trace(CPUSETS) as trace:
        own = trace.to_arrow().slice(17, 1).to_pylist()[0]
        expected = trace.explain(own)
        assert trace.explain(trace.to_pandas().iloc[17].to_dict()) == expected
        assert trace.explain(trace.to_polars().row(17, named=True)) == expected
        assert expected.preparation is not None
        assert expected.preparation.alloc_flags == own["alloc_flags"]


def test_a_changed_row_is_mismatched() -> None:
    """The explanation names the field, both values and the rule."""
    with kalloctrace.open_trace(CPUSETS) as trace:
        row, _ = next(trace.allocations())
        explained = trace.explain({**row, "time": 0, "migratetype": row["migratetype"] ^ 1})
    (difference,) = explained.differences
    assert (explained.outcome, difference.field, difference.rule) == ("mismatched", "migratetype", "gfp_migratetype")
    assert difference.expected == row["migratetype"]


def test_slow_calls_have_attempts() -> None:
    """The calls of the slow path are there, and none where it was not recorded."""
    with kalloctrace.open_trace(SLOW) as trace:
        calls = list(trace.slow_calls())
    assert sum(len(call["attempts"]) for call in calls) == 403
    with kalloctrace.open_trace(CPUSETS) as trace:
        assert list(trace.slow_calls()) == []


def test_the_arrow_table_describes_its_columns() -> None:
    """Each column says what it holds."""
    with kalloctrace.open_trace(AGGREGATE) as trace:
        table = trace.to_arrow()
    assert all(field.metadata[b"about"] for field in table.schema)
    assert isinstance(table, pa.Table)


def test_predict_takes_the_machine_of_a_trace() -> None:
    """The preferred node may be any of the machine's; a request that cannot be made is a ValueError."""
    done = kalloctrace.predict(str(CPUSETS), 0xCC0, 0, nid=1, machine={"cpusets_enabled": True, "mems_allowed": [0]})
    assert done.nodemask == "mems_allowed"
    assert done.preferred_zone is not None
    assert done.preferred_zone.node == 0
    with pytest.raises(ValueError, match="preferred_nid 7 is not a node"):
        kalloctrace.predict(str(CPUSETS), 0xCC0, 0, nid=7)
    with pytest.raises(kalloctrace.KalloctraceError):
        kalloctrace.predict("4.4", 0xCC0)


def test_decode_reads_names_and_numbers() -> None:
    """Both kinds, both ways."""
    assert kalloctrace.decode("GFP_KERNEL|__GFP_COMP", "6.12").value == 0x40CC0
    assert kalloctrace.decode(0x901, "5.10", "alloc").names == ("ALLOC_WMARK_LOW", "ALLOC_NOFRAGMENT", "ALLOC_KSWAPD")


@pytest.mark.parametrize("language", ["en", "zh-cn"])
def test_the_documented_example_runs(language: str) -> None:
    """The first block of docs/*/api.md is a script that works from the checkout."""
    text = (ROOT / "docs" / language / "api.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "26662 26662 0 0"
    assert done.stdout.splitlines()[-1] == "GFP_KERNEL|__GFP_NOWARN|__GFP_NORETRY|__GFP_COMP|__GFP_ZERO"
