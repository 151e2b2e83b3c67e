# SPDX-License-Identifier: MIT
"""`decode`: masks and expressions on the command line and in files of tracefs, and any text with masks in it."""

import ctypes
import json
from contextlib import suppress

from kalloctrace.explain.request import BadRequestError, WhatIf
from kalloctrace.explain.settings import parse_nodes, parse_number, parse_setting, parse_task_flags, with_setting
from kalloctrace.flags import describe
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.cexpr import evaluate
from kalloctrace.flags.decode import U32_MAX, decode_alloc, decode_gfp, parse_flags
from kalloctrace.flags.published import from_btf_enums, from_tracefs_format
from kalloctrace.flags.releases import parse_release
from kalloctrace.flags.textsearch import find_masks
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.model.kernel import Kernel
from tests.fuzz.surface import answers, surface

_KERNEL = Kernel.of(builtin_snapshot("7.3"))
_TABLES = _KERNEL.tables
_ANSWER = WhatIf().answer({"kernel": "7.3", "gfp": 0xCC0, "order": 0})
_NAMES = {"___GFP_DMA_BIT": 0, "___GFP_IO_BIT": 6}
_BASES = (builtin_tables("5.10"), builtin_tables("6.12"), _TABLES)
_U64_MAX = (1 << 64) - 1
_WORDS = (
    *("GFP_KERNEL", "__GFP_ZERO", "ALLOC_HARDER", "PF_MEMALLOC_NOFS", "0x", "1UL", "((gfp_t)(", "(unsigned long)"),
    *("<<", ">>", "___GFP_DMA_BIT", "|", "&", "^", "~", "-", "+", "))", "none", "cpusets=on", "nodemask=0-3"),
    *("kernel=", "6.1", "5.10", "gfp=", "order=", "nid=", "entry=", "nolock", "bulk", "alloc_flags=", "task_flags="),
    *("context=", "hardirq", "preempt_count=", "mems_allowed=", "gfp_allowed_mask=", "numa_node_id=", "defrag_mode"),
    *("page_group_by_mobility_disabled=off", "PF_MEMALLOC", "ALLOC_OOM", "=off", "null", "-1", "4.19", "4294967296"),
)


@surface(
    max_len=256,
    covers=("flags/cexpr.py", "flags/decode.py", "flags/describe.py", "explain/settings.py", "flags/releases.py"),
    words=_WORDS,
)
def fuzz_gfp(data: bytes) -> None:
    """Every expression has a value of 64 bits, or is refused; every mask has 32 bits."""
    text = data.decode("utf-8", errors="replace")
    with answers():
        assert 0 <= evaluate(text, _NAMES) <= _U64_MAX
    for kind, decode in (("gfp", decode_gfp), ("alloc_flags", decode_alloc)):
        with answers():
            value = parse_flags(text, _TABLES, kind)
            assert 0 <= value <= U32_MAX
            describe.block(decode(value, _TABLES), _TABLES)
    for read in (parse_nodes, parse_number, lambda words: parse_task_flags(words, _TABLES)):
        with suppress(ValueError):
            read(text)
    with suppress(BadRequestError):
        setting = parse_setting(_KERNEL, text)
        assert parse_setting(_KERNEL, setting.text) == setting
        with_setting(_ANSWER, setting)
    parse_release(text)


@surface(
    max_len=1024,
    covers=("flags/textsearch.py", "flags/logforms.py", "flags/describe.py"),
    words=(
        *("gfp_flags=", "gfp_mask=0x", "mode:0x", "mask 0x", "GFP_KERNEL|__GFP_ZERO", "(GFP_KERNEL)", "allocated via "),
        *(": page allocation failure: order:0, ", " invoked oom-killer: ", "Linux version 6.1.0 ", "SLUB: ", "vmalloc"),
        *("CPU: 1 PID: 7 Comm: x Not tainted 6.1.0-49-amd64 #1 Debian 6.1.192-2", "# os release : 6.12.0", "el9"),
    ),
)
def fuzz_masks(data: bytes) -> None:
    """Every text has masks or none."""
    lines = data.decode("utf-8", errors="replace").split("\n")
    for tables in (None, builtin_tables("5.10")):
        for found in find_masks(lines, tables):
            json.dumps(describe.found_json(found))
            describe.found_line(found)


@surface(
    max_len=1024,
    covers=("flags/published.py", "flags/cexpr.py"),
    words=(
        *(
            '__print_flags(REC->gfp_flags, "|", ',
            '{ (unsigned long)(((gfp_t)(0x1u)), "GFP_DMA" }',
            "(1UL << ",
            "\n---\n",
        ),
        *("gfp ___GFP_IO_BIT ", "gfp ___GFP_SKIP_KASAN_BIT ", "gfp ___GFP_LAST_BIT ", "zone_type ZONE_DMA ", "-1\n"),
        *("migratetype MIGRATE_MOVABLE ", "zone_watermarks WMARK_MIN ", "2147483647\n", "31\n", "32\n"),
    ),
)
def fuzz_format(data: bytes) -> None:
    """Every text of a tracefs format file gives a table of 32-bit masks, or is refused.

    So do the enumerators of BTF, which are lines KIND NAME NUMBER after a line of ---.
    """
    printed, _, members = data.decode("utf-8", "replace").partition("\n---\n")
    with answers():
        assert all(0 <= mask <= U32_MAX for _, mask in from_tracefs_format(printed, _NAMES))
    enums: dict[str, list[tuple[str, int]]] = {}
    for member in members.split("\n"):
        with suppress(ValueError):
            kind, name, number = member.split()
            enums.setdefault(kind, []).append((name, ctypes.c_int32(int(number)).value))
    for base in _BASES:
        with answers():
            tables = from_btf_enums(base, enums)
            assert all(0 <= mask <= U32_MAX for _, mask in (*tables.gfp_bits, *tables.gfp_print))
