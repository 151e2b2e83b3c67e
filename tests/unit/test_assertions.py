# SPDX-License-Identifier: MIT
"""Every test can fail: it asserts, expects an error, or calls a function of the tests that does."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"

ALLOWED = {
    "tests/unit/test_probe_checks.py::test_a_machine_that_can_be_traced_raises_nothing": "require_live() raises it",
    "tests/unit/test_probe_plan.py::test_expected_prototypes_pass": "passes when check_prototypes() raises nothing",
}
"""Tests without an assertion, each with its reason."""

_ASSERTING = {"pytest.raises", "pytest.warns", "pytest.fail", "expect"}
"""Calls that make a test fail; `expect` is Playwright's."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def functions(path: Path) -> dict[str, list[Function]]:
    """Return the functions and methods of a file, by name."""
    found: dict[str, list[Function]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            found.setdefault(node.name, []).append(node)
    return found


@cache
def imported(path: Path) -> dict[str, Path]:
    """Return the test files that a file imports, or imports a name from, by the name it uses."""
    found = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "tests":
            folder = ROOT.joinpath(*node.module.split("."))
            for alias in node.names:
                own = folder / f"{alias.name}.py"
                found[alias.asname or alias.name] = own if own.exists() else folder.with_suffix(".py")
    return found


def called(path: Path, function: Function) -> Iterator[tuple[Path, str]]:
    """Yield the file and the name of each function of the tests that a function calls."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield imported(path).get(node.func.id, path), node.func.id
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            yield imported(path).get(owner, path), node.func.attr


def asserts(path: Path, function: Function, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a function asserts, itself or in a function that it calls.

    Args:
        path: the function's file.
        function: the function.
        seen: functions that the search has entered.
    """
    for node in ast.walk(function):
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Call) and ast.unparse(node.func) in _ASSERTING):
            return True
    return any(
        asserts(file, callee, seen | {f"{file}:{name}"})
        for file, name in called(path, function)
        if f"{file}:{name}" not in seen
        for callee in functions(file).get(name, ())
    )


def without_assertion(folder: Path) -> set[str]:
    """Return the tests below a folder that cannot fail, except by an unexpected error."""
    return {
        f"{path.relative_to(folder.parent)}::{name}"
        for path in folder.rglob("test_*.py")
        for name, tests in functions(path).items()
        for test in tests
        if name.startswith("test_") and not asserts(path, test)
    }


def test_every_test_asserts() -> None:
    """The tests without an assertion are those listed above."""
    assert without_assertion(TESTS) == set(ALLOWED)


def test_tests_without_assertion_are_found(tmp_path: Path) -> None:
    """Assertions count in the test and in the functions that it calls, directly or not."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_x.py").write_text(
        "def deep():\n    assert f()\n"
        "def helper():\n    helper()\n    deep()\n"
        "def idle():\n    pass\n"
        "def test_direct():\n    assert f()\n"
        "def test_raises():\n    with pytest.raises(E):\n        f()\n"
        "def test_helper():\n    helper()\n"
        "def test_none():\n    idle()\n"
        "class TestAll:\n    def test_method(self):\n        f()\n",
        encoding="utf-8",
    )
    assert without_assertion(folder) == {"tests/test_x.py::test_none", "tests/test_x.py::test_method"}
