# SPDX-License-Identifier: MIT
"""Decoded masks as JSON objects and as text."""

import textwrap
from typing import TYPE_CHECKING

from kalloctrace.flags.decode import Decoded
from kalloctrace.flags.meanings import meaning
from kalloctrace.flags.tables import FlagTables
from kalloctrace.text import COLUMNS

if TYPE_CHECKING:
    from kalloctrace.flags.textsearch import Found

_NO_NAME = "no name on this kernel"


def decoded_json(decoded: Decoded, tables: FlagTables) -> dict[str, object]:
    """Return the object that `decode --json` prints for a value."""
    return {
        "type": decoded.kind,
        "value": decoded.value,
        "hex": f"{decoded.value:#x}",
        "names": list(decoded.names),
        "unknown": decoded.unknown,
        "text": decoded.text,
        "kernel": tables.kernel,
        "source": tables.source,
    }


def found_json(found: "Found") -> dict[str, object]:
    """Return the object that `decode --json -` prints for a mask in a text.

    `value` and `hex` are null if the text does not determine them, `kernel` is null if the text names none. `unknown`
    holds all bits that could not be decoded.
    """
    decoded = found.decoded
    return {
        "type": found.kind,
        "value": found.value,
        "hex": None if found.value is None else f"{found.value:#x}",
        "names": list(decoded.names if decoded is not None else found.printed),
        "unknown": _unknown_bits(found),
        "text": decoded.text if decoded is not None else "|".join(found.printed),
        "kernel": found.kernel or None,
        "source": found.source,
        "line": found.line,
        "column": found.column,
        "form": found.form,
        "printed": list(found.printed),
        "note": found.note,
    }


def _unknown_bits(found: "Found") -> int:
    if found.decoded is not None:
        return found.decoded.unknown
    return 0 if found.printed or found.value is None else found.value


def found_line(found: "Found") -> str:
    """Return the line that `decode -` prints for a mask in a text."""
    value = "0x?" if found.value is None else f"{found.value:#x}"
    decoded = found.decoded
    names = decoded.text if decoded is not None else "|".join(found.printed)
    if not names:
        names = "no flags" if found.value == 0 else "?"
    where = f" ({found.kernel})" if found.kernel else ""
    note = f"  [{found.note}]" if found.note else ""
    return f"line {found.line}: {found.form} mode {value} = {names}{where}{note}"


def block(decoded: Decoded, tables: FlagTables) -> list[str]:
    """Return the lines that `decode` prints for a value: the names, then each bit with its meaning."""
    head = f"{decoded.value:#x} = {decoded.text or 'no flags'}"
    kind = "gfp" if decoded.kind == "gfp" else "alloc_flags"
    lines = [head, f"  {kind} of kernel {tables.kernel} ({tables.source})"]
    bits = _bits(decoded, tables)
    width = max((len(name) for _, name, _ in bits), default=0)
    digits = max((len(f"{value:#x}") for value, _, _ in bits), default=0)
    for value, name, sentence in bits:
        lines += _wrapped(f"  {value:#{digits}x}  {name:<{width}}  ", sentence)
    return lines + _compounds(decoded)


def _bits(decoded: Decoded, tables: FlagTables) -> list[tuple[int, str, str]]:
    if decoded.kind == "gfp":
        known = [(bit, name) for name, bit in tables.gfp_bits if decoded.value & bit]
    else:
        known = [(bit, name) for name, bit in tables.alloc if name in decoded.names]
    listed = [(bit, name, meaning(name)) for bit, name in known]
    rest = decoded.value
    for bit, _ in known:
        rest &= ~bit
    return listed + [(1 << at, "?", _NO_NAME) for at in range(32) if rest >> at & 1]


def _compounds(decoded: Decoded) -> list[str]:
    """Explain the GFP_* names: they stand for several bits, or rename one bit."""
    if decoded.kind != "gfp":
        return []
    compounds = [name for name in decoded.names if not name.startswith("__")]
    return [line for name in compounds for line in _wrapped(f"  {name}: ", meaning(name))]


def _wrapped(start: str, sentence: str) -> list[str]:
    return textwrap.wrap(
        sentence, COLUMNS, initial_indent=start, subsequent_indent=" " * len(start), break_long_words=False
    ) or [start.rstrip()]
