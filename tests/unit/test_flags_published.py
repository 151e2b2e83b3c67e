# SPDX-License-Identifier: MIT
"""What kernels publish: expressions of C, tracefs format files of booted kernels, and enums of BTF."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.cexpr import evaluate
from kalloctrace.flags.published import from_btf_enums, from_tracefs_format
from kalloctrace.flags.tables import FlagTables

_DATA = Path(__file__).parent / "data/flags"
_FACTS: dict[str, Any] = json.loads((_DATA / "kernel-tables.json").read_text("utf-8"))
_ENUM_7_2: list[tuple[str, int]] = [(name, bit) for name, bit in _FACTS["7.2.13"]["gfp_bit_enum"]]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0x400u|0x800u", 0xC00),
        ("( gfp_t)0x40u", 0x40),
        ("(unsigned long)((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u) | (( gfp_t)0x80u))", 0xCC0),
        ("((0xcc0u) & ~(( gfp_t)(0x400u|0x800u))) | 0x400UL", 0x4C0),
        ("((((1UL))) << (5))", 0x20),
        ("((((1UL))) << (___GFP_IO_BIT))", 0x40),
        ("1 + 2 << 3", 24),
        ("1 | 6 ^ 2 & 3", 1 | 6 ^ 2 & 3),
        ("0x10 >> 2 - 1", 8),
        ("~0", 0xFFFFFFFFFFFFFFFF),
        ("-1", 0xFFFFFFFFFFFFFFFF),
        ("1UL << 64", 0),
        ("  ( 7 ) ", 7),
    ],
)
def test_expressions_have_the_value_that_c_gives_them(expression: str, value: int) -> None:
    """Precedence, casts, suffixes and shifts as in C on 64 bits."""
    assert evaluate(expression, {"___GFP_IO_BIT": 6}) == value


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "1 |",
        "(1",
        "1)",
        "1 2",
        "___GFP_FS_BIT",
        "a.b",
        "__import__('os')",
        "1 ? 2 : 3",
        "(gfp_t)",
        "2 ** 9",
        "9" * 9999,
        "(" * 500 + "1" + ")" * 500,
        "~" * 500 + "1",
    ],
)
def test_other_text_is_not_a_constant(expression: str) -> None:
    """Only constant expressions are evaluated, and none exhausts the stack."""
    with pytest.raises(KalloctraceError):
        evaluate(expression)


@pytest.mark.parametrize("release", ["5.10", "6.1", "6.12", "7.3"])
def test_booted_kernels_publish_the_built_in_table(release: str) -> None:
    """The format file of a running kernel has the rows in the same order."""
    text = (_DATA / f"format-{release}.txt").read_text("utf-8")
    assert from_tracefs_format(text) == builtin_tables(release).gfp_print


def test_enumerators_in_the_format_are_replaced_by_their_values() -> None:
    """Some kernels from 6.9 on publish the enumerators' names instead of numbers."""
    text = 'print fmt: "%s", (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", '
    text += '{( unsigned long)(( gfp_t)((((1UL))) << (___GFP_IO_BIT))), "__GFP_IO"}, {0x3u, "BOTH"}) : "none"'
    assert from_tracefs_format(text, {"___GFP_IO_BIT": 6}) == (("__GFP_IO", 0x40), ("BOTH", 3))
    with pytest.raises(KalloctraceError, match="cannot evaluate"):
        from_tracefs_format(text)


@pytest.mark.parametrize("text", ["", 'print fmt: "x"', '__print_flags(REC->gfp_flags, "|", ) : "none"'])
def test_a_format_without_gfp_names_is_refused(text: str) -> None:
    """Another event's format, or an empty one, is an error."""
    with pytest.raises(KalloctraceError):
        from_tracefs_format(text)


@pytest.mark.parametrize("release", [release for release, facts in _FACTS.items() if facts["gfp_bit_enum"]])
def test_btf_of_debian_kernels_changes_nothing_but_the_source(release: str) -> None:
    """With Debian's configuration, BTF and the rows agree."""
    base = builtin_tables(release)
    enums = {
        kind: [(name, value) for name, value in _FACTS[release][fact]]
        for kind, fact in (("gfp", "gfp_bit_enum"), ("migratetype", "migratetype"), ("zone_type", "zone_type"))
    }
    corrected = from_btf_enums(base, enums)
    assert corrected.source == "builtin+btf"
    assert corrected.gfp_bits == base.gfp_bits
    assert corrected.gfp_print == base.gfp_print
    assert corrected.migratetype == base.migratetype


def _with_bits(*names: str) -> list[tuple[str, int]]:
    """The enum of a kernel whose options add these flags after __GFP_ZEROTAGS."""
    common = [(name, bit) for name, bit in _ENUM_7_2 if bit < 24]
    added = [(f"___GFP_{name}_BIT", bit) for bit, name in enumerate(names, 24)]
    return [*common, *added, ("___GFP_LAST_BIT", 24 + len(names))]


def test_lockdep_moves_the_bits_above_it() -> None:
    """With LOCKDEP bit 24 is __GFP_NOLOCKDEP, and __GFP_NO_OBJ_EXT moves to 25, in the printed list too."""
    tables = from_btf_enums(builtin_tables("7.2"), {"gfp": _with_bits("NOLOCKDEP", "NO_OBJ_EXT")})
    assert tables.gfp("__GFP_NOLOCKDEP") == 0x1000000
    assert tables.gfp("__GFP_NO_OBJ_EXT") == 0x2000000
    assert tables.gfp_print[-2:] == (("__GFP_NOLOCKDEP", 0x1000000), ("__GFP_NO_OBJ_EXT", 0x2000000))


def test_before_6_15_the_printed_list_gets_no_new_names() -> None:
    """The handwritten list never had __GFP_NOLOCKDEP, so the bit prints as hex."""
    base = builtin_tables("6.12")
    tables = from_btf_enums(base, {"gfp": _with_bits("NOLOCKDEP", "NO_OBJ_EXT")})
    assert tables.has_gfp("__GFP_NOLOCKDEP")
    assert tables.gfp_print == base.gfp_print


def test_tags_in_hardware_make_user_pages_skip_kasan() -> None:
    """With KASAN_HW_TAGS the compounds for user pages have one more bit."""
    tables = from_btf_enums(builtin_tables("7.3"), {"gfp": _with_bits("SKIP_ZERO", "SKIP_KASAN")})
    assert tables.gfp("GFP_HIGHUSER_MOVABLE") == 0x2100CCA
    assert tables.gfp("GFP_HIGHUSER") == 0x100CC2
    # include/linux/gfp_types.h: GFP_HIGHUSER_MOVABLE with three more bits, without reclaim; then with direct reclaim.
    added = sum(map(tables.gfp, ("__GFP_COMP", "__GFP_NOMEMALLOC", "__GFP_NOWARN")))
    light = (tables.gfp("GFP_HIGHUSER_MOVABLE") | added) & ~tables.gfp("__GFP_RECLAIM")
    assert tables.gfp("GFP_TRANSHUGE_LIGHT") == light
    assert tables.gfp("GFP_TRANSHUGE") == light | tables.gfp("__GFP_DIRECT_RECLAIM")


def test_before_6_15_tags_in_hardware_add_their_names_at_the_end() -> None:
    """The handwritten list has them after __GFP_ZEROTAGS."""
    tables = from_btf_enums(builtin_tables("6.12"), {"gfp": _with_bits("SKIP_ZERO", "SKIP_KASAN", "NO_OBJ_EXT")})
    assert [name for name, _ in tables.gfp_print[-3:]] == ["__GFP_ZEROTAGS", "__GFP_SKIP_ZERO", "__GFP_SKIP_KASAN"]


def test_a_flag_that_the_configuration_removes_is_not_printed() -> None:
    """Without SLAB_OBJ_EXT the enum has no __GFP_NO_OBJ_EXT, so no table of that kernel has it."""
    base = builtin_tables("7.2")
    tables = from_btf_enums(base, {"gfp": _with_bits()})
    assert not tables.has_gfp("__GFP_NO_OBJ_EXT")
    assert tables.gfp_print == tuple(entry for entry in base.gfp_print if entry[0] != "__GFP_NO_OBJ_EXT")


def test_only_enumerators_of_bits_are_flags() -> None:
    """A flag's enumerator is called ___GFP_*_BIT; any other name is skipped."""
    base = builtin_tables("7.2")
    assert from_btf_enums(base, {"gfp": [*_ENUM_7_2, ("GFP_OTHER", 30)]}).gfp_bits == base.gfp_bits


@pytest.mark.parametrize("kind", ["migratetype", "zone_type", "zone_watermarks"])
def test_each_enum_of_btf_replaces_its_own_table(kind: str) -> None:
    """A kernel may publish any one of them; the other tables stay as they are."""
    base = builtin_tables("6.12")
    corrected = from_btf_enums(base, {kind: [("FIRST", 0), ("SECOND", 1)]})
    changed = {**base.to_json(), "source": "builtin+btf", kind: [["FIRST", 0], ["SECOND", 1]]}
    assert corrected == FlagTables.from_json(changed)


@pytest.mark.parametrize("source", ["tracefs", "tracefs+btf"])
def test_a_table_from_tracefs_is_not_overridden(source: str) -> None:
    """The kernel's own print table needs no reconstruction; the single bits are corrected."""
    base = replace(builtin_tables("7.2"), source=source)
    own = from_btf_enums(base, {"gfp": _with_bits("NOLOCKDEP")})
    assert own.gfp_print == base.gfp_print
    assert dict(own.gfp_bits)["__GFP_NOLOCKDEP"] == 0x1000000
    assert own.source == "tracefs+btf"


def test_masks_of_the_format_have_the_32_bits_of_gfp_t() -> None:
    """gfp_t is an unsigned int (include/linux/types.h), so an inverted mask has no bits above 31."""
    text = '__print_flags(REC->gfp_flags, "|", {( unsigned long)(~(( gfp_t)0x1u)), "ALL"}) : "none"'
    assert from_tracefs_format(text) == (("ALL", 0xFFFFFFFE),)


def test_no_enums_change_nothing() -> None:
    """A kernel without BTF keeps its tables and their source."""
    base = builtin_tables("5.10")
    assert from_btf_enums(base, {}) is base


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("(u32)5", 5),
        ("(__u32)5", 5),
        ("(unsigned int)A_B", 2),
        ("(u32)_A", 4),
        ("(u32)~0x1", 0xFFFFFFFFFFFFFFFE),
        ("(u32)(A_B)", 2),
        ("(A_B | 1)", 3),
        ("(A_B) + 1", 3),
        ("0XCC", 0xCC),
        ("1UL >> 64", 0),
    ],
)
def test_casts_are_recognised_by_what_follows(expression: str, value: int) -> None:
    """A parenthesised name is a cast only before an operand."""
    assert evaluate(expression, {"A_B": 2, "_A": 4}) == value


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("MISSING", "the value of MISSING is unknown"),
        ("1 |", "the expression is incomplete"),
        ("(1", "a closing parenthesis is missing"),
        ("1 2", "'2' is unexpected"),
        ("1 ? 2", "'?' is not part of a constant"),
        ("1" * 101, f"{'1' * 100}... is too long"),
        ("() 1", "the value of ) is unknown"),
        ("(" * 64 + "1" + ")" * 64, "it is nested too deeply"),
    ],
)
def test_the_error_says_why_an_expression_has_no_value(expression: str, why: str) -> None:
    """Each cause has its own sentence; the fix is to use built-in tables."""
    with pytest.raises(KalloctraceError, match="cannot evaluate") as caught:
        evaluate(expression)
    assert caught.value.why == why
    assert "--kernel" in caught.value.fix


def test_the_limits_are_inclusive() -> None:
    """63 parentheses around a number, and a number of 100 digits, are accepted."""
    assert evaluate("(" * 63 + "1" + ")" * 63) == 1
    assert evaluate("0" * 99 + "7") == 7


@pytest.mark.parametrize(
    "expression", ["(" * 40 + "1 + " + "(" * 40 + "1" + ")" * 80, "1 + " * 100 + "(" * 64 + "1" + ")" * 64]
)
def test_operands_do_not_raise_the_limit_of_nesting(expression: str) -> None:
    """The depth counts the open levels, whatever was closed before."""
    with pytest.raises(KalloctraceError) as caught:
        evaluate(expression)
    assert caught.value.why == "it is nested too deeply"


def test_operands_do_not_use_up_the_limit_of_nesting() -> None:
    """Many levels one after the other are accepted."""
    assert evaluate(" + ".join(["((1))"] * 100)) == 100
