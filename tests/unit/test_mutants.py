# SPDX-License-Identifier: MIT
"""The mutation runner: what it mutates, what it leaves alone, and that survivors and stale equivalents are reported."""

from pathlib import Path

import pytest

from tests.mutants import run, score
from tests.mutants.forks import Call, in_forks
from tests.mutants.mutations import changed_code, mutations

# Its forks are sessions of their own, which a busy machine may give little of a processor.
pytestmark = pytest.mark.timeout(900)

SOURCE = '''"""A module."""

LIMIT = 3


def is_small(value: int) -> bool:
    """Return whether a value is small."""
    return value < LIMIT


def label(value: int) -> str:
    why = "none"
    return f"the value {value + 1} is {why} "
'''
TESTS = """
from kalloctrace_example.rule import is_small

def test_small():
    assert is_small(2)
    assert not is_small({large})
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a checkout with one module, and no list of equivalents."""
    package = tmp_path / "kalloctrace_example"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "rule.py").write_text(SOURCE, encoding="utf-8")
    for folder in ("tests/unit", "tests/replay"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n', encoding="utf-8")
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(score, "EQUIVALENT", tmp_path / "equivalent.toml")
    monkeypatch.setattr(score, "ALL", ("kalloctrace_example/rule.py",))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "equivalent.toml").touch()
    return tmp_path


def write_tests(checkout: Path, large: int) -> None:
    """Write a test that a value from some size on is not small."""
    (checkout / "tests/unit/test_rule.py").write_text(TESTS.format(large=large), encoding="utf-8")


def test_texts_are_left_alone() -> None:
    """Docstrings, sentences with their interpolations, and values of text names are not mutated."""
    changed = {mutation.was for mutation in mutations(SOURCE)}
    assert changed == {"LIMIT = 3", "return value < LIMIT"}


def test_type_aliases_are_left_alone() -> None:
    """Also where several types are united; bits that are united are none."""
    assert mutations('Doubt = Fact | Literal["a", "b"]\nKind = Literal["a"]\n') == []
    assert mutations("BITS = ONE | TWO\n") != []


def test_each_operand_is_dropped() -> None:
    """Of a union of bits, each bit is left out once; mutmut alone does not."""
    found = {mutation.becomes for mutation in mutations("def f(a, b):\n    return a | b\n")}
    assert {"return (a)", "return (b)", "return a & b"} <= found


def test_what_runs_at_import_is_told_from_functions() -> None:
    """A function's code can be replaced in a process that has imported it; a constant's cannot."""
    by_line = {mutation.was: changed_code(SOURCE, mutation.source, "rule.py") for mutation in mutations(SOURCE)}
    assert by_line["LIMIT = 3"] is None
    assert [old.co_name for old, _ in by_line["return value < LIMIT"] or ()] == ["is_small"]


def test_a_survivor_is_reported(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A test that does not try the boundary lets `<=` live; one that does kills all, and the score is 100 %."""
    write_tests(checkout, large=9)
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1"]) == 1
    out = capfd.readouterr().out
    assert "+ return value <= LIMIT" in out
    assert "+ LIMIT = 4" in out
    assert "3 mutants, 1 killed, 2 survived, 0 equivalent: 33.3 %" in out

    write_tests(checkout, large=3)
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1"]) == 0
    assert "3 mutants, 3 killed, 0 survived, 0 equivalent: 100.0 %" in capfd.readouterr().out


def test_a_second_run_judges_nothing(
    checkout: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has changed, so the kept results are printed."""
    write_tests(checkout, large=9)
    run.main(["kalloctrace_example/rule.py", "--jobs", "1"])
    first = capfd.readouterr().out
    monkeypatch.setattr(run.Module, "_profile", None)
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1"]) == 1
    assert capfd.readouterr().out == first


ENTRY = {
    "module": "kalloctrace_example/rule.py",
    "function": "is_small",
    "was": "return value < LIMIT",
    "becomes": "return value <= LIMIT",
    "reason": "for the test",
}


def test_a_sample(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Always the same mutants; a larger one has those of a smaller one."""
    write_tests(checkout, large=9)
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1", "--sample", "1"]) in {0, 1}
    assert "1 mutants (a sample of 3), " in capfd.readouterr().out
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1", "--sample", "3"]) == 1
    assert "3 mutants, 1 killed" in capfd.readouterr().out


DEFAULTS = '''from dataclasses import dataclass

TABLE = {"small": 3}
BOTH = (TABLE["small"], 7)


@dataclass(frozen=True)
class Size:
    """A size."""

    value: int
    limit: int = 3


def is_small(size: Size, least: int = 0) -> bool:
    """Return whether a size is small."""
    return least <= size.value < size.limit


def most() -> int:
    """Return the largest."""
    return max(BOTH)
'''
DEFAULTS_TESTED = """
from kalloctrace_example.rule import BOTH, Size, is_small, most

def test_defaults():
    assert is_small(Size(2)) and is_small(Size(0)) and not is_small(Size(3)) and not is_small(Size(-1))

def test_constants():
    assert (most(), BOTH) == (7, (3, 7))
"""


def test_what_runs_at_import_is_replaced(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Constants where they are bound, those that are made of them, and defaults of classes and functions."""
    (checkout / "kalloctrace_example/rule.py").write_text(DEFAULTS, encoding="utf-8")
    (checkout / "tests/unit/test_rule.py").write_text(DEFAULTS_TESTED, encoding="utf-8")
    assert run.main(["kalloctrace_example/rule.py", "--jobs", "1", "--forks-only"]) == 0
    assert ", 0 survived, 0 equivalent: 100.0 %" in capfd.readouterr().out


def test_an_equivalent_is_found_by_its_lines() -> None:
    """An entry names its function, and the lines before and after."""
    named = score.keys(mutations(SOURCE))
    (key,) = score.equivalents(ENTRY["module"], named, [ENTRY])
    assert named[key].becomes == ENTRY["becomes"]


@pytest.mark.parametrize("change", [{"was": "return value < 3"}, {"function": "label"}, {"reason": ""}])
def test_a_stale_or_incomplete_equivalent_is_an_error(change: dict[str, str]) -> None:
    """One that matches no mutant, and one without a reason."""
    with pytest.raises(score.UsageError, match=r"equivalent\.toml"):
        score.equivalents(ENTRY["module"], score.keys(mutations(SOURCE)), [{**ENTRY, **change}])


def test_an_equivalent_that_a_test_notices_is_wrong() -> None:
    """It is no equivalent, whatever its score."""
    wrong = score.Score(ENTRY["module"], total=1, equivalent=1, wrong=[(mutations(SOURCE)[0], "test_x")])
    assert wrong.percent == 100
    assert not wrong.enough


def test_the_list_of_equivalents_is_not_stale() -> None:
    """Each entry of `tests/mutants/equivalent.toml` matches a mutant of the module as it is."""
    entries = score.listed()
    for module in {entry.get("module", "") for entry in entries}:
        assert (run.ROOT / module).is_file(), module
        source = (run.ROOT / module).read_text(encoding="utf-8")
        score.equivalents(module, score.keys(mutations(source)), entries)


def test_a_call_that_hangs_or_crashes_is_said() -> None:
    """The other calls go on."""

    def hang() -> str:
        while True:
            pass

    def crash() -> str:
        raise SystemExit

    calls = [Call("hangs", hang, 0.5), Call("crashes", crash, 20), Call("works", lambda: "result", 20)]
    assert dict(in_forks(calls, 2)) == {"hangs": "timeout", "crashes": "crash", "works": "result"}
