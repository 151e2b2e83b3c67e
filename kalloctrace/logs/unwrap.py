# SPDX-License-Identifier: MIT
"""Which lines continue the line before: a mail or a terminal wrapped them."""

import re

_ZONE = "DMA|DMA32|Normal|HighMem|Movable|Device"
# Lines that a mail wraps, and lines that do not continue one: "active_anon:" and others follow Mem-Info on their own
# lines, without a prefix.
_LONG_LINE = re.compile(rf"page allocation|invoked oom-killer|(?:Node \d+ )?(?:{_ZONE})(?: free:|: )|CPU: ")
_NEW_LINE = re.compile(rf"(?:active|unevictable|slab_|mapped|free:|Node \d|(?:{_ZONE})[: ]|lowmem_reserve|\d+ pages)")
_LONGEST = 1024
"""Characters of a kernel message: LOG_LINE_MAX and the prefix, 1 KiB together, in kernel/printk/printk.c."""


def continues(last: str, text: str) -> bool:
    """Return whether a line without a prefix continues the one before."""
    if len(last) + len(text) >= _LONGEST:
        return False
    return _LONG_LINE.search(last) is not None and (" free:" in last or _NEW_LINE.match(text.strip()) is None)
