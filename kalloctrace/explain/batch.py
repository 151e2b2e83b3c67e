# SPDX-License-Identifier: MIT
"""A batch of what-if requests: JSON lines, each with an answer of its own."""

import json
from typing import Any

from kalloctrace.explain.request import BadRequestError, WhatIf, answer_json


class Batch:
    """Answers the lines of a batch.

    Args:
        what_if: answers one request.
        kernel: the kernel of a line that names none; None if each line has to.
    """

    def __init__(self, what_if: WhatIf, kernel: str | None = None) -> None:
        """Start with no line failed."""
        self._what_if = what_if
        self._kernel = kernel
        self.failed = False
        """Whether a line was not valid."""

    def reply(self, number: int, text: bytes) -> dict[str, Any]:
        """Return the answer to a line as the JSON object of the contract.

        Args:
            number: the line's number, from 1.
            text: the line.
        """
        try:
            line = self._line(text)
            answer = self._what_if.answer(line)
            return answer_json(line["kernel"], answer)
        except BadRequestError as error:
            self.failed = True
            return {"type": "error", "line": number, "message": str(error)}

    def _line(self, text: bytes) -> Any:  # noqa: ANN401  (whatever JSON holds)
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as error:
            why = "the line is empty" if not text.strip() else f"not JSON: {error}"
            raise BadRequestError(why) from None
        if self._kernel is not None and isinstance(line, dict):
            line.setdefault("kernel", self._kernel)
        return line
