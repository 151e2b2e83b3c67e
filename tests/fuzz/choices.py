# SPDX-License-Identifier: MIT
"""Turns the bytes of a fuzzer into choices, so that its mutations change a well-formed input."""

from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

_NUMBERS = (
    *(0, 1, -1, 2, 7, 8, 10, 11, 30, 31, 32, 63, 64, 255, 256, 1023, 1024, 4096, 0xCC0, 1 << 22),
    *(
        (1 << 31) - 1,
        1 << 31,
        -(1 << 31),
        (1 << 32) - 1,
        1 << 32,
        1 << 53,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
        10**40,
    ),
)
_TEXTS = (
    *("", "0", "0-1", "0,2", "1023", "1024", "0-1023", "1-0", "-1", "x", "normal", "nolock", "bulk", "bulk_single"),
    *("tracepoint", "FALLBACK", "NOFALLBACK", "null", "caller", "mems_allowed", "other", "begins", "returns", "oom"),
    *(
        "direct_reclaim",
        "compaction",
        "\x1b[31m",
        "\u202e",
        "a;b",
        "ALLOC_OOM",
        "__GFP_NOFAIL",
        "ZONE_NORMAL",
        "6.12",
        "5.10",
    ),
    *("7.3", "0," * 3000, "a" * 300),
)

_FLIPS = 8


class Choices:
    """Choices by the bytes of an input, one after the other; the first of its kind once they are used up.

    Args:
        data: the input.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def __bool__(self) -> bool:
        """Whether bytes are left."""
        return self._next < len(self._data)

    def below(self, number: int) -> int:
        """Return a number from 0 to below `number`."""
        taken = self._data[self._next : self._next + (1 if number <= 256 else 2)]
        self._next += len(taken) or 1
        return int.from_bytes(taken, "little") % number if number else 0

    def of(self, values: Sequence[T]) -> T:
        """Return one of these values."""
        return values[self.below(len(values))]

    def value(self) -> Any:  # noqa: ANN401  (whatever a file may hold)
        """Return a number, a text, or another JSON value, mostly hostile."""
        match self.below(6):
            case 0 | 1:
                return self.of(_NUMBERS)
            case 2 | 3:
                return self.of(_TEXTS)
            case 4:
                return self.of((None, True, False, 1.5, 1e300, float("nan"), float("inf"), -0.0))
            case _:
                return self.of(([], {}, [0], [[0, 0]], [None], {"0": [[0, 1]]}, {"x": "y"}, [[]]))

    def rest(self) -> bytes:
        """Return the bytes that are left."""
        rest, self._next = self._data[self._next :], len(self._data)
        return rest


def change(value: Any, choices: Choices) -> Any:  # noqa: ANN401
    """Return a JSON value with something at a chosen place replaced, dropped or repeated."""
    if not isinstance(value, dict | list) or not value or not choices.below(8):
        return choices.value()
    what = choices.below(12)
    if isinstance(value, dict):
        name = choices.of(list(value))
        if what == 0:
            return {key: item for key, item in value.items() if key != name}
        return {**value, "added": choices.value()} if what == 1 else {**value, name: change(value[name], choices)}
    at = choices.below(len(value))
    if what > 2:
        return [*value[:at], change(value[at], choices), *value[at + 1 :]]
    return ([*value[:at], *value[at + 1 :]], [*value, value[at]], value * 40)[what]


def flip(data: bytes, choices: Choices) -> bytes:
    """Return data with a few chosen bytes replaced; more would only be refused sooner."""
    changed = bytearray(data)
    left = _FLIPS
    while choices and changed and left:
        left -= 1
        changed[choices.below(len(changed))] = choices.below(256)
    return bytes(changed)
