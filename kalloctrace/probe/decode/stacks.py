# SPDX-License-Identifier: MIT
"""Kernel stacks as text."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from kalloctrace.kernel.kallsyms import Symbols


def stack_text(symbols: Symbols, entries: AbstractSet[str | None], addresses: Sequence[int]) -> str:
    """Return a stack as text, from the outermost function to the traced entry; functions further in are the probe's.

    Args:
        symbols: the kernel's symbols.
        entries: the traced functions.
        addresses: the return addresses, innermost first.

    Returns:
        Function names, outermost first, separated by semicolons.
    """
    names = [symbols.function_at(address) for address in addresses]
    inner = next((i for i, name in enumerate(names) if name in entries), None)
    if inner is not None and names[inner + 2 : inner + 3] == [names[inner]]:
        # With fexit, the entry jumps to a trampoline that calls the rest of it, so the entry appears twice.
        inner += 2
    return ";".join(reversed(names[inner:]))
