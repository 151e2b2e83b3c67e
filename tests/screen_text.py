# SPDX-License-Identifier: MIT
"""A screen as lines of text, and its comparison with the stored lines."""

import os
import re
from html import unescape
from pathlib import Path

from textual.app import App

KEPT = Path(__file__).parent / "unit" / "data" / "live"
_TEXT = re.compile(
    r'<text class="[^"]*-(?P<style>r\d+)" x="(?P<x>[\d.]+)" [^>]*clip-path="url\(#[^)]*-line-(?P<line>\d+)\)">'
    r"(?P<text>[^<]*)</text>"
)
_CELL = 12.2
"""Width of a character in Textual's screenshots."""


def lines_of(app: App[None]) -> list[str]:
    """Return the lines of a screen, from Textual's screenshot."""
    lines: dict[int, str] = {}
    for found in _TEXT.finditer(app.export_screenshot()):
        number, at = int(found["line"]), round(float(found["x"]) / _CELL)
        text = unescape(found["text"]).replace("\xa0", " ")
        lines[number] = lines.get(number, "").ljust(at) + text
    return [lines.get(number, "").rstrip() for number in range(app.size.height)]


def assert_as_kept(app: App[None], name: str) -> None:
    """Compare a screen with the stored one of this name.

    With KALLOCTRACE_KEEP_SCREENS=1 store the screen instead; review the diff before you commit it.
    """
    shown = "".join(f"{line}\n" for line in lines_of(app))
    path = KEPT / f"{name}.txt"
    if os.environ.get("KALLOCTRACE_KEEP_SCREENS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown)
    assert shown == path.read_text(), f"{path} differs from the screen"
