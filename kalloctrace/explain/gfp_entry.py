# SPDX-License-Identifier: MIT
"""An entry for each gfp flag: its meaning, from the page about all of them, and its values."""

import re
from collections.abc import Iterator
from itertools import groupby

from kalloctrace.flags.builtin import builtin_kernels, builtin_tables

PAGE = "gfp-flags"
"""The page with the meaning of each flag."""

_ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
_HEADS = {
    "en": ("| kernels | value | bits |", "See also"),
    "zh-cn": ("| 内核 | 数值 | 位 |", "另见"),
}


def gfp_flag(word: str) -> str | None:
    """Return the gfp flag that a word names, in the kernel's spelling; None if no kernel has it.

    Args:
        word: a name such as GFP_ATOMIC or __GFP_IO; case does not matter.
    """
    name = word.strip().upper()
    return name if any(True for _ in _values(name)) else None


def gfp_entry(name: str, language: str, page: str) -> str:
    """Return the entry about a flag as Markdown.

    Args:
        name: one that `gfp_flag` returned.
        language: of the page.
        page: the text of the page about all flags.
    """
    head, more = _HEADS[language]
    meaning = dict(_ROW.findall(page))[name]
    lines = [f"# {name}", "", meaning, "", head, "| --- | --- | --- |"]
    for (value, bits), run in groupby(_values(name), key=lambda found: found[1:]):
        kernels = [kernel for kernel, *_ in run]
        span = kernels[0] if len(kernels) == 1 else f"{kernels[0]} – {kernels[-1]}"
        lines.append(f"| {span} | {value:#x} | {bits} |")
    return "\n".join([*lines, "", f"## {more}", "", f"[{PAGE}]({PAGE}.md)", ""])


def _values(name: str) -> Iterator[tuple[str, int, str]]:
    """Yield the kernels that have a flag, oldest first, with its value and the names of its bits."""
    for kernel in builtin_kernels():
        tables = builtin_tables(kernel)
        if tables.has_gfp(name):
            value = tables.gfp(name)
            bits = [bit for bit, mask in tables.gfp_bits if mask & value]
            yield kernel, value, ", ".join(bits)
