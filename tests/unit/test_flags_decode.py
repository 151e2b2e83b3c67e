# SPDX-License-Identifier: MIT
"""Masks to names and back."""

import random

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.flags.decode import decode_alloc, decode_gfp, decode_text, parse_flags

_ALL_KERNELS = (*builtin_kernels(), "5.8", "5.15", "6.2", "6.6", "6.9", "6.14")


@pytest.mark.parametrize(
    ("kernel", "value", "text"),
    [
        ("5.10", 0x100CCA, "GFP_HIGHUSER_MOVABLE"),
        ("5.10", 0xCC0, "GFP_KERNEL"),
        ("5.10", 0x40CC0, "GFP_KERNEL|__GFP_COMP"),
        ("5.10", 0xCD0, "GFP_KERNEL|__GFP_RECLAIMABLE"),
        ("5.10", 0xA20, "GFP_ATOMIC"),
        ("5.10", 0x820, "GFP_NOWAIT|__GFP_HIGH"),
        ("6.12", 0x820, "GFP_ATOMIC"),
        ("6.12", 0xA20, "GFP_ATOMIC|0x200"),
        ("6.12", 0x1000000, "0x1000000"),
        ("6.16", 0x1000000, "__GFP_NO_OBJ_EXT"),
        ("7.3", 0x1000000, "0x1000000"),
        ("5.10", 0x2800, "GFP_NOWAIT|__GFP_NOWARN"),
        ("6.12", 0x2800, "GFP_NOWAIT"),
        ("6.12", 0x40DC0, "GFP_KERNEL|__GFP_COMP|__GFP_ZERO"),
        ("6.18", 0x40DC0, "GFP_KERNEL|__GFP_ZERO|__GFP_COMP"),
        ("7.1", 0xC0DE0, "GFP_KERNEL|__GFP_HIGH|__GFP_ZERO|__GFP_COMP|__GFP_NOMEMALLOC"),
        ("5.15", 0x1100CCA, "GFP_HIGHUSER_MOVABLE"),
        ("6.1", 0x1100CCA, "GFP_HIGHUSER_MOVABLE|0x1000000"),
        ("5.15", 0x1000CC0, "GFP_KERNEL|__GFP_SKIP_KASAN_POISON"),
        ("5.10", 0, ""),
        ("7.3", 0x80000000, "0x80000000"),
    ],
)
def test_gfp_reads_as_that_kernel_prints_it(kernel: str, value: int, text: str) -> None:
    """The text is what `%pGg` prints: the list walked in order, the remainder as hex."""
    assert decode_gfp(value, builtin_tables(kernel)).text == text


def test_unknown_bits_are_kept_apart_from_the_names() -> None:
    """The remainder is in `unknown` and at the end of the text."""
    decoded = decode_gfp(0x80040CC0, builtin_tables("6.12"))
    assert decoded.names == ("GFP_KERNEL", "__GFP_COMP")
    assert decoded.unknown == 0x80000000
    assert decoded.text == "GFP_KERNEL|__GFP_COMP|0x80000000"


@pytest.mark.parametrize(
    ("kernel", "value", "text"),
    [
        ("5.10", 0x901, "ALLOC_WMARK_LOW|ALLOC_NOFRAGMENT|ALLOC_KSWAPD"),
        ("5.10", 0x801, "ALLOC_WMARK_LOW|ALLOC_KSWAPD"),
        ("5.10", 0x941, "ALLOC_WMARK_LOW|ALLOC_CPUSET|ALLOC_NOFRAGMENT|ALLOC_KSWAPD"),
        ("7.2", 0x981, "ALLOC_WMARK_LOW|ALLOC_CMA|ALLOC_NOFRAGMENT|ALLOC_KSWAPD"),
        ("7.3", 0xB01, "ALLOC_WMARK_LOW|ALLOC_NOFRAGMENT|ALLOC_HIGHATOMIC|ALLOC_KSWAPD"),
        ("7.2", 0x400, "ALLOC_WMARK_MIN|ALLOC_TRYLOCK"),
        ("7.3", 0x1440, "ALLOC_WMARK_MIN|ALLOC_CPUSET|ALLOC_NOLOCK|ALLOC_NO_CODETAG"),
        ("5.10", 0x42, "ALLOC_WMARK_HIGH|ALLOC_CPUSET"),
        ("5.10", 0x30, "ALLOC_WMARK_MIN|ALLOC_HARDER|ALLOC_HIGH"),
        ("6.1", 0x30, "ALLOC_WMARK_MIN|ALLOC_NON_BLOCK|ALLOC_MIN_RESERVE"),
        ("5.10", 0x200, "ALLOC_WMARK_MIN|0x200"),
        ("5.10", 0, "ALLOC_WMARK_MIN"),
        ("5.10", 0x803, "ALLOC_KSWAPD|0x3"),
    ],
)
def test_alloc_flags_name_the_watermark_first(kernel: str, value: int, text: str) -> None:
    """The two low bits are an index, the rest are bits; an index without a name stays a number."""
    assert decode_alloc(value, builtin_tables(kernel)).text == text


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ALLOC_NOFRAGMENT", ("ALLOC_NOFRAGMENT",)),
        ("ALLOC_KSWAPD | ALLOC_CPUSET", ("ALLOC_CPUSET", "ALLOC_KSWAPD")),
        ("ALLOC_WMARK_MIN|ALLOC_NOFRAGMENT", ("ALLOC_WMARK_MIN", "ALLOC_NOFRAGMENT")),
        ("ALLOC_WMARK_LOW|ALLOC_NOFRAGMENT", ("ALLOC_WMARK_LOW", "ALLOC_NOFRAGMENT")),
        ("ALLOC_WMARK_MIN", ("ALLOC_WMARK_MIN",)),
        ("0x100", ("ALLOC_WMARK_MIN", "ALLOC_NOFRAGMENT")),
        ("ALLOC_NOFRAGMENT|0x800", ("ALLOC_WMARK_MIN", "ALLOC_NOFRAGMENT", "ALLOC_KSWAPD")),
    ],
)
def test_a_watermark_is_not_added_to_named_flags(text: str, names: tuple[str, ...]) -> None:
    """Numbers are whole alloc_flags, whose watermark 0 is ALLOC_WMARK_MIN; names are what was named."""
    decoded = decode_text(text, builtin_tables("6.12"), "alloc")
    assert (decoded.names, decoded.text) == (names, "|".join(names))


@pytest.mark.parametrize("kernel", _ALL_KERNELS)
def test_what_is_printed_reads_back_as_the_same_mask(kernel: str) -> None:
    """parse_flags(decode(m).text) == m, for every bit, for zero and for many random masks."""
    tables = builtin_tables(kernel)
    masks = random.Random(kernel)  # noqa: S311 - masks to try, no secrets
    values = [0, 0xFFFFFFFF, *(1 << bit for bit in range(32)), *(masks.getrandbits(32) for _ in range(2000))]
    assert [parse_flags(decode_gfp(value, tables).text, tables) for value in values] == values
    assert [parse_flags(decode_alloc(value, tables).text, tables, "alloc_flags") for value in values] == values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3264", 0xCC0),
        ("0xcc0", 0xCC0),
        ("0XCC0", 0xCC0),
        ("GFP_KERNEL", 0xCC0),
        ("__GFP_IO", 0x40),
        ("GFP_KERNEL|__GFP_COMP", 0x40CC0),
        (" GFP_KERNEL | 0x80000000 | 256 ", 0x80000DC0),
        ("none", 0),
        ("", 0),
        ("0xffffffff", 0xFFFFFFFF),
    ],
)
def test_numbers_and_names_mix(text: str, value: int) -> None:
    """Decimal, hex and names, alone or joined."""
    assert parse_flags(text, builtin_tables("5.10")) == value


@pytest.mark.parametrize("text", ["4294967296", "0x100000000", "-1", "0xfffffffff|GFP_KERNEL", "9" * 9999])
@pytest.mark.parametrize("kind", ["gfp", "alloc_flags"])
def test_more_than_32_bits_are_refused(text: str, kind: str) -> None:
    """Both kinds are unsigned 32-bit numbers."""
    with pytest.raises(KalloctraceError) as error:
        parse_flags(text, builtin_tables("5.10"), kind)
    assert error.value.code == Exit.USAGE


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_decoding_refuses_more_than_32_bits(value: int) -> None:
    """Numbers wider than a mask are not truncated."""
    with pytest.raises(KalloctraceError):
        decode_gfp(value, builtin_tables("5.10"))
    with pytest.raises(KalloctraceError):
        decode_alloc(value, builtin_tables("5.10"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("GFP_KERNL", "GFP_KERNEL"),
        ("gfp_atomic", "GFP_ATOMIC"),
        ("_GFP_ZERO", "__GFP_ZERO"),
        ("GFP_KERNEL||__GFP_ZERO", "single |"),
        ("GFP_KERNEL|", "single |"),
        ("12abc", "give a number"),
        ("1_000", "give a number"),
    ],
)
def test_an_unknown_word_is_refused_with_a_hint(text: str, hint: str) -> None:
    """The fix names the flag that was probably meant."""
    with pytest.raises(KalloctraceError) as error:
        parse_flags(text, builtin_tables("5.10"))
    assert error.value.code == Exit.USAGE
    assert hint in error.value.fix


def test_a_flag_of_other_kernels_is_refused_and_these_are_named() -> None:
    """The error names the kernels that have the flag."""
    with pytest.raises(KalloctraceError) as error:
        parse_flags("__GFP_ATOMIC", builtin_tables("6.12"))
    assert "5.10, 6.1" in error.value.why


def test_alloc_names_are_not_gfp_names() -> None:
    """Each kind has its own names."""
    with pytest.raises(KalloctraceError):
        parse_flags("ALLOC_CMA", builtin_tables("6.12"))
    with pytest.raises(KalloctraceError):
        parse_flags("GFP_KERNEL", builtin_tables("6.12"), "alloc_flags")


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_the_error_names_the_number_that_is_out_of_range(value: int) -> None:
    """As it was given: a number by itself, or a word of a text."""
    tables = builtin_tables("5.10")
    for decode in (decode_gfp, decode_alloc):
        with pytest.raises(KalloctraceError, match=f"error: {value} is out of range"):
            decode(value, tables)
    with pytest.raises(KalloctraceError, match="error: 0x1ffffffff is out of range"):
        parse_flags("GFP_KERNEL|0x1ffffffff", tables)


@pytest.mark.parametrize("value", [0x1, 0x3])
def test_the_kind_of_a_decoded_mask(value: int) -> None:
    """With and without a name for the watermark."""
    tables = builtin_tables("5.10")
    assert decode_gfp(value, tables).kind == "gfp"
    assert decode_alloc(value, tables).kind == "alloc_flags"


@pytest.mark.parametrize(("kind", "hint"), [("alloc_flags", "ALLOC_CPUSET"), ("gfp", "GFP_")])
def test_a_hint_is_a_name_of_the_same_kind(kind: str, hint: str) -> None:
    """A user who mistypes an ALLOC_* flag is not shown gfp flags."""
    with pytest.raises(KalloctraceError) as error:
        parse_flags("ALLOC_CPUSETS", builtin_tables("5.10"), kind)
    assert hint in error.value.fix
    assert ("ALLOC_" in error.value.fix) == (kind == "alloc_flags")
