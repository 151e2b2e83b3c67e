# SPDX-License-Identifier: MIT
"""What `decode` prints: JSON objects, a line for each mask in a text, and a block for each value."""

from dataclasses import replace

import pytest

from kalloctrace.flags import rows
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.decode import decode_alloc, decode_gfp, decode_text
from kalloctrace.flags.describe import block, decoded_json, found_json, found_line
from kalloctrace.flags.meanings import SHORT_ALLOC, SHORT_GFP, SHORT_MIGRATETYPE, meaning, short_name
from kalloctrace.flags.textsearch import Found, find_masks

_REPORT = "a: page allocation failure: order:0, mode:{}"


def _find(line: str, kernel: str | None = None) -> Found:
    (found,) = find_masks([line], None if kernel is None else builtin_tables(kernel))
    return found


def test_a_value_as_json() -> None:
    """All keys of the object, with an unknown bit."""
    tables = builtin_tables("6.12")
    assert decoded_json(decode_gfp(0x80000CC0, tables), tables) == {
        "type": "gfp",
        "value": 0x80000CC0,
        "hex": "0x80000cc0",
        "names": ["GFP_KERNEL"],
        "unknown": 0x80000000,
        "text": "GFP_KERNEL|0x80000000",
        "kernel": "6.12",
        "source": "builtin",
    }


def test_a_mask_in_a_text_as_json() -> None:
    """All keys of the object."""
    assert found_json(_find(_REPORT.format("0xdc0(GFP_KERNEL|__GFP_ZERO)"), "6.12")) == {
        "type": "gfp",
        "value": 0xDC0,
        "hex": "0xdc0",
        "names": ["GFP_KERNEL", "__GFP_ZERO"],
        "unknown": 0,
        "text": "GFP_KERNEL|__GFP_ZERO",
        "kernel": "6.12",
        "source": "builtin",
        "line": 1,
        "column": 43,
        "form": "page allocation failure",
        "printed": ["GFP_KERNEL", "__GFP_ZERO"],
        "note": "",
    }


def test_the_kernels_own_names_come_before_printed_ones() -> None:
    """A printed name that contradicts the value is kept as `printed` only."""
    found = _find(_REPORT.format("0xcc0(GFP_ATOMIC)"), "6.12")
    data = found_json(found)
    assert (data["names"], data["text"], data["printed"]) == (["GFP_KERNEL"], "GFP_KERNEL", ["GFP_ATOMIC"])
    assert "mode 0xcc0 = GFP_KERNEL (6.12)  [" in found_line(found)


def test_numbers_without_tables_have_no_unknown_bits_as_json() -> None:
    """Without a value there is no remainder: `unknown` stays a number."""
    (found,) = find_masks(["# os release : 5.4.58", "x: mm_page_alloc: gfp_flags=0x10|0x20"], None)
    data = found_json(found)
    assert (data["value"], data["unknown"]) == (None, 0)


def test_names_without_a_value_as_json() -> None:
    """Value, hex and kernel are null; the printed names stand for the decoded ones."""
    data = found_json(_find("x: mm_page_alloc: gfp_flags=GFP_ATOMIC|__GFP_ZERO"))
    assert (data["value"], data["hex"], data["kernel"]) == (None, None, None)
    assert (data["names"], data["text"]) == (["GFP_ATOMIC", "__GFP_ZERO"], "GFP_ATOMIC|__GFP_ZERO")
    assert data["unknown"] == 0


def test_a_value_without_names_as_json() -> None:
    """Without tables all its bits are unknown."""
    data = found_json(_find(_REPORT.format("0x20")))
    assert (data["value"], data["names"], data["text"], data["unknown"]) == (0x20, [], "", 0x20)


def test_unknown_bits_of_a_decoded_mask_as_json() -> None:
    """They are the decoded remainder, not the whole mask."""
    assert found_json(_find(_REPORT.format("0x80000cc0"), "6.12"))["unknown"] == 0x80000000


@pytest.mark.parametrize(
    ("line", "kernel", "text"),
    [
        (
            _REPORT.format("0xcc0(GFP_KERNEL)"),
            "6.12",
            "line 1: page allocation failure mode 0xcc0 = GFP_KERNEL (6.12)",
        ),
        (_REPORT.format("0x0()"), None, "line 1: page allocation failure mode 0x0 = no flags"),
        (
            _REPORT.format("0x20"),
            None,
            (
                "line 1: page allocation failure mode 0x20 = ?  "
                "[unknown: the text names no kernel release, and no names are printed in full]"
            ),
        ),
        (
            "x: mm_page_alloc: gfp_flags=GFP_ATOMIC|__GFP_ZERO",
            None,
            (
                "line 1: mm_page_alloc mode 0x? = GFP_ATOMIC|__GFP_ZERO  "
                "[names as printed; their value differs between kernels from 5.8 to 7.3]"
            ),
        ),
    ],
)
def test_a_mask_in_a_text_as_a_line(line: str, kernel: str | None, text: str) -> None:
    """Value, names, kernel and note; what is missing is left out or shown as a question mark."""
    assert found_line(_find(line, kernel)) == text


def test_a_gfp_mask_as_a_block() -> None:
    """The names, each bit with its meaning in columns, an unknown bit, and the compounds."""
    tables = builtin_tables("6.12")
    assert block(decode_gfp(0x80000820, tables), tables) == [
        "0x80000820 = GFP_ATOMIC|0x80000000",
        "  gfp of kernel 6.12 (builtin)",
        "        0x20  __GFP_HIGH            high priority: may use part of the reserve",
        "                                    below the min watermark",
        "       0x800  __GFP_KSWAPD_RECLAIM  wake kswapd when free memory runs low",
        "  0x80000000  ?                     no name on this kernel",
        "  GFP_ATOMIC: cannot sleep; may use part of the reserves, as in interrupts",
    ]


def test_named_alloc_flags_have_no_line_about_a_watermark() -> None:
    """A fallback takes whole pageblocks: min_order is pageblock_order with ALLOC_NOFRAGMENT (__rmqueue_claim)."""
    tables = builtin_tables("6.12")
    assert block(decode_text("ALLOC_NOFRAGMENT", tables, "alloc"), tables)[2:] == [
        "  0x100  ALLOC_NOFRAGMENT  fall back to another migratetype only by taking a",
        "                           whole pageblock",
    ]


def test_alloc_flags_as_a_block() -> None:
    """The watermark is one entry with the value of its index; there are no compounds."""
    tables = builtin_tables("5.10")
    assert block(decode_alloc(0x41, tables), tables) == [
        "0x41 = ALLOC_WMARK_LOW|ALLOC_CPUSET",
        "  alloc_flags of kernel 5.10 (builtin)",
        "   0x1  ALLOC_WMARK_LOW  compare free memory with the low watermark, as each",
        "                         first attempt does",
        "  0x40  ALLOC_CPUSET     check each zone's node against the task's cpuset",
    ]


def test_a_watermark_index_without_a_name_as_a_block() -> None:
    """Its bits are unknown, one by one."""
    tables = builtin_tables("5.10")
    lines = block(decode_alloc(0x3, tables), tables)
    assert lines[2:] == ["  0x1  ?  no name on this kernel", "  0x2  ?  no name on this kernel"]


def test_an_empty_mask_as_a_block() -> None:
    """There are no bits to list."""
    tables = builtin_tables("7.3")
    assert block(decode_gfp(0, tables), tables) == ["0x0 = no flags", "  gfp of kernel 7.3 (builtin)"]


def test_compounds_are_explained_after_the_bits() -> None:
    """Single bits are not explained twice."""
    tables = builtin_tables("6.12")
    lines = block(decode_gfp(0xC40 | 0x1100, tables), tables)
    assert lines[0] == "0x1d40 = GFP_NOFS|__GFP_ZERO|__GFP_WRITE"
    assert lines[-1] == "  GFP_NOFS: may sleep and do I/O, but not enter file systems"
    assert len(lines) == 2 + 6 + 1


def test_lines_of_a_block_fit_a_terminal() -> None:
    """Except for the names in the first line, no line is longer than 80 characters, and some use all of them."""
    tables = builtin_tables("6.16")
    widths = [max(map(len, block(decode_gfp(value, tables), tables)[1:])) for value in (0xFFFFFFFF, 0x1C24CA, 0x100CCA)]
    assert max(widths) == 80


def test_a_flag_without_a_meaning_is_listed_in_a_block() -> None:
    """A kernel's BTF may publish a flag that is unknown here. A long name breaks no words of other meanings."""
    name = "__GFP_" + "MOON" * 18
    base = builtin_tables("6.12")
    tables = replace(base, gfp_bits=(*base.gfp_bits, (name, 0x2000000)))
    lines = block(decode_gfp(0x2000040, tables), tables)
    assert lines[-1] == f"  0x2000000  {name}"
    words = [word for line in lines[2:-1] for word in line.split()]
    assert words == ["0x40", "__GFP_IO", "reclaim", "may", "start", "disk", "I/O"]


def test_an_unknown_name_has_no_meaning() -> None:
    """The caller gets empty text."""
    assert meaning("__GFP_ATOMIC") != ""
    assert meaning("__GFP_MOON") == ""


@pytest.mark.parametrize(
    ("name", "names", "short"),
    [
        ("GFP_KERNEL", SHORT_GFP, "K"),
        ("ALLOC_WMARK_LOW", SHORT_ALLOC, "LOW"),
        ("MIGRATE_RECLAIMABLE", SHORT_MIGRATETYPE, "E"),
        ("__GFP_MOON", SHORT_GFP, "moon"),
        ("GFP_MOON", SHORT_GFP, "moon"),
        ("ALLOC_MOON", SHORT_ALLOC, "moon"),
        ("MIGRATE_MOON", SHORT_MIGRATETYPE, "moon"),
        ("0x80000000", SHORT_GFP, "0x80000000"),
    ],
)
def test_short_names(name: str, names: dict[str, str], short: str) -> None:
    """A flag without a short name loses its prefix; other text stays as it is."""
    assert short_name(name, names) == short


@pytest.mark.parametrize("names", [SHORT_GFP, SHORT_ALLOC, SHORT_MIGRATETYPE], ids=["gfp", "alloc", "migratetype"])
def test_short_names_are_distinct(names: dict[str, str]) -> None:
    """Two flags of one table never look alike."""
    assert len(set(names.values())) == len(names)


_PERF = """
    GFP_TRANSHUGE THP, GFP_TRANSHUGE_LIGHT THL, GFP_HIGHUSER_MOVABLE HUM, GFP_HIGHUSER HU, GFP_USER U,
    GFP_KERNEL_ACCOUNT KAC, GFP_KERNEL K, GFP_NOFS NF, GFP_ATOMIC A, GFP_NOIO NI, GFP_NOWAIT NW, GFP_DMA D,
    __GFP_HIGHMEM HM, GFP_DMA32 D32, __GFP_HIGH H, __GFP_ATOMIC _A, __GFP_IO I, __GFP_FS F, __GFP_NOWARN NWR,
    __GFP_RETRY_MAYFAIL R, __GFP_NOFAIL NF, __GFP_NORETRY NR, __GFP_COMP C, __GFP_ZERO Z, __GFP_NOMEMALLOC NMA,
    __GFP_MEMALLOC MA, __GFP_HARDWALL HW, __GFP_THISNODE TN, __GFP_RECLAIMABLE RC, __GFP_MOVABLE M,
    __GFP_ACCOUNT AC, __GFP_WRITE WR, __GFP_RECLAIM R, __GFP_DIRECT_RECLAIM DR, __GFP_KSWAPD_RECLAIM KR
"""


def test_short_names_of_gfp_flags_are_those_of_perf_kmem() -> None:
    """tools/perf/builtin-kmem.c, gfp_compact_table, without its two names that stand for two flags each."""
    perf = dict(entry.split() for entry in _PERF.split(","))
    ours = {"GFP_NOFS": "NOFS", "__GFP_RETRY_MAYFAIL": "RM", "GFP_NOIO": "NOIO", "GFP_NOWAIT": "NOW"}
    ours["__GFP_ATOMIC"] = "AT"
    assert {name: SHORT_GFP[name] for name in perf} == {**perf, **ours}


def test_short_names_of_migratetypes_are_those_of_the_kernels_reports() -> None:
    """mm/show_mem.c, show_migration_types()."""
    assert SHORT_MIGRATETYPE == {
        "MIGRATE_UNMOVABLE": "U",
        "MIGRATE_MOVABLE": "M",
        "MIGRATE_RECLAIMABLE": "E",
        "MIGRATE_HIGHATOMIC": "H",
        "MIGRATE_CMA": "C",
        "MIGRATE_ISOLATE": "I",
    }


@pytest.mark.parametrize("names", [SHORT_GFP, SHORT_ALLOC, SHORT_MIGRATETYPE], ids=["gfp", "alloc", "migratetype"])
def test_a_short_name_abbreviates_a_known_flag(names: dict[str, str]) -> None:
    """Its characters occur in the flag's name in the same order; THP is the usual word for a transparent huge page."""
    for name, short in names.items():
        rest = iter(name.removeprefix("__"))
        assert short == "THP" or all(letter in rest for letter in short), name
        assert meaning(name) != ""


def test_every_enumerator_that_is_a_value_is_explained() -> None:
    """All but the marks of an enum's end or of a range, and the flags that only other configurations have."""
    marks = ("MIGRATE_PCPTYPES", "__MIGRATE_TYPE_END", "MIGRATE_TYPES", "__MAX_NR_ZONES", "NR_WMARK")
    named = [row.name for row in rows.MIGRATETYPE + rows.ZONE_TYPE + rows.ZONE_WATERMARKS if row.name not in marks]
    # include/linux/mmzone.h, include/linux/gfp_types.h: with HIGHMEM, with LOCKDEP, with KASAN_HW_TAGS.
    named += ["ZONE_HIGHMEM", "__GFP_NOLOCKDEP", "__GFP_SKIP_ZERO", "__GFP_SKIP_KASAN_UNPOISON", "__GFP_SKIP_KASAN"]
    assert [name for name in named if meaning(name) == ""] == []
    assert [meaning(mark) for mark in marks] == [""] * len(marks)
