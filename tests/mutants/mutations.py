# SPDX-License-Identifier: MIT
"""The mutations of a module: mutmut's operators, one that drops an operand, and the rules for what is left alone."""

import ast
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import libcst as cst
import libcst.matchers as m
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation import mutators

TEXT_NAMES = frozenset({"cause", "effect", "fix", "meaning", "mend", "note", "reason", "source", "text", "why"})
"""What is assigned to a variable of such a name, or passed as such an argument, is a text for people."""

Operator = Callable[[Any], Iterable[Any]]


@dataclass(frozen=True)
class Mutation:
    """One changed place of a module.

    Attributes:
        function: the qualified name of the function it is in, "" at the module's level.
        was: the changed lines as they are, without indentation.
        becomes: the lines in their place.
        lines: the numbers of its statement's lines; of a compound statement's head.
        source: the whole mutated module.
    """

    function: str
    was: str
    becomes: str
    lines: range
    source: str

    def diff(self) -> str:
        """Return the change as lines of a diff."""
        was = "\n".join(f"- {line}" for line in self.was.splitlines())
        becomes = "\n".join(f"+ {line}" for line in self.becomes.splitlines())
        return f"{was}\n{becomes}"


def mutations(source: str) -> list[Mutation]:
    """Return every mutation of a module that compiles, and that is not another one's twin.

    These are left alone, by rule:

    - texts for people: a string or f-string with a space in it, with all that it interpolates, and what is named so
      (`TEXT_NAMES`, the third argument of `Step`); docstrings; the arguments of loggers;
    - what only describes types: annotations, type aliases, decorators, the bases of classes, the type in `cast`.

    Args:
        source: the module.
    """
    wrapper = MetadataWrapper(cst.parse_module(source))
    module = wrapper.module
    positions = wrapper.resolve(PositionProvider)
    spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
    starts = list(itertools.accumulate(map(len, source.splitlines(keepends=True)), initial=0))
    statement = _statements(source, starts)
    found: dict[str, Mutation] = {}
    for node, function, lines in _mutable(module, "", range(0), positions):
        span = spans[node]
        before = source[: starts[span.start.line - 1] + span.start.column]
        after = source[starts[span.end.line - 1] + span.end.column :]
        begin, end = statement.get(span.start.line, (0, 0))
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                for new in operator(node):
                    code = before + module.code_for_node(new) + after
                    if code != source and code not in found and _compiles(code[begin : len(code) - end]):
                        found[code] = Mutation(function, *_changed_lines(source, code), lines, code)
    return list(found.values())


def _statements(source: str, starts: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return for each line its statement at the module's level: the characters before it and those behind it.

    Args:
        source: the module.
        starts: the place of each line's first character.
    """
    found: dict[int, tuple[int, int]] = {}
    for node in ast.parse(source).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        last = node.end_lineno or first
        found |= dict.fromkeys(range(first, last + 1), (starts[first - 1], len(source) - starts[last]))
    return found


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def _changed_lines(source: str, code: str) -> tuple[str, str]:
    """Return the lines that differ, without indentation, before and after."""
    old, new = source.splitlines(), code.splitlines()
    while old and new and old[0] == new[0]:
        del old[0], new[0]
    while old and new and old[-1] == new[-1]:
        del old[-1], new[-1]
    return "\n".join(map(str.strip, old)), "\n".join(map(str.strip, new))


def changed_code(source: str, mutated: str, path: str) -> list[tuple[CodeType, CodeType]] | None:
    """Return the code of the functions that a mutation changes, before and after.

    Args:
        source: the module.
        mutated: the mutated module.
        path: its file.

    Returns:
        None when the mutation changes what runs while the module is imported.
    """
    pairs = []
    pending = [(_compiled(source, path), compile(mutated, path, "exec"), True)]
    while pending:
        old, new, imported = pending.pop()
        inner, inner_new = _inner(old), _inner(new)
        if imported and (len(inner) != len(inner_new) or _own(old) != _own(new)):
            return None
        if not imported and old != new:
            pairs.append((old, new))
        # A function's code has CO_OPTIMIZED, that of a module or class has not.
        pending += [
            (a, b, imported and not a.co_flags & inspect.CO_OPTIMIZED) for a, b in zip(inner, inner_new, strict=False)
        ]
    return pairs


@functools.lru_cache(1)
def _compiled(source: str, path: str) -> CodeType:
    """Compile a module, which all its mutants are compared with."""
    return compile(source, path, "exec")


def _inner(code: CodeType) -> list[CodeType]:
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]


def _own(code: CodeType) -> tuple[object, ...]:
    own = [(type(constant), repr(constant)) for constant in code.co_consts if not isinstance(constant, CodeType)]
    return code.co_code, own, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars


def _mutable(
    node: cst.CSTNode, function: str, lines: range, positions: Mapping[cst.CSTNode, CodeRange]
) -> Iterator[tuple[cst.CSTNode, str, range]]:
    """Yield the nodes that may be mutated, each with its function and the lines of its statement."""
    if _left_alone(node):
        return
    if isinstance(node, cst.BaseStatement):
        start, end = positions[node].start.line, positions[node].end.line + 1
        body = getattr(node, "body", None)
        # Of a compound statement, the head.
        lines = range(start, max(positions[body].start.line, start + 1) if isinstance(body, cst.BaseSuite) else end)
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        function = f"{function}.{node.name.value}".lstrip(".")
        children: list[cst.CSTNode] = [*([node.params] if isinstance(node, cst.FunctionDef) else []), node.body]
    else:
        yield node, function, lines
        children = list(node.children)
    for child in children:
        yield from _mutable(child, function, lines, positions)


def _left_alone(node: cst.CSTNode) -> bool:
    """Return whether nothing in a node is mutated."""
    if isinstance(node, cst.Annotation | cst.Import | cst.ImportFrom | cst.Decorator):
        return True
    if isinstance(node, cst.Expr) and isinstance(node.value, cst.SimpleString | cst.ConcatenatedString):
        return True  # a docstring
    if isinstance(node, cst.Assign | cst.AnnAssign | cst.AugAssign):
        return _is_text_assignment(node) or _is_type_alias(node)
    if isinstance(node, cst.Arg) and node.keyword is not None:
        return node.keyword.value in TEXT_NAMES
    if isinstance(node, cst.Call):
        return _called(node).lower().startswith(("_log.", "logging."))
    return isinstance(node, cst.BaseString) and _is_text(node)


def _is_text(node: cst.CSTNode) -> bool:
    """Return whether an expression is a text for people: a string with a space in it."""
    if isinstance(node, cst.SimpleString):
        return " " in node.raw_value and "r" not in node.prefix
    if isinstance(node, cst.ConcatenatedString):
        return _is_text(node.left) or _is_text(node.right)
    if isinstance(node, cst.FormattedString):
        return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    if isinstance(node, cst.BinaryOperation):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, cst.IfExp) and (_is_text(node.body) or _is_text(node.orelse))


def _is_text_assignment(node: cst.Assign | cst.AnnAssign | cst.AugAssign) -> bool:
    targets = [target.target for target in node.targets] if isinstance(node, cst.Assign) else [node.target]
    return all(isinstance(target, cst.Name) and target.value in TEXT_NAMES for target in targets)


def _is_type_alias(node: cst.Assign | cst.AnnAssign | cst.AugAssign) -> bool:
    value = node.value
    while isinstance(value, cst.BinaryOperation) and isinstance(value.operator, cst.BitOr):
        value = value.right
    if isinstance(value, cst.Call):
        return _called(value) in {"TypeVar", "NewType", "NamedTuple"}
    return isinstance(value, cst.Subscript) and cst.Module([]).code_for_node(value.value) in {
        "Callable",
        "Iterable",
        "Literal",
        "Mapping",
        "Sequence",
        "dict",
        "list",
        "tuple",
    }


def _called(node: cst.Call) -> str:
    return cst.Module([]).code_for_node(node.func)


def _text_arguments(node: cst.Call) -> set[int]:
    """Return the places of a call's arguments that are texts for people."""
    names = {2} if _called(node) == "Step" else set()
    for place, argument in enumerate(node.args):
        if _is_text(argument.value) or (argument.keyword is not None and argument.keyword.value in TEXT_NAMES):
            names.add(place)
        if isinstance(argument.value, cst.Name) and argument.value.value in TEXT_NAMES:
            names.add(place)
    return names


def _arguments(node: cst.Call) -> Iterator[cst.Call]:
    """Put None in place of a positional argument, and drop one with a keyword, unless it is a text or a type."""
    left_alone = _text_arguments(node) | ({0} if _called(node) in {"cast", "isinstance"} else set())
    for place, argument in enumerate(node.args):
        if place in left_alone or argument.star:
            continue
        before, after = node.args[:place], node.args[place + 1 :]
        if argument.keyword is not None:
            yield node.with_changes(args=[*before, *after])
        elif not m.matches(argument.value, m.Name("None")):
            yield node.with_changes(args=[*before, argument.with_changes(value=cst.Name("None")), *after])


def _string(node: cst.BaseString) -> Iterator[cst.BaseString]:
    """Change a string once; mutmut also changes its case, which fails the same tests."""
    yield from list(mutators.operator_string(node))[:1]


def _operand(node: cst.BinaryOperation | cst.BooleanOperation) -> Iterator[cst.BaseExpression]:
    """Drop one operand of `|`, `&`, `and` and `or`."""
    if isinstance(node.operator, cst.BitOr | cst.BitAnd | cst.And | cst.Or):
        for operand in (node.left, node.right):
            yield operand.with_changes(
                lpar=[*node.lpar, cst.LeftParen(), *operand.lpar], rpar=[*operand.rpar, cst.RightParen(), *node.rpar]
            )


_REPLACED: dict[Operator, Operator] = {mutators.operator_arg_removal: _arguments, mutators.operator_string: _string}
_MUTMUT: Sequence[tuple[type, Operator]] = mutators.mutation_operators
OPERATORS: tuple[tuple[type, Operator], ...] = (
    *((kind, _REPLACED.get(operator, operator)) for kind, operator in _MUTMUT),
    (cst.BinaryOperation, _operand),
    (cst.BooleanOperation, _operand),
)
