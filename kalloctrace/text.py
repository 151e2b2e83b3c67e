# SPDX-License-Identifier: MIT
"""How text stands out on a terminal, and only there."""

import os
from typing import TextIO

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def is_bold(stream: TextIO) -> bool:
    """Tell whether headings are bold: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def heading(text: str, stream: TextIO) -> str:
    """Return a heading for a stream."""
    return f"{_BOLD}{text}{_PLAIN}" if is_bold(stream) else text
