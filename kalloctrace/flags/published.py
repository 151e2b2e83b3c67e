# SPDX-License-Identifier: MIT
"""Flag tables from what a kernel publishes: the tracefs format file and the enums in BTF."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.cexpr import evaluate
from kalloctrace.flags.decode import U32_MAX
from kalloctrace.flags.tables import FlagTables, Named

# Repetitions are bounded or possessive, so that no text makes a match slow.
_PRINT_GFP = re.compile(r'__print_flags\s{0,8}\([^,{}"]{0,64}gfp_flags[^,{}"]{0,64},\s{0,8}"\|"\s{0,8},')
_ENTRY = re.compile(r'\s*+,?+\s*+\{(?P<mask>[^{}"]{0,4096}),\s{0,8}"(?P<name>\w{1,64})"\s{0,8}\}')

_BIT_NAME = re.compile(r"_(__GFP_\w+)_BIT")
# Enumerators that are not flags.
_NO_FLAGS = ("__GFP_UNUSED", "__GFP_LAST")
# include/linux/gfp_types.h: with KASAN_HW_TAGS these compounds contain the bit.
_SKIP_KASAN = "__GFP_SKIP_KASAN"
_WITH_SKIP_KASAN = ("GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE_LIGHT", "GFP_TRANSHUGE")
# include/trace/events/mmflags.h before 6.15, __def_gfpflag_names_kasan: these names end the list.
_LISTED_WITH_HW_TAGS = ("__GFP_SKIP_ZERO", _SKIP_KASAN)


def from_tracefs_format(text: str, names: Mapping[str, int] | None = None) -> Named:
    """Parse the table that `%pGg` walks from events/kmem/mm_page_alloc/format.

    Args:
        text: the format file.
        names: the values of ___GFP_*_BIT, for kernels from 6.9 on without 60295b944ff6 ("tracing: gfp: Fix the GFP enum
            values shown for user space tracing tools"), which print the enumerators' names in the file.

    Returns:
        Names and masks (`gfp_t`), in the kernel's order.

    Raises:
        KalloctraceError: the text has no such table, or the table cannot be evaluated.
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
            "the list of names is empty or malformed",
            "name the kernel with --kernel to decode with built-in tables",
        )
    return tuple(entries)


def from_btf_enums(base: FlagTables, enums: Mapping[str, Sequence[tuple[str, int]]]) -> FlagTables:
    """Return tables corrected by a kernel's BTF.

    The gfp bits depend on the kernel's configuration. Kernels from 6.9 on have an enum of them (772dd0342727 ("mm:
    enumerate all gfp flags")). Compounds are not in the enum; they are computed from their renumbered bits.

    Args:
        base: the tables to correct.
        enums: enumerators in BTF's order: "gfp" (___GFP_*_BIT), "migratetype", "zone_type", "zone_watermarks".
            A missing or empty enum changes nothing.

    Raises:
        KalloctraceError: a flag has no bit in a mask.
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
        # The print table already comes from the same kernel.
        return replace(tables, gfp_bits=gfp_bits)
    return replace(tables, gfp_bits=gfp_bits, gfp_print=_renumbered_print(base, gfp_bits))


def _gfp_bits(members: Sequence[tuple[str, int]]) -> Named:
    bits = []
    for member, position in members:
        match = _BIT_NAME.fullmatch(member)
        if match is not None and match[1] not in _NO_FLAGS:
            if not 0 <= position < U32_MAX.bit_length():
                raise KalloctraceError(
                    "cannot read the kernel's gfp flags",
                    f"its BTF is damaged: {match[1]} is bit {position} of a mask that has {U32_MAX.bit_length()}",
                    "use the kernel's own file, /sys/kernel/btf/vmlinux, or its image",
                )
            bits.append((match[1], 1 << position))
    return tuple(sorted(bits, key=lambda bit: bit[1]))


def _renumbered_print(base: FlagTables, gfp_bits: Named) -> Named:
    new = dict(gfp_bits)
    compounds = []
    for name, mask in base.gfp_print:
        if name in new:
            continue
        mask_now = sum(new.get(bit, 0) for bit, value in base.gfp_bits if mask & value)
        if name in _WITH_SKIP_KASAN:
            mask_now |= new.get(_SKIP_KASAN, 0)
        if mask_now:
            compounds.append((name, mask_now))
    if "__GFP_DMA" in dict(base.gfp_print):
        # Since 6.15 the list ends with all single bits in ascending order.
        return (*compounds, *gfp_bits)
    values = {**dict(compounds), **new}
    listed = [name for name, _ in base.gfp_print]
    listed += [name for name in _LISTED_WITH_HW_TAGS if name not in listed]
    return tuple((name, values[name]) for name in listed if name in values)
