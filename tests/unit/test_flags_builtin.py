# SPDX-License-Identifier: MIT
"""The built-in tables, compared with facts from eleven kernel images, and the releases between them."""

import json
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags import rows
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.flags.meanings import meaning
from kalloctrace.flags.tables import FlagTables, Named

_FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "data/flags/kernel-tables.json").read_text("utf-8"))
_BETWEEN = ("5.8", "5.13", "5.14", "5.17", "5.18", "6.2", "6.3", "6.7", "6.8", "6.11", "6.14", "6.15")


def _named(entries: list[list[Any]]) -> Named:
    return tuple((name, value) for name, value in entries)


@pytest.mark.parametrize("release", _FACTS)
def test_print_table_is_the_one_compiled_into_the_kernel(release: str) -> None:
    """Names, masks and order are those of gfpflag_names[] in the kernel's image."""
    assert builtin_tables(release).gfp_print == _named(_FACTS[release]["gfp_print_table"])


@pytest.mark.parametrize("release", [release for release, facts in _FACTS.items() if facts["gfp_bit_enum"]])
def test_gfp_bits_are_those_of_btf(release: str) -> None:
    """From 6.9 on BTF has the bits; its unused bit and its end mark are not flags."""
    published = {name.removeprefix("_").removesuffix("_BIT"): 1 << bit for name, bit in _FACTS[release]["gfp_bit_enum"]}
    del published["__GFP_UNUSED"], published["__GFP_LAST"]
    assert dict(builtin_tables(release).gfp_bits) == published


@pytest.mark.parametrize("enum", ["migratetype", "zone_type", "zone_watermarks"])
@pytest.mark.parametrize("release", _FACTS)
def test_enums_are_those_of_btf(release: str, enum: str) -> None:
    """Members, values, order and aliases are those of the kernel's enum."""
    assert getattr(builtin_tables(release), enum) == _named(_FACTS[release][enum])


def test_every_built_in_kernel_has_recorded_facts() -> None:
    """The eleven listed kernels are the eleven that were compared."""
    assert builtin_kernels() == tuple(release.rpartition(".")[0] for release in _FACTS)


@pytest.mark.parametrize("kernel", builtin_kernels() + _BETWEEN)
def test_single_bits_are_single_and_ascend(kernel: str) -> None:
    """Each gfp flag is one bit, no bit occurs twice, and the list is in ascending order."""
    values = [value for _, value in builtin_tables(kernel).gfp_bits]
    assert all(value.bit_count() == 1 for value in values)
    assert values == sorted(set(values))


@pytest.mark.parametrize("kernel", builtin_kernels() + _BETWEEN)
def test_printed_compounds_are_made_of_known_bits(kernel: str) -> None:
    """No printed mask has a bit without a name of its own."""
    tables = builtin_tables(kernel)
    known = sum(value for _, value in tables.gfp_bits)
    assert all(mask & ~known == 0 for _, mask in tables.gfp_print)


@pytest.mark.parametrize("kernel", builtin_kernels() + _BETWEEN)
def test_alloc_names_start_with_the_watermarks_and_ascend(kernel: str) -> None:
    """Three watermark indices, then single bits, each once."""
    alloc = builtin_tables(kernel).alloc
    assert alloc[:3] == (("ALLOC_WMARK_MIN", 0), ("ALLOC_WMARK_LOW", 1), ("ALLOC_WMARK_HIGH", 2))
    bits = [value for _, value in alloc[3:]]
    assert bits == sorted(set(bits))
    assert all(value.bit_count() == 1 for value in bits)


@pytest.mark.parametrize(
    ("kernel", "name", "value"),
    [
        ("5.10", "GFP_ATOMIC", 0xA20),
        ("6.1", "GFP_ATOMIC", 0xA20),
        ("6.2", "GFP_ATOMIC", 0xA20),
        ("6.3", "GFP_ATOMIC", 0x820),
        ("6.6", "GFP_NOWAIT", 0x800),
        ("6.8", "GFP_NOWAIT", 0x2800),
        ("5.13", "GFP_HIGHUSER_MOVABLE", 0x100CCA),
        ("5.14", "GFP_HIGHUSER_MOVABLE", 0x1100CCA),
        ("5.15", "GFP_HIGHUSER_MOVABLE", 0x1100CCA),
        ("5.17", "GFP_HIGHUSER_MOVABLE", 0x1100CCA),
        ("5.18", "GFP_HIGHUSER_MOVABLE", 0x100CCA),
        ("5.15", "GFP_TRANSHUGE", 0x11C24CA),
        ("7.3", "GFP_TRANSHUGE_LIGHT", 0x1C20CA),
        ("7.2", "__GFP_NO_OBJ_EXT", 0x1000000),
        ("6.10", "__GFP_NO_OBJ_EXT", 0x1000000),
        ("5.16", "__GFP_SKIP_KASAN_POISON", 0x1000000),
        ("6.12", "__GFP_RECLAIM", 0xC00),
    ],
)
def test_values_change_at_the_releases_that_changed_them(kernel: str, name: str, value: int) -> None:
    """A flag has its value of that release."""
    assert builtin_tables(kernel).gfp(name) == value


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("6.3", "__GFP_ATOMIC"),
        ("5.13", "__GFP_ZEROTAGS"),
        ("5.18", "__GFP_SKIP_KASAN_POISON"),
        ("6.9", "__GFP_NO_OBJ_EXT"),
        ("7.3", "__GFP_NO_OBJ_EXT"),
    ],
)
def test_a_flag_that_a_release_lacks_is_refused(kernel: str, name: str) -> None:
    """A missing flag is an error, never zero."""
    tables = builtin_tables(kernel)
    assert not tables.has_gfp(name)
    with pytest.raises(KalloctraceError, match=name) as error:
        tables.gfp(name)
    assert error.value.code == Exit.USAGE


@pytest.mark.parametrize(
    ("kernel", "version", "names"),
    [
        ("5.10", "", ("ALLOC_HARDER", "ALLOC_HIGH", None, None)),
        ("6.1", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", None)),
        ("6.1.0-49-amd64", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", None)),
        ("6.1.90", "", ("ALLOC_HARDER", "ALLOC_HIGH", None, None)),
        ("6.1.115", "", ("ALLOC_HARDER", "ALLOC_HIGH", None, None)),
        ("6.1.116", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", None)),
        ("6.1.0-21-amd64", "#1 SMP Debian 6.1.90-1 (2024)", ("ALLOC_HARDER", "ALLOC_HIGH", None, None)),
        (
            "6.1.0-28-amd64",
            "#1 SMP Debian 6.1.119-1 (2024)",
            ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", None),
        ),
        ("6.2", "", ("ALLOC_HARDER", "ALLOC_HIGH", None, None)),
        ("6.3", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", None)),
        ("7.2", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", "ALLOC_TRYLOCK")),
        ("7.3", "", ("ALLOC_NON_BLOCK", "ALLOC_MIN_RESERVE", "ALLOC_HIGHATOMIC", "ALLOC_NOLOCK")),
    ],
)
def test_alloc_names_follow_the_backport_to_6_1(kernel: str, version: str, names: tuple[str | None, ...]) -> None:
    """0x10, 0x20, 0x200 and 0x400 got new names in 6.3, in 6.1.116, in 6.15 and in 7.3."""
    alloc = {value: name for name, value in builtin_tables(kernel, version).alloc}
    assert tuple(alloc.get(value) for value in (0x10, 0x20, 0x200, 0x400)) == names


@pytest.mark.parametrize(
    ("kernel", "bit", "name"),
    [
        ("5.10", 0x10000000, "PF_MEMALLOC_NOCMA"),
        ("5.13", 0x10000000, "PF_MEMALLOC_PIN"),
        ("6.8", 0x800000, None),
        ("6.9", 0x800000, "PF_MEMALLOC_NORECLAIM"),
        ("6.11", 0x1000000, "PF_MEMALLOC_NOWARN"),
        ("6.12", 0x1000000, None),
        ("7.3", 0x80000, "PF_MEMALLOC_NOIO"),
        ("7.3", 0x40000, "PF_MEMALLOC_NOFS"),
    ],
)
def test_scope_bits_of_tasks(kernel: str, bit: int, name: str | None) -> None:
    """The PF_* bits are those that current_gfp_context() of that release tests."""
    assert {value: known for known, value in builtin_tables(kernel).pf}.get(bit) == name


@pytest.mark.parametrize(
    "kernel", ["5.10", "v5.10", "5.10.262", "5.10.0-46-amd64", "5.10-rc3", "5.10.0-rc3-g1234567", "5.10.1+"]
)
def test_a_kernel_can_be_named_in_many_ways(kernel: str) -> None:
    """Each spelling gives the tables of the series, which carry its name."""
    assert builtin_tables(kernel) == builtin_tables("5.10")
    assert builtin_tables(kernel).kernel == "5.10"


@pytest.mark.parametrize(
    "kernel",
    ["", "5", "5.7.19", "4.19", "2.6.38-8-server", "7.4", "8.0", "5.20", "linux", "5.10x", "5.14.0-427.el9.x86_64"],
)
def test_an_unknown_kernel_is_refused_and_known_ones_are_listed(kernel: str) -> None:
    """There are no tables for kernels without rows; the error lists the known kernels."""
    with pytest.raises(KalloctraceError) as error:
        builtin_tables(kernel)
    assert error.value.code == Exit.USAGE
    assert ", ".join(builtin_kernels()) in error.value.fix


@pytest.mark.parametrize("kernel", ["5.15.0-206.153.7.el8uek.x86_64", "6.1.50-1.el7.elrepo.x86_64"])
def test_kernels_built_for_red_hat_from_upstream_are_known(kernel: str) -> None:
    """Only Red Hat's own kernels carry backports that move bits."""
    assert builtin_tables(kernel).source == "builtin"


@pytest.mark.parametrize("table", ["GFP_BITS", "GFP_COMPOUNDS", "ALLOC", "PF"])
def test_every_flag_is_explained(table: str) -> None:
    """There is a sentence for every row's name."""
    named = [row.name for row in getattr(rows, table)]
    assert [name for name in named if not meaning(name)] == []


def test_tables_survive_json() -> None:
    """The result of to_json, written and read as JSON, gives equal and hashable tables."""
    tables = builtin_tables("7.3")
    again = FlagTables.from_json(json.loads(json.dumps(tables.to_json())))
    assert again == tables
    assert hash(again) == hash(tables)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kernel", 5),
        ("source", None),
        ("pf", None),
        ("alloc", [["A"]]),
        ("gfp_bits", [["A", "1"]]),
        ("alloc", [[1, 1]]),
    ],
)
def test_malformed_tables_are_refused(field: str, value: object) -> None:
    """A damaged snapshot is an error that names the table."""
    with pytest.raises(KalloctraceError) as error:
        FlagTables.from_json({**builtin_tables("5.10").to_json(), field: value})
    assert error.value.why == f"{field} is missing or malformed"


def test_tables_may_be_tuples() -> None:
    """Callers may change a table of the result of to_json without turning it into lists."""
    tables = builtin_tables("6.12")
    assert FlagTables.from_json({**tables.to_json(), "gfp_bits": tables.gfp_bits}) == tables


@pytest.mark.parametrize(
    ("kernel", "value", "name"),
    [
        ("5.10", 0, "MIGRATE_UNMOVABLE"),
        ("5.10", 3, "MIGRATE_HIGHATOMIC"),
        ("6.17", 3, "MIGRATE_HIGHATOMIC"),
        ("7.1", 4, "MIGRATE_ISOLATE"),
        ("7.2", 4, "MIGRATE_CMA"),
        ("7.2", 5, "MIGRATE_ISOLATE"),
        ("7.2", 6, "6"),
        ("5.10", -1, "-1"),
    ],
)
def test_migratetypes_have_their_meaningful_name(kernel: str, value: int, name: str) -> None:
    """Aliases that mark a range do not hide the type; an unknown number stays a number."""
    assert builtin_tables(kernel).migratetype_name(value) == name


@pytest.mark.parametrize(("index", "name"), list(enumerate(["DMA", "DMA32", "Normal", "Movable", "Device"])))
def test_zones_are_named_as_in_zoneinfo(index: int, name: str) -> None:
    """Index to name and back."""
    tables = builtin_tables("6.12")
    assert tables.zone_name(index) == name
    assert tables.zone_index(name) == index


def test_an_unknown_zone_has_no_name_and_no_index() -> None:
    """The enum's end mark is not a zone, and x86_64 has no HighMem."""
    tables = builtin_tables("6.12")
    assert tables.zone_name(5) == "5"
    assert tables.zone_index("HighMem") is None
