# SPDX-License-Identifier: MIT
"""What a running kernel publishes of its flags: the tracefs format file and the enums in BTF."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.cexpr import evaluate
from kalloctrace.flags.decode import U32_MAX
from kalloctrace.flags.tables import FlagTables, Named

_PRINT_GFP = re.compile(r'__print_flags\s*\([^,{}"]*gfp_flags[^,{}"]*,\s*"\|"\s*,')
_ENTRY = re.compile(r'\s*,?\s*\{(?P<mask>[^{}"]*),\s*"(?P<name>\w+)"\s*\}')

_BIT_NAME = re.compile(r"_(__GFP_\w+)_BIT")
# Enumerators that stand for no flag.
_NO_FLAGS = ("__GFP_UNUSED", "__GFP_LAST")
# include/linux/gfp_types.h: part of these compounds where KASAN_HW_TAGS gives the bit a place.
_SKIP_KASAN = "__GFP_SKIP_KASAN"
_WITH_SKIP_KASAN = ("GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE_LIGHT", "GFP_TRANSHUGE")
# include/trace/events/mmflags.h before 6.15, __def_gfpflag_names_kasan: at the end of the list.
_LISTED_WITH_HW_TAGS = ("__GFP_SKIP_ZERO", _SKIP_KASAN)


def from_tracefs_format(text: str, names: Mapping[str, int] | None = None) -> Named:
    """Read the table that `%pGg` walks out of events/kmem/mm_page_alloc/format.

    Args:
        text: the format file.
        names: the values of ___GFP_*_BIT, for kernels from 6.9 on without 60295b944ff6 ("tracing: gfp: Fix
            the GFP enum values shown for user space tracing tools"): they leave the enumerators' names in the
            text.

    Returns:
        Names and masks (`gfp_t`), in the kernel's order.

    Raises:
        KalloctraceError: there is no such table in the text, or it cannot be evaluated.
    """
    start = _PRINT_GFP.search(text)
    if start is None:
        raise KalloctraceError(
            "no gfp flags in the tracefs format",
            "its print fmt does not print gfp_flags by name",
            "give the text of events/kmem/mm_page_alloc/format",
        )
    entries = []
    at = start.end()
    while (entry := _ENTRY.match(text, at)) is not None:
        entries.append((entry["name"], evaluate(entry["mask"], names) & U32_MAX))
        at = entry.end()
    if not entries:
        raise KalloctraceError(
            "cannot read the gfp flags in the tracefs format",
            "no name follows where the names should be",
            "name the kernel with --kernel, to decode with built-in tables",
        )
    return tuple(entries)


def from_btf_enums(base: FlagTables, enums: Mapping[str, Sequence[tuple[str, int]]]) -> FlagTables:
    """Replace what BTF knows better.

    The bits of a mask depend on the kernel's configuration, and kernels from 6.9 on publish them
    (772dd0342727 ("mm: enumerate all gfp flags")). Compounds are no enumerators: they follow their bits to
    the new places.

    Args:
        base: the tables to correct.
        enums: enumerators in BTF's order: "gfp" (___GFP_*_BIT), "migratetype", "zone_type",
            "zone_watermarks"; one that is missing or empty changes nothing.
    """
    if not any(enums.get(kind) for kind in ("gfp", "migratetype", "zone_type", "zone_watermarks")):
        return base
    tables = replace(
        base,
        source=base.source if "btf" in base.source.split("+") else f"{base.source}+btf",
        migratetype=tuple(enums.get("migratetype") or base.migratetype),
        zone_type=tuple(enums.get("zone_type") or base.zone_type),
        zone_watermarks=tuple(enums.get("zone_watermarks") or base.zone_watermarks),
    )
    gfp_bits = _gfp_bits(enums.get("gfp") or ())
    if not gfp_bits:
        return tables
    if "tracefs" in base.source.split("+"):
        # The print table came from the same kernel already.
        return replace(tables, gfp_bits=gfp_bits)
    return replace(tables, gfp_bits=gfp_bits, gfp_print=_moved_print(base, gfp_bits))


def _gfp_bits(members: Sequence[tuple[str, int]]) -> Named:
    bits = []
    for member, position in members:
        match = _BIT_NAME.fullmatch(member)
        if match is not None and match[1] not in _NO_FLAGS:
            bits.append((match[1], 1 << position))
    return tuple(sorted(bits, key=lambda bit: bit[1]))


def _moved_print(base: FlagTables, gfp_bits: Named) -> Named:
    old, new = dict(base.gfp_bits), dict(gfp_bits)
    compounds = []
    for name, mask in base.gfp_print:
        if name in new:
            continue
        moved = sum(new.get(bit, 0) for bit, value in base.gfp_bits if mask & value)
        if name in _WITH_SKIP_KASAN:
            moved |= new.get(_SKIP_KASAN, 0)
        if name not in old and moved:
            compounds.append((name, moved))
    if "__GFP_DMA" in dict(base.gfp_print):
        # Since 6.15 the list ends with every single bit, ascending.
        return (*compounds, *gfp_bits)
    values = {**dict(compounds), **new}
    listed = [name for name, _ in base.gfp_print]
    listed += [name for name in _LISTED_WITH_HW_TAGS if name not in listed]
    return tuple((name, values[name]) for name in listed if name in values)
