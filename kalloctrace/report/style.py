# SPDX-License-Identifier: MIT
"""How text stands out on a terminal, and only there."""

import os
from typing import TextIO

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def heading(text: str, stream: TextIO) -> str:
    """Return a heading for a stream: bold on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return f"{_BOLD}{text}{_PLAIN}" if stream.isatty() and not os.environ.get("NO_COLOR") else text
