# SPDX-License-Identifier: MIT
"""Stacks of kernel functions as text."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from kalloctrace.kernel.kallsyms import Symbols


def stack_text(symbols: Symbols, entries: AbstractSet[str | None], addresses: Sequence[int]) -> str:
    """Return a stack as text, from its outermost function to an entry: further in there is only the probe.

    Args:
        symbols: the kernel's.
        entries: functions that are traced.
        addresses: innermost first.

    Returns:
        The names with semicolons between them, outermost first.
    """
    names = [symbols.function_at(address) for address in addresses]
    inner = next((i for i, name in enumerate(names) if name in entries), None)
    if inner is None:
        inner = 0
    elif names[inner + 2 : inner + 3] == [names[inner]]:
        # Where its return is traced by fexit, an entry jumps to a trampoline that calls what is left of it.
        inner += 2
    return ";".join(reversed(names[inner:]))
