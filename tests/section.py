# SPDX-License-Identifier: MIT
"""Writes text into a page between two markers."""

from pathlib import Path

from kalloctrace.errors import KalloctraceError


def write_section(path: Path, begin: str, end: str, text: str) -> None:
    """Replace the text between two markers of a page.

    Args:
        path: the page.
        begin: the first marker, on its own line.
        end: the second marker.
        text: the new text.

    Raises:
        KalloctraceError: a marker is missing.
    """
    page = path.read_text(encoding="utf-8")
    before, first, rest = page.partition(begin)
    _, second, after = rest.partition(end)
    if not first or not second:
        raise KalloctraceError(
            f"cannot write the table into {path}",
            "one of its two markers is missing",
            f"add the lines {begin} and {end} where the table belongs",
        )
    path.write_text(f"{before}{first}\n\n{text}\n\n{second}{after}", encoding="utf-8")
