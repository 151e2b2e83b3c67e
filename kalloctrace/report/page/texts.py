# SPDX-License-Identifier: MIT
"""The texts of a page, each of which it holds once."""

from kalloctrace.text import printable


class Texts:
    """Gives each text a number; the page has the numbers, and one list of what they stand for."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        """Return the number of a text."""
        return self._numbers.setdefault(text, len(self._numbers))

    def to_json(self) -> list[str]:
        """Return the texts by their numbers, once all have one."""
        return [printable(text) for text in self._numbers]
