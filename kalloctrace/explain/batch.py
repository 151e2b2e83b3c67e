# SPDX-License-Identifier: MIT
"""A batch of what-if requests: JSON lines, each with an answer of its own."""

import json
from collections.abc import Sequence
from typing import Any

from kalloctrace.explain.request import BadRequestError, WhatIf, answer_json

LONGEST = 1 << 23
"""Bytes of a line: a machine with the most nodes, each with its own order, takes 5 MiB."""
_MESSAGE = 1000
"""Characters of a message, which quotes the line."""


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
            return {"type": "error", "line": number, "message": str(error)[:_MESSAGE]}

    def _line(self, text: bytes) -> Any:  # noqa: ANN401  (whatever JSON holds)
        if len(text) > LONGEST:
            raise BadRequestError(f"the line is longer than {LONGEST:,} bytes")
        try:
            line = json.loads(text, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            why = "the line is empty" if not text.strip() else f"not JSON: {error}"
            raise BadRequestError(why) from None
        if self._kernel is not None and isinstance(line, dict):
            line.setdefault("kernel", self._kernel)
        return line


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        raise BadRequestError(f"the key {next(name for name in names if names.count(name) > 1)} is there twice")
    return members
