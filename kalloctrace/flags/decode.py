# SPDX-License-Identifier: MIT
"""Converts masks to names and back, exactly as one kernel prints them."""

import re
from dataclasses import dataclass

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.tables import FlagTables, Named

U32_MAX = 0xFFFFFFFF
# The two low bits of alloc_flags are an index into the zone's watermarks (mm/internal.h, ALLOC_WMARK_MASK).
WMARK_MASK = 0x3

_NUMBER = re.compile(r"(?P<hex>0[xX][0-9a-fA-F]+)|[0-9]+", re.ASCII)
_LONGEST = 100
# The text that the kernel's tracepoints print for a mask of zero.
_NONE = "none"


@dataclass(frozen=True)
class Decoded:
    """A decoded mask.

    Attributes:
        kind: "gfp" or "alloc_flags".
        value: the mask, unsigned 32-bit.
        names: its names, in the order in which the kernel prints them.
        unknown: the bits without a name on that kernel.
        text: the names joined by "|", then the unknown bits as hex; "" for a gfp mask of zero.
    """

    kind: str
    value: int
    names: tuple[str, ...]
    unknown: int
    text: str


def decode_gfp(value: int, tables: FlagTables) -> Decoded:
    """Decode a gfp mask (`gfp_t`) as that kernel's `%pGg` does (lib/vsprintf.c, format_flags).

    Raises:
        KalloctraceError: the value does not fit 32 bits (exit code 2).
    """
    _check_range(value, str(value))
    names, unknown = _walk(value, tables.gfp_print)
    return _decoded("gfp", value, names, unknown)


def decode_alloc(value: int, tables: FlagTables) -> Decoded:
    """Decode alloc_flags (`unsigned int`): the watermark first, then the bits in ascending order.

    The watermark index 3 has no ALLOC_WMARK_* name; it is reported as unknown bits.

    Raises:
        KalloctraceError: the value does not fit 32 bits (exit code 2).
    """
    _check_range(value, str(value))
    index = value & WMARK_MASK
    watermark = next((name for name, member in tables.alloc if member == index), None)
    bits = tuple(entry for entry in tables.alloc if entry[1] > WMARK_MASK)
    names, unknown = _walk(value & ~WMARK_MASK, bits)
    if watermark is None:
        return _decoded("alloc_flags", value, names, unknown | index)
    return _decoded("alloc_flags", value, (watermark, *names), unknown)


def decode_text(text: str, tables: FlagTables, kind: str = "gfp") -> Decoded:
    """Decode a mask as people write it; the arguments and errors are those of `parse_flags`.

    Names of alloc_flags without a watermark's are taken for single flags, not for whole alloc_flags: the watermark
    ALLOC_WMARK_MIN, whose value is 0, is not added.
    """
    value = parse_flags(text, tables, kind)
    if kind == "gfp":
        return decode_gfp(value, tables)
    watermarks = {name for name, member in tables.alloc if member <= WMARK_MASK}
    decoded = decode_alloc(value, tables)
    words = {word.strip() for word in text.split("|")}
    if words & watermarks or not words <= {name for name, _ in tables.alloc}:
        return decoded
    names = tuple(name for name in decoded.names if name not in watermarks)
    return _decoded("alloc_flags", value, names, decoded.unknown)


def _walk(value: int, table: Named) -> tuple[tuple[str, ...], int]:
    names = []
    for name, mask in table:
        if value & mask == mask:
            names.append(name)
            value &= ~mask
    return tuple(names), value


def _decoded(kind: str, value: int, names: tuple[str, ...], unknown: int) -> Decoded:
    words = (*names, f"{unknown:#x}") if unknown else names
    return Decoded(kind, value, names, unknown, "|".join(words))


def parse_flags(text: str, tables: FlagTables, kind: str = "gfp") -> int:
    """Parse a mask as people and kernels write it.

    Args:
        text: decimal or 0x hex numbers and names, joined by "|"; "" and "none" mean zero.
        tables: the kernel's names.
        kind: "gfp" or "alloc_flags".

    Returns:
        The mask, unsigned 32-bit.

    Raises:
        KalloctraceError: a word is neither a number nor a flag of this kernel, or does not fit 32 bits (exit code 2).
    """
    if text.strip() in ("", _NONE):
        return 0
    value = 0
    for word in text.split("|"):
        value |= _parse_word(word.strip(), text, tables, kind)
    return value


def _parse_word(word: str, text: str, tables: FlagTables, kind: str) -> int:
    number = _NUMBER.fullmatch(word)
    if number is not None:
        # Python refuses to convert decimals of some thousand digits.
        value = int(word, 16 if number["hex"] else 10) if len(word) < _LONGEST else U32_MAX + 1
        return _check_range(value, word)
    if kind == "gfp":
        if tables.has_gfp(word):
            return tables.gfp(word)
    else:
        values = dict(tables.alloc)
        if word in values:
            return values[word]
    raise _unknown_word(word, text, tables, kind)


def _check_range(value: int, text: str) -> int:
    if 0 <= value <= U32_MAX:
        return value
    raise KalloctraceError(
        f"{text} is out of range",
        "gfp masks and alloc_flags are unsigned 32-bit numbers",
        "give a value from 0 to 0xffffffff",
        Exit.USAGE,
    )


def _unknown_word(word: str, text: str, tables: FlagTables, kind: str) -> KalloctraceError:
    from difflib import get_close_matches  # noqa: PLC0415 - slow to import, needed for errors only

    from kalloctrace.flags.builtin import releases_with  # noqa: PLC0415 - likewise

    if word == "":
        return KalloctraceError(
            f"cannot read {text!r}",
            "a name or a number is missing before or after |",
            "join names and numbers by single | signs, in quotes: 'GFP_KERNEL|__GFP_ZERO'",
            Exit.USAGE,
        )
    known = [name for name, _ in (tables.alloc if kind != "gfp" else tables.gfp_print + tables.gfp_bits)]
    elsewhere = releases_with(word)
    close = list(dict.fromkeys(get_close_matches(word.upper(), known)))
    why = f"kernel {tables.kernel} has no {'gfp flag' if kind == 'gfp' else 'alloc flag'} of that name"
    if elsewhere:
        why += f"; these have it: {', '.join(elsewhere)}"
    fix = f"did you mean {' or '.join(close)}?" if close else "give a number, or a name such as " + known[0]
    return KalloctraceError(f"cannot read {word!r}", why, fix, Exit.USAGE)
