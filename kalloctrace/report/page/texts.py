# SPDX-License-Identifier: MIT
"""The texts of a page."""

from typing import Any

from kalloctrace.text import printable


class Texts:
    """Gives each text a number; the page refers to texts by number and holds one list of texts."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Return the number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def to_json(self) -> list[str]:
        """Return all texts in the order of their numbers."""
        return [printable(text) for text in self._numbers]


def printable_json(value: Any) -> Any:  # noqa: ANN401 any JSON value
    """Return a JSON value whose texts control and hide nothing."""
    match value:
        case str():
            return printable(value)
        case list():
            return [printable_json(each) for each in value]
        case dict():
            return {key: printable_json(each) for key, each in value.items()}
    return value
