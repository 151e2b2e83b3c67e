# SPDX-License-Identifier: MIT
"""The texts of a page, each stored once."""

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
