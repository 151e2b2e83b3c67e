# SPDX-License-Identifier: MIT
"""What the program answers to a log, in the same process, as JSON objects."""

import io
from collections.abc import Iterable
from typing import Any

from kalloctrace.diagnose.from_log import NamedKernel, explain_failure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.logs.files import LogLines
from kalloctrace.logs.messages import read_messages

Answer = dict[str, Any]

PLACES = frozenset(("line", "lines", "log", "first", "last"))
"""Keys that say where in a file something is, or when it was printed."""


def answers_to(data: bytes, kernel: str | None = None) -> list[Answer]:
    """Return the answers of `explain --json`.

    Args:
        data: the file.
        kernel: as --kernel.
    """
    named = NamedKernel(kernel, "", builtin_tables(kernel)) if kernel is not None else None
    lines = LogLines(io.BytesIO(data))
    return [failure_json(explain_failure(logged, named)) for logged in find_failures(read_messages(lines))]


def _is_place(key: str) -> bool:
    return key in PLACES or key.endswith("_line")


def without_places(value: object) -> object:
    """Return an answer without what differs between two files that say the same."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items() if not _is_place(key)}
    if isinstance(value, list):
        return [without_places(each) for each in value]
    return value


def verdicts(answer: Answer) -> dict[tuple[int, str], str]:
    """Return the verdict on each zone."""
    return {(zone["node"], zone["zone"]): zone["verdict"] for zone in answer["zones"]}


def certain_zones(answer: Answer) -> dict[tuple[int, str], str]:
    """Return the verdicts that are certain."""
    certain = [zone for zone in answer["zones"] if zone["certainty"] == "certain"]
    return {(zone["node"], zone["zone"]): zone["verdict"] for zone in certain}


def differing(left: Iterable[Answer], right: Iterable[Answer]) -> str:
    """Return the keys in which two lists of answers differ, with both values; "" if they are alike."""
    one, other = [without_places(each) for each in left], [without_places(each) for each in right]
    if len(one) != len(other):
        return f"{len(one)} answers, {len(other)} answers"
    return "; ".join(
        f"{key}: {first.get(key)!r}, {second.get(key)!r}"
        for first, second in zip(one, other, strict=True)
        if isinstance(first, dict) and isinstance(second, dict)
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    )
