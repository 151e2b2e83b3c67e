# SPDX-License-Identifier: MIT
"""Mutations of what runs at import, tried without importing all anew.

A constant is replaced wherever it is bound, a default where the class or function holds it. What else was made of them
stays as it was; a mutant that survives so is judged anew.
"""

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

_SIMPLE = (int, float, complex, str, bytes, bool, type(None), range, re.Pattern, FunctionType)


def defined(source: str, lines: range) -> frozenset[str]:
    """Return what a statement at a module's level defines, and the constants that are made of that.

    Args:
        source: the module.
        lines: those of the statement, or of one within a class.
    """
    found = set[str]()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef):
            if statement.lineno <= lines.start <= (statement.end_lineno or 0):
                found.add(statement.name)
            continue
        targets = {node.id for node in _targets(statement)}
        if statement.lineno in lines or found & {node.id for node in _names(statement)}:
            found |= targets
    return frozenset(found)


def users(paths: Iterable[Path], names: frozenset[str]) -> dict[str, frozenset[int]]:
    """Return the lines of the functions that have or use one of these names, by module."""
    found: dict[str, frozenset[int]] = {}
    for path in paths:
        lines = (lines for named, lines in _functions(path) if named & names)
        found[str(path)] = frozenset[int]().union(*lines)
    return found


@functools.cache
def _functions(path: Path) -> list[tuple[frozenset[str], frozenset[int]]]:
    """Return for each function of a module its name and those in it, and the lines of its body."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            named = {node.name, *(each.id for each in _names(node))}
            named |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            lines = range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
            found.append((frozenset(named), frozenset(lines)))
    return found


def _targets(statement: ast.stmt) -> Iterator[ast.Name]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    for target in targets:
        if target is not None:
            yield from _names(target)


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Name))


def replace(path: Path, mutated: str, names: frozenset[str]) -> bool:
    """Replace what a module defines at import by that of its mutated text: constants, and defaults.

    Args:
        path: the module.
        mutated: the text.
        names: what differs.

    Returns:
        False if something in it cannot be replaced: an object of a class that the module may define, whose class would
        be another one.
    """
    module = next(each for each in _modules() if getattr(each, "__file__", None) == str(path))
    namespace: dict[str, Any] = {"__name__": module.__name__, "__file__": str(path), "__package__": module.__package__}
    exec(compile(mutated, str(path), "exec"), namespace)  # noqa: S102 our own module
    return all(_replace_one(vars(module)[name], namespace[name], name) for name in names if name in vars(module))


def _replace_one(old: object, new: object, name: str) -> bool:
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        return _replace_defaults(old, new)
    if isinstance(old, type) and isinstance(new, type):
        pairs = [(value, vars(new).get(key), key) for key, value in vars(old).items()]
        functions = [(a, b) for a, b, _ in pairs if isinstance(a, FunctionType) and isinstance(b, FunctionType)]
        for a, b, key in pairs:
            if (not key.startswith("__")) and not isinstance(a, FunctionType) and _is_plain(b) and a != b:
                setattr(old, key, b)
        return all(_replace_defaults(a, b) for a, b in functions)
    if not _is_plain(new):
        return False
    for module in _modules():
        if vars(module).get(name) is old:
            setattr(module, name, new)
    return True


def _replace_defaults(old: FunctionType, new: FunctionType) -> bool:
    pairs = list(zip(old.__defaults__ or (), new.__defaults__ or (), strict=False))
    if len(old.__defaults__ or ()) != len(new.__defaults__ or ()) or not all(a is b or _is_plain(b) for a, b in pairs):
        return False
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
    return True


def _modules() -> list[ModuleType]:
    return [module for module in sys.modules.values() if isinstance(module, ModuleType)]


def _is_plain(value: object) -> bool:
    """Return whether two objects with the same contents are equal, whichever module made them."""
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_plain, value))
    return isinstance(value, _SIMPLE)
