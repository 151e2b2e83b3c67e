# SPDX-License-Identifier: MIT
"""The shape that JSON of a file must have: types, ranges and lengths, declared next to each other and checked once.

A shape is a function that takes a value and its path, and raises ShapeError where the value has another form.
`kalloctrace.kernel.snapshot` and `kalloctrace.trace.metadata` declare theirs with the functions of this module.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn, TypeAlias

Shape: TypeAlias = Callable[[object, str], None]

U31 = (1 << 31) - 1
U32 = (1 << 32) - 1
U53 = (1 << 53) - 1
"""The largest number that JSON carries through every program: a double holds it exactly (RFC 8259, section 6)."""


class ShapeError(ValueError):
    """A value has another form than its shape.

    Args:
        path: where it is, such as "machine.nodes[0].nid".
        why: what is wrong, for people.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} {why}")


def parse_json(data: bytes, most: int) -> Any:  # noqa: ANN401  (any JSON value)
    """Return the JSON value of a file's bytes.

    Args:
        data: UTF-8.
        most: bytes that it may have.

    Raises:
        ValueError: it is longer, is no JSON, or is nested too deeply.
    """
    if len(data) > most:
        raise ValueError(f"it has {len(data):,} bytes, more than {most:,}")
    try:
        return json.loads(data, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is no number")


def integer(low: int = 0, high: int = U32) -> Shape:
    """Return the shape of an integer from `low` to `high`."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ShapeError(path, "is no integer")
        if not low <= value <= high:
            raise ShapeError(path, f"is not from {low} to {high}")

    return check


def number(low: float, high: float) -> Shape:
    """Return the shape of a number, whole or not, from `low` to `high`."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise ShapeError(path, f"is no number from {low:g} to {high:g}")

    return check


def text(most: int) -> Shape:
    """Return the shape of a text of at most this many characters, all of them Unicode's."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, str) or len(value) > most:
            raise ShapeError(path, f"is no text of at most {most:,} characters")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ShapeError(path, "holds half of a surrogate pair") from None

    return check


def boolean(value: object, path: str) -> None:
    """Check that a value is true or false."""
    if not isinstance(value, bool):
        raise ShapeError(path, "is neither true nor false")


def choice(*values: str) -> Shape:
    """Return the shape of one of these texts."""

    def check(value: object, path: str) -> None:
        if value not in values:
            raise ShapeError(path, f"is none of {', '.join(values)}")

    return check


def optional(shape: Shape) -> Shape:
    """Return the shape of a value that may be null."""

    def check(value: object, path: str) -> None:
        if value is not None:
            shape(value, path)

    return check


def array(item: Shape, most: int) -> Shape:
    """Return the shape of a list of at most this many items."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, list | tuple):
            raise ShapeError(path, "is no list")
        if len(value) > most:
            raise ShapeError(path, f"has {len(value):,} items, more than {most:,}")
        for index, each in enumerate(value):
            item(each, f"{path}[{index}]")

    return check


def row(*items: Shape) -> Shape:
    """Return the shape of a list with exactly these items."""

    def check(value: object, path: str) -> None:
        if not isinstance(value, list | tuple) or len(value) != len(items):
            raise ShapeError(path, f"is no list of {len(items)}")
        for index, (item, each) in enumerate(zip(items, value, strict=True)):
            item(each, f"{path}[{index}]")

    return check


def mapping(key: Shape, value: Shape, most: int) -> Shape:
    """Return the shape of an object with any keys of a shape, at most this many."""

    def check(data: object, path: str) -> None:
        if not isinstance(data, Mapping):
            raise ShapeError(path, "is no object")
        if len(data) > most:
            raise ShapeError(path, f"has {len(data):,} keys, more than {most:,}")
        for name, each in data.items():
            key(name, f"a key of {path}")
            value(each, f"{path}.{name[:80]}")

    return check


def number_text(high: int) -> Shape:
    """Return the shape of a key that is a decimal number from 0 to `high`, written one way."""
    names = frozenset(map(str, range(high + 1)))

    def check(value: object, path: str) -> None:
        if value not in names:
            raise ShapeError(path, f"is no number from 0 to {high}")

    return check


def record(fields: Mapping[str, Shape], *, later: Collection[str] = ()) -> Shape:
    """Return the shape of an object with these keys. Other keys, of a newer writer, are ignored.

    Args:
        fields: the shape of each key's value.
        later: keys that an older writer does not have.
    """

    def check(value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise ShapeError(path, "is no object")
        for name, shape in fields.items():
            if name in value:
                shape(value[name], f"{path}.{name}" if path else name)
            elif name not in later:
                raise ShapeError(f"{path}.{name}" if path else name, "is missing")

    return check


def plain(value: object, path: str) -> None:
    """Check that the texts and numbers of a value of any form can be printed."""
    match value:
        case str():
            _PRINTABLE(value, path)
        case int() | float():
            if not -U53 <= value <= U53:
                raise ShapeError(path, "is no number that JSON carries")
        case list() | tuple():
            for index, each in enumerate(value):
                plain(each, f"{path}[{index}]")
        case dict():
            for name, each in value.items():
                _PRINTABLE(name, f"a key of {path}")
                plain(each, f"{path}.{name[:80]}")


_PRINTABLE = text(1 << 20)
