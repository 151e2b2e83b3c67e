# SPDX-License-Identifier: MIT
"""The features of the built-in kernels, compared with their sources and images."""

import re
from dataclasses import fields, replace

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.kernel.builtin import ROWS, builtin_features, builtin_snapshot, default_allowed_mask
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import machine_of
from kalloctrace.kernel.snapshot import Snapshot

RELEASES = [
    *(f"5.{minor}" for minor in range(8, 20)),
    *(f"6.{minor}" for minor in range(20)),
    *(f"7.{minor}" for minor in range(4)),
]


@pytest.mark.parametrize(
    ("release", "entry"),
    [
        ("5.8", "__alloc_pages_nodemask"),
        ("5.10", "__alloc_pages_nodemask"),
        ("5.12", "__alloc_pages_nodemask"),
        ("5.13", "__alloc_pages"),
        ("6.1", "__alloc_pages"),
        ("6.9", "__alloc_pages"),
        ("6.10", "__alloc_pages_noprof"),
        ("6.12", "__alloc_pages_noprof"),
        ("6.13", "__alloc_pages_noprof"),
        ("6.14", "__alloc_frozen_pages_noprof"),
        ("6.16", "__alloc_frozen_pages_noprof"),
        ("7.2", "__alloc_frozen_pages_noprof"),
        ("7.3", "__alloc_frozen_pages_noprof"),
    ],
)
def test_entry(release: str, entry: str) -> None:
    """The entry is the function that contains the stage, not a wrapper around it."""
    assert builtin_features(release).entry == entry


# The features that distinguish the variants: the context test and its mask, scopes on the fast path, PF_MEMALLOC_NOCMA,
# PF_MEMALLOC_NORECLAIM, vm.defrag_mode, the entry without locks, the fifth argument, CONFIG_CMA.
VARIANTS = {
    ("5.8",): ("none", 0, False, False, False, False, "none", False, False),
    ("5.9", "5.10", "5.12"): ("in_interrupt", 0x00FFFF00, False, True, False, False, "none", False, False),
    ("5.13", "5.14"): ("in_interrupt", 0x00FFFF00, True, False, False, False, "none", False, False),
    ("5.15", "6.1", "6.8", "6.12", "6.14"): (
        *("in_task", 0x00FF0100, True, False, False, False, "none", False, False),
    ),
    ("6.9", "6.10", "6.11"): ("in_task", 0x00FF0100, True, False, True, False, "none", False, False),
    ("6.15", "6.16", "6.17"): ("in_task", 0x00FF0100, True, False, False, True, "fixed", False, False),
    ("6.18", "6.19", "7.0", "7.1"): (*("in_task", 0x00FF0100, True, False, False, True, "gfp_flags", False, False),),
    ("7.2",): ("in_task", 0x00FF0100, True, False, False, True, "gfp_flags", False, True),
    ("7.3",): ("in_task", 0xFF000100, True, False, False, True, "alloc_flags", True, True),
}


@pytest.mark.parametrize(
    ("release", "variant"), [(release, variant) for group, variant in VARIANTS.items() for release in group]
)
def test_variant(release: str, variant: tuple[object, ...]) -> None:
    """Each release has the features of its sources."""
    features = builtin_features(release)
    assert variant == (
        features.context_test,
        features.interrupt_mask,
        features.gfp_context_on_fast_path,
        features.pf_memalloc_nocma,
        features.pf_memalloc_noreclaim,
        features.defrag_mode,
        features.nolock,
        features.entry_alloc_flags,
        features.config_cma,
    )
    assert features.pf_memalloc_pin == features.gfp_context_on_fast_path
    assert features.highatomic_on_fast_path == features.entry_alloc_flags


@pytest.mark.parametrize("release", RELEASES)
def test_same_on_every_release(release: str) -> None:
    """Orders go to 10, Debian has cpusets and NUMA, and order 9 is the huge page's."""
    features = builtin_features(release)
    assert (features.max_order, features.config_cpusets, features.config_numa) == (10, True, True)
    assert features.nolock_orders == (() if features.nolock == "none" else (0, 1, 2, 3, 9))


@pytest.mark.parametrize(
    ("release", "mask"),
    [
        ("5.8", 0x7FFFFF),
        ("5.10", 0x7FFFFF),
        ("5.13", 0x7FFFFF),
        ("5.14", 0x1FFFFFF),
        ("5.17", 0x1FFFFFF),
        ("5.18", 0x7FFFFFF),
        ("6.1", 0x7FFFFFF),
        ("6.3", 0x7FFFFFF),
        ("6.4", 0x3FFFFFF),
        ("6.8", 0x3FFFFFF),
        ("6.9", 0xFFFFFF),
        ("6.10", 0x1FFFFFF),
        ("6.12", 0x1FFFFFF),
        ("6.16", 0x1FFFFFF),
        ("7.2", 0x1FFFFFF),
        ("7.3", 0xFFFFFF),
    ],
)
def test_gfp_allowed_mask(release: str, mask: int) -> None:
    """A booted kernel allows every bit below __GFP_BITS_SHIFT."""
    assert default_allowed_mask(builtin_tables(release)) == mask
    assert builtin_snapshot(release).machine.gfp_allowed_mask == mask


def test_gfp_allowed_mask_with_lockdep() -> None:
    """CONFIG_LOCKDEP adds a bit where the shift was written by hand."""
    tables = builtin_tables("5.10")
    with_lockdep = type(tables).from_json(
        {**tables.to_json(), "gfp_bits": [*tables.gfp_bits, ("__GFP_NOLOCKDEP", 0x800000)]}
    )
    assert default_allowed_mask(with_lockdep) == 0xFFFFFF


def test_every_feature_has_a_value_from_the_first_release_on() -> None:
    """No release lacks a feature, and no row names a feature that does not exist."""
    assert {row.feature for row in ROWS if row.since == (5, 8)} == {field.name for field in fields(Features)}
    assert {row.feature for row in ROWS} == {field.name for field in fields(Features)}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.feature}-{row.since[0]}.{row.since[1]}")
def test_every_row_cites_its_source(row: tuple[str, tuple[int, int], object, str]) -> None:
    """A source is a commit with subject and release, or a file of a version, or a configuration."""
    assert re.search(r'[0-9a-f]{12} \(".+"\) .*\(in v\d\.\d+\)|\.[ch](:\d+)? of |CONFIG_|MAX_ORDER', row[3]) or (
        "mm/page_alloc.c:" in row[3]
    )


def test_rows_ascend() -> None:
    """A later row replaces an earlier one, so the rows of a feature stand in the order of the releases."""
    for name in {row.feature for row in ROWS}:
        since = [row.since for row in ROWS if row.feature == name]
        assert since == sorted(set(since))


@pytest.mark.parametrize("kernel", builtin_kernels())
def test_every_kernel_with_tables_has_features(kernel: str) -> None:
    """The flag tables and the features know the same kernels."""
    assert builtin_snapshot(kernel).features == builtin_features(kernel)


@pytest.mark.parametrize("kernel", ["5.10", "v5.10", "5.10.262", "5.10.0-46-amd64"])
def test_names_of_a_kernel(kernel: str) -> None:
    """A kernel may be named by its series, its release or `uname -r`."""
    assert builtin_features(kernel) == builtin_features("5.10")


@pytest.mark.parametrize(
    "kernel", ["5.7", "5.20", "7.4", "8.0", "", "six", "5", "5.10 ; rm", "4.18.0-553.el8_10.x86_64"]
)
def test_unknown_kernel(kernel: str) -> None:
    """An unknown kernel is a usage error; the rules of its neighbours are not used."""
    with pytest.raises(KalloctraceError) as caught:
        builtin_snapshot(kernel)
    assert caught.value.code == Exit.USAGE
    assert caught.value.why
    assert caught.value.fix


@pytest.mark.parametrize("release", RELEASES)
def test_default_machine(release: str) -> None:
    """Without a machine there is one node with memory in DMA, DMA32 and Normal."""
    machine = builtin_snapshot(release).machine
    assert machine.fallback == {0: ((0, 2), (0, 1), (0, 0))}
    assert machine.nr_online_nodes == 1
    assert not machine.cpusets_enabled


def test_given_machine() -> None:
    """A given machine is used unchanged."""
    machine = machine_of({1: [2]}, gfp_allowed_mask=0)
    assert builtin_snapshot("6.12", machine).machine is machine


def test_evidence_and_json() -> None:
    """A snapshot says where each feature was read, and survives JSON."""
    snapshot = builtin_snapshot("6.12")
    assert set(snapshot.evidence) == {field.name for field in fields(Features)}
    assert "9a8da05d7ad6" in snapshot.evidence["pf_memalloc_noreclaim"]
    assert Snapshot.from_json(snapshot.to_json()) == snapshot


def test_tables_of_no_release_have_no_mask() -> None:
    """The release decides how the mask is computed."""
    with pytest.raises(KalloctraceError, match="custom") as caught:
        default_allowed_mask(replace(builtin_tables("5.10"), kernel="custom"))
    assert caught.value.code == Exit.USAGE


def test_nodes_and_zonelists_are_found_by_id() -> None:
    """An unknown node has neither; an absent zone has no pages."""
    machine = machine_of({0: [0, 2], 2: [2]}, gfp_allowed_mask=0xFF, fallback_order={0: [2, 0]})
    node = machine.node(2)
    assert node is not None
    assert (node.nid, node.present_pages(2), node.present_pages(1)) == (2, 1, 0)
    assert machine.node(1) is None
    assert machine.zonelist("FALLBACK", 0) == ((2, 2), (0, 2), (0, 0))
    assert machine.zonelist("FALLBACK", 2) == ((2, 2),)
    assert machine.zonelist("NOFALLBACK", 0) == ((0, 2), (0, 0))
    assert machine.zonelist("NOFALLBACK", 1) is None
    assert machine.nr_online_nodes == 2


def test_default_order_of_the_nodes_starts_at_the_owner() -> None:
    """It wraps around at the last node."""
    machine = machine_of({0: [2], 1: [2], 3: [2]}, gfp_allowed_mask=0)
    assert [ref.node for ref in machine.fallback[1]] == [1, 3, 0]
