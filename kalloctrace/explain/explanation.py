# SPDX-License-Identifier: MIT
"""What `kalloctrace explain` shows for one request: the answer, the walkthrough, and the effect of settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from kalloctrace.console import Console
from kalloctrace.explain.answer_text import write_answer
from kalloctrace.explain.request import Answer, answer_json
from kalloctrace.explain.settings import parse_setting, with_setting
from kalloctrace.explain.text import explanation
from kalloctrace.explain.walkthrough import compared, walkthrough_of
from kalloctrace.explain.walkthrough_text import walkthrough_lines, write_alternatives, write_comparison
from kalloctrace.text import COLUMNS


@dataclass(frozen=True, slots=True)
class Explanation:
    """One request, explained.

    Attributes:
        name: the kernel's name in the request.
        answer: the original request and its preparation.
        settings: the inputs to change, in order.
        after: the request with these settings; equal to the answer if there are none.
    """

    name: str
    answer: Answer
    settings: tuple[str, ...]
    after: Answer

    @classmethod
    def of(cls, name: str, answer: Answer, settings: Sequence[str]) -> Self:
        """Apply the settings, one after the other.

        Raises:
            BadRequestError: a setting cannot be applied.
        """
        after = answer
        for setting in settings:
            after = with_setting(after, parse_setting(after.kernel, setting))
        return cls(name, answer, tuple(settings), after)

    def write(self, console: Console, *, full: bool) -> None:
        """Print it for people.

        Args:
            console: where to print.
            full: print the walkthrough, as wide as the terminal; otherwise the answer, or what the settings change.
        """
        width = max(COLUMNS, console.columns)
        if self.settings:
            comparison = compared(self.answer, self.after, self.settings)
            write_comparison(comparison, walkthrough_of(self.answer), walkthrough_of(self.after), console, width)
        if full:
            walkthrough = walkthrough_of(self.after)
            lines = walkthrough_lines(walkthrough, width)
            for heading, text in explanation(self.after.kernel.tables.kernel, self.after, lines, width):
                console.line((heading, "bold"))
                console.lines(text)
            write_alternatives(walkthrough, console, width)
        elif not self.settings:
            write_answer(self.name, self.answer, console)

    def to_json(self, *, brief: bool) -> dict[str, Any]:
        """Return the preparation as JSON values, with "lesson" (unless brief) and "set" (if there are settings)."""
        data = answer_json(self.name, self.answer)
        if not brief:
            data["lesson"] = walkthrough_of(self.answer).to_json()
        if self.settings:
            comparison = compared(self.answer, self.after, self.settings)
            data["set"] = {
                "settings": list(self.settings),
                "changes": [asdict(change) for change in comparison.changes],
                "rules": list(comparison.rules),
                "after": answer_json(self.after.kernel.tables.kernel, self.after),
            }
        return data
