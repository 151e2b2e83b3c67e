# SPDX-License-Identifier: MIT
"""Kernel stacks as text."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.trace.schema import MOST_STACK


def stack_text(symbols: Symbols, entries: AbstractSet[str | None], addresses: Sequence[int]) -> str:
    """Return a stack as text, from the outermost function to the traced entry; functions further in are the probe's.

    Args:
        symbols: the kernel's symbols.
        entries: the traced functions.
        addresses: the return addresses, innermost first.

    Returns:
        Function names, outermost first, separated by semicolons; without the outermost ones where they take more bytes
        than a reader accepts.
    """
    names = [symbols.function_at(address) for address in addresses]
    inner = next((i for i, name in enumerate(names) if name in entries), None)
    if inner is not None and names[inner + 2 : inner + 3] == [names[inner]]:
        # With fexit, the entry jumps to a trampoline that calls the rest of it, so the entry appears twice.
        inner += 2
    text = ";".join(reversed(names[inner:]))
    if len(text) > MOST_STACK:
        # From the first whole name on.
        text = text[-MOST_STACK:].partition(";")[2]
    return text
