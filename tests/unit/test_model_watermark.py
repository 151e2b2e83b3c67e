# SPDX-License-Identifier: MIT
"""The watermark check of each kernel against numbers worked out by hand from its source; and each rule broken."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.releases import Release, parse_release, upstream_release
from kalloctrace.kernel.watermark_rules import OLDEST_RULES, SHARED_RULES, watermark_rules
from kalloctrace.model import watermark
from kalloctrace.model.watermark import (
    NONE,
    FreeBlocks,
    Range,
    Watermarks,
    ZoneState,
    highatomic_pages,
    lowered_mark,
    lowmem_reserve_pages,
    suitable_block,
    without_boost,
    zone_watermark_fast,
)
from tests.broken_watermark import MUTATIONS
from tests.compiled.watermark_rows import agrees, blocks_of, kernel_of

DATA = Path(__file__).parent / "data"

MIN, LOW = 0, 1
NO_WATERMARKS, OOM, HARDER, HIGH, CPUSET, CMA, HIGHATOMIC = 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x200
"""From 6.3 on HARDER is ALLOC_NON_BLOCK and HIGH is ALLOC_MIN_RESERVE."""

NORMAL = 2
GFP_ATOMIC_5_10 = 0xA20


def zone(free: int, letters: str = "U U U U U U U U U U U", /, **more: object) -> ZoneState:
    """Return a zone of min 1000, low 1250 and high 1500 pages, with one block of each order of the types named."""
    state = ZoneState(
        node=0,
        zone="DMA32",
        index=1,
        free=free,
        watermarks=(1000, 1250, 1500),
        boost=0,
        reserved_highatomic=0,
        free_highatomic=0,
        free_cma=0,
        lowmem_reserve=(0, 0, 100, 300, 300),
        blocks=blocks_of(letters),
    )
    return replace(state, **more)  # type: ignore[arg-type]


def unlisted(cma: int, reserved: int) -> ZoneState:
    """Return a zone with 5000 free pages, so many of which are CMA's and may be reserved, and without its list."""
    return zone(5000, free_cma=cma, reserved_highatomic=reserved, free_highatomic=None, blocks=None)


@cache
def kernel(release: str) -> Watermarks:
    """Return the check of a built-in release."""
    return kernel_of(release)


@dataclass(frozen=True)
class Expectation:
    """What a kernel answers: the outcome, and the least free pages that pass where the outcome hangs on them."""

    what: str
    kernels: str
    state: ZoneState
    flags: int
    outcome: str
    order: int = 0
    gfp: int = 0
    highest: int = NORMAL


ALL, OLD, NEW = "5.10 6.1 6.12 7.2 7.3", "5.10", "6.1 6.12 7.2 7.3"
NO_HIGH_ORDER = "U U - - - - - - - - -"

EXPECTATIONS = (
    # min 1000 + lowmem_reserve[2] 100: there must be more than 1100.
    Expectation("equal to the watermark", ALL, zone(1100), CPUSET, "watermark"),
    Expectation("one page above", ALL, zone(1101), CPUSET, "ok"),
    Expectation("the low watermark, equal", ALL, zone(1350), LOW, "watermark"),
    Expectation("the low watermark, above", ALL, zone(1351), LOW, "ok"),
    # lowmem_reserve[3] is 300, lowmem_reserve[1] 0.
    Expectation("for a movable request", ALL, zone(1300), CPUSET, "watermark", highest=3),
    Expectation("for a movable request, above", ALL, zone(1301), CPUSET, "ok", highest=3),
    Expectation("for a DMA32 request", ALL, zone(1000), CPUSET, "watermark", highest=1),
    Expectation("for a DMA32 request, above", ALL, zone(1001), CPUSET, "ok", highest=1),
    # 2**3 - 1 = 7 pages do not count.
    Expectation("order 3, equal", ALL, zone(1107), CPUSET, "watermark", order=3),
    Expectation("order 3, above", ALL, zone(1108), CPUSET, "ok", order=3),
    # 1000 - 500 = 500.
    Expectation("half for ALLOC_HIGH", ALL, zone(600), HIGH, "watermark"),
    Expectation("half for ALLOC_HIGH, above", ALL, zone(601), HIGH, "ok"),
    # An odd watermark: 1001 - 500 = 501.
    Expectation("half of odd", ALL, zone(601, watermarks=(1001, 1251, 1501)), HIGH, "watermark"),
    # 1000 - 250 = 750 in 5.10; nothing for ALLOC_NON_BLOCK by itself since 6.3.
    Expectation("a quarter for ALLOC_HARDER", OLD, zone(850), HARDER, "watermark"),
    Expectation("a quarter for ALLOC_HARDER, above", OLD, zone(851), HARDER, "ok"),
    Expectation("nothing for ALLOC_NON_BLOCK", NEW, zone(1100), HARDER, "watermark"),
    Expectation("nothing for ALLOC_NON_BLOCK, above", NEW, zone(1101), HARDER, "ok"),
    # 500 - 125 = 375.
    Expectation("atomic", ALL, zone(475), HIGH | HARDER, "watermark"),
    Expectation("atomic, above", ALL, zone(476), HIGH | HARDER, "ok"),
    # A quarter, rounded down, is subtracted: 1003 - 250 = 753, not 752; 1003 - 501 - 125 = 377, not 376.
    Expectation("a quarter of 1003", OLD, zone(853, watermarks=(1003, 1253, 1503)), HARDER, "watermark"),
    Expectation("a quarter of 1003, above", OLD, zone(854, watermarks=(1003, 1253, 1503)), HARDER, "ok"),
    Expectation("atomic, of 1003", ALL, zone(477, watermarks=(1003, 1253, 1503)), HIGH | HARDER, "watermark"),
    Expectation("atomic, of 1003, above", ALL, zone(478, watermarks=(1003, 1253, 1503)), HIGH | HARDER, "ok"),
    # OOM alone halves; with HIGH it is 250; 5.10 leaves the quarter out, since 6.3 it is 375 - 187 = 188.
    Expectation("ALLOC_OOM", ALL, zone(600), OOM, "watermark"),
    Expectation("ALLOC_OOM, above", ALL, zone(601), OOM, "ok"),
    Expectation("ALLOC_OOM and HIGH", ALL, zone(350), OOM | HIGH, "watermark"),
    Expectation("ALLOC_OOM and HIGH, above", ALL, zone(351), OOM | HIGH, "ok"),
    Expectation("all of them", OLD, zone(350), OOM | HIGH | HARDER, "watermark"),
    Expectation("all of them, above", OLD, zone(351), OOM | HIGH | HARDER, "ok"),
    Expectation("all of them", NEW, zone(288), OOM | HIGH | HARDER, "watermark"),
    Expectation("all of them, above", NEW, zone(289), OOM | HIGH | HARDER, "ok"),
    # 40 pages reserved, 10 of them free.
    Expectation(
        "all that is reserved is kept",
        "5.10 6.1",
        zone(1140, reserved_highatomic=40, free_highatomic=10),
        0,
        "watermark",
    ),
    Expectation(
        "all that is reserved is kept, above",
        "5.10 6.1",
        zone(1141, reserved_highatomic=40, free_highatomic=10),
        0,
        "ok",
    ),
    Expectation(
        "what is free is kept", "6.12 7.2 7.3", zone(1110, reserved_highatomic=40, free_highatomic=10), 0, "watermark"
    ),
    Expectation(
        "what is free is kept, above", "6.12 7.2 7.3", zone(1111, reserved_highatomic=40, free_highatomic=10), 0, "ok"
    ),
    Expectation(
        "not counted, and no H block", "6.12", zone(1101, reserved_highatomic=40, free_highatomic=None), 0, "ok"
    ),
    Expectation(
        "not counted, with an H block",
        "6.12",
        zone(1101, "UH U U U U U U U U U U", reserved_highatomic=40, free_highatomic=None),
        0,
        "unknown",
    ),
    Expectation("HIGH does not open it", OLD, zone(640, reserved_highatomic=40), HIGH, "watermark"),
    Expectation("HIGH opens it", NEW, zone(601, reserved_highatomic=40, free_highatomic=40), HIGH, "ok"),
    Expectation("HARDER opens it", OLD, zone(851, reserved_highatomic=40), HARDER, "ok"),
    Expectation("OOM opens it", ALL, zone(601, reserved_highatomic=40, free_highatomic=40), OOM, "ok"),
    # 200 free pages in CMA areas.
    Expectation("CMA pages are not for all", ALL, zone(1300, free_cma=200), 0, "watermark"),
    Expectation("CMA pages are not for all, above", ALL, zone(1301, free_cma=200), 0, "ok"),
    Expectation("CMA pages for movable requests", ALL, zone(1101, free_cma=200), CMA, "ok"),
    # A block of the order or larger, of a type that may be taken.
    Expectation("no block", ALL, zone(5000, NO_HIGH_ORDER), CPUSET, "block", order=2),
    Expectation("a larger block", ALL, zone(5000, "U U - - - - - - E - -"), CPUSET, "ok", order=2),
    Expectation("a CMA block", ALL, zone(5000, "U U - - C - - - - - -"), CPUSET, "block", order=2),
    Expectation("a CMA block for movable requests", ALL, zone(5000, "U U - - C - - - - - -"), CMA, "ok", order=2),
    Expectation("an isolated block", ALL, zone(5000, "U U - - I - - - - - -"), CPUSET, "block", order=2),
    Expectation("a highatomic block", ALL, zone(5000, "U U - - H - - - - - -"), HIGH, "block", order=2),
    Expectation("a highatomic block, HARDER", OLD, zone(5000, "U U - - H - - - - - -"), HARDER, "ok", order=2),
    Expectation("a highatomic block, OOM", NEW, zone(5000, "U U - - H - - - - - -"), OOM, "ok", order=2),
    # `__zone_watermark_ok` passes, and `rmqueue` takes from highatomic blocks for ALLOC_HARDER alone.
    Expectation("a highatomic block, OOM", OLD, zone(5000, "U U - - H - - - - - -"), OOM, "block", order=2),
    Expectation("OOM and HARDER", OLD, zone(5000, "U U - - H - - - - - -"), OOM | HARDER, "ok", order=2),
    Expectation("a highatomic block, NON_BLOCK", NEW, zone(5000, "U U - - H - - - - - -"), HARDER, "block", order=2),
    Expectation("a highatomic block, HIGHATOMIC", NEW, zone(5000, "U U - - H - - - - - -"), HIGHATOMIC, "ok", order=2),
    # Order 0 takes no highatomic page in 5.10, and one when it may not block or is being killed in later kernels.
    Expectation("order 0, H only", ALL, zone(5000, "H H H H - - - - - - -"), CPUSET, "block"),
    Expectation("order 0, H only, HARDER", OLD, zone(5000, "H H H H - - - - - - -"), HARDER, "block"),
    Expectation("order 0, H only, NON_BLOCK", NEW, zone(5000, "H H H H - - - - - - -"), HARDER, "ok"),
    Expectation("order 0, H only, NON_BLOCK", "6.6", zone(5000, "H H H H - - - - - - -"), HARDER, "unknown"),
    # min 1000 holds a boost of 400: without it an order-0 request that may go below needs more than 300 + 100.
    Expectation("boosted", ALL, zone(601, boost=400), 0, "watermark"),
    Expectation("boosted, atomic", "5.10 6.1", zone(401, boost=400), HIGH, "ok", gfp=GFP_ATOMIC_5_10),
    Expectation("boosted, atomic, equal", "5.10 6.1", zone(400, boost=400), HIGH, "watermark", gfp=GFP_ATOMIC_5_10),
    Expectation("boosted, HIGH alone", "5.10 6.1", zone(401, boost=400), HIGH, "watermark", gfp=0x820),
    Expectation("boosted, HIGH alone", "6.12 7.2 7.3", zone(401, boost=400), HIGH, "ok", gfp=0x820),
    Expectation("boosted, order 1", "6.12", zone(402, boost=400), HIGH, "watermark", order=1, gfp=0x820),
    Expectation("boosted, at the low watermark", "6.12", zone(401, boost=400), HIGH | LOW, "watermark", gfp=0x820),
    # 600 + 100 would be enough without the boost, which only requests that may use the reserves are spared.
    Expectation("boosted, no reserves", ALL, zone(701, boost=400), CPUSET, "watermark"),
    Expectation("boosted, ALLOC_NON_BLOCK alone", NEW, zone(701, boost=400), HARDER, "watermark"),
    Expectation("the boost is not known", ALL, zone(600, boost=None), HIGH, "watermark", gfp=GFP_ATOMIC_5_10),
    Expectation(
        "a highatomic block of order 1, HARDER", OLD, zone(5000, "U H - - - - - - - - -"), HARDER, "ok", order=1
    ),
    Expectation("movable pages only", ALL, zone(5000, "M - - - - - - - - - -"), CPUSET, "ok"),
    Expectation("reclaimable pages only", ALL, zone(5000, "E - - - - - - - - - -"), CPUSET, "ok"),
    Expectation("unmovable pages only", ALL, zone(5000, "U - - - - - - - - - -"), CPUSET, "ok"),
    Expectation("order 0, isolated pages only, NON_BLOCK", "6.6", zone(5000, "I - - - - - - - - - -"), HARDER, "block"),
    Expectation("no watermarks", ALL, zone(1), NO_WATERMARKS, "ok"),
    Expectation("no watermarks, no block", ALL, zone(5000, NO_HIGH_ORDER), NO_WATERMARKS, "block", order=2),
    # What is not known.
    Expectation("lowmem_reserve not known, high", ALL, zone(1301, lowmem_reserve=None, managed=300), 0, "ok"),
    Expectation("lowmem_reserve not known, low", ALL, zone(1000, lowmem_reserve=None, managed=300), 0, "watermark"),
    Expectation("lowmem_reserve not known", ALL, zone(1101, lowmem_reserve=None, managed=300), 0, "unknown"),
    Expectation("the highest lowmem_reserve, equal", ALL, zone(1300, lowmem_reserve=None, managed=300), 0, "unknown"),
    Expectation(
        "lowmem_reserve not known, no block",
        ALL,
        zone(1200, NO_HIGH_ORDER, lowmem_reserve=None, managed=300),
        CPUSET,
        "block",
        order=2,
    ),
    Expectation("blocks not known", ALL, zone(5000, blocks=None), 0, "unknown", order=1),
    Expectation("blocks not known, too low", ALL, zone(50, blocks=None), 0, "watermark", order=1),
    # Of single pages nothing is listed: all that are free may be CMA's, or of the high-order atomic reserve.
    Expectation("single pages, all of other types", ALL, unlisted(2500, 2500), HARDER, "unknown"),
    Expectation("single pages, one of a common type", ALL, unlisted(2500, 2499), HARDER, "ok"),
    Expectation("single pages, all of them CMA's", ALL, unlisted(5000, 0), CMA, "ok"),
    # 500 + 300 would be too much.
    Expectation(
        "an OOM victim, lowmem_reserve not known", ALL, zone(700, lowmem_reserve=None, managed=300), OOM, "unknown"
    ),
    Expectation("the only block is of types not known", ALL, zone(5000, blocks=(FreeBlocks(9),)), 0, "unknown"),
)

CASES = [(release, case) for case in EXPECTATIONS for release in case.kernels.split()]


def answer(release: str, case: Expectation) -> str:
    """Return the outcome of a case on a kernel."""
    check = zone_watermark_fast(kernel(release), case.state, case.order, case.highest, case.flags, gfp_mask=case.gfp)
    return check.outcome


@pytest.mark.parametrize(("release", "case"), CASES, ids=[f"{release}: {case.what}" for release, case in CASES])
def test_expectation(release: str, case: Expectation) -> None:
    """Each kernel passes or refuses as its source says."""
    assert answer(release, case) == case.outcome


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_rule_is_caught(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule that is broken on purpose makes an expectation fail."""
    name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(watermark, name, broken)
    assert [case.what for release, case in CASES if answer(release, case) != case.outcome] != []


def test_numbers_of_a_check() -> None:
    """A check returns each number that it compared."""
    state = zone(2000, "U - - H - - - - - - -", reserved_highatomic=40, free_cma=200)
    check = zone_watermark_fast(kernel("5.10"), state, 2, NORMAL, HIGH)
    assert (check.outcome, check.watermark, check.mark, check.lowered) == ("block", "min", 1000, 500)
    assert (check.order_pages, check.highatomic, check.cma) == (3, Range(40, 40), Range(200, 200))
    assert (check.usable, check.lowmem_reserve, check.needed) == (Range(1757, 1757), Range(100, 100), Range(600, 600))
    assert (check.largest, check.types_there) == (0, frozenset({"MIGRATE_HIGHATOMIC"}))


def test_what_is_not_known_is_a_part_of_the_free_pages() -> None:
    """No more pages can be kept back than are free."""
    state = zone(10, reserved_highatomic=None, free_cma=None, blocks=None)
    assert zone_watermark_fast(kernel("5.10"), state, 0, NORMAL, 0).usable == Range(0, 10)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (None, OLDEST_RULES),
        (Release(2, 6, 32), OLDEST_RULES),
        (Release(4, 3, 3), OLDEST_RULES),
        (Release(4, 4, 0), SHARED_RULES),
        (Release(5, 8, 18), SHARED_RULES),
    ],
)
def test_kernels_whose_check_is_not_known(release: Release | None, expected: object) -> None:
    """Kernels before 5.9 get what they share with others, and say so."""
    assert watermark_rules(release) == expected
    assert not watermark_rules(release).known


def test_patched_kernels_promise_no_rule() -> None:
    """A vendor that backports code gets no rule from its release number."""
    assert watermark_rules(upstream_release("5.14.0-427.el9.x86_64")) == OLDEST_RULES


@pytest.mark.parametrize(
    ("release", "reserves", "highatomic"),
    [
        ("5.10", "harder", "reserved"),
        ("6.1.115", "harder", "reserved"),
        ("6.1.116", "min_reserve", "reserved"),
        ("6.2", "harder", "reserved"),
        ("6.3", "min_reserve", "reserved"),
        ("6.11", "min_reserve", "unknown"),
        ("6.12.5", "min_reserve", "unknown"),
        ("6.12", "min_reserve", "free"),
        ("6.13", "min_reserve", "free"),
        ("7.3", "min_reserve", "free"),
    ],
)
def test_rules_by_release(release: str, reserves: str, highatomic: str) -> None:
    """Each release has the flags and rules of the source that was read for it."""
    rules, bits = watermark_rules(parse_release(release)), builtin_tables(release).bits
    assert (rules.highatomic, rules.known) == (highatomic, True)
    assert (bits.alloc_high, bits.alloc_harder) == ((0x20, 0x10) if reserves == "harder" else (0, 0))
    assert (bits.alloc_min_reserve, bits.alloc_non_block) == ((0, 0) if reserves == "harder" else (0x20, 0x10))


def test_before_4_4_a_block_is_not_enough() -> None:
    """Without the check that compares each order no request certainly passes."""
    old = Watermarks(OLDEST_RULES, kernel("5.10").bits)
    assert zone_watermark_fast(old, zone(5000), 3, NORMAL, 0).outcome == "unknown"
    assert zone_watermark_fast(old, zone(5000, NO_HIGH_ORDER), 3, NORMAL, 0).outcome == "block"
    assert zone_watermark_fast(old, zone(5000), 0, NORMAL, 0).outcome == "ok"


EXECUTED = [run for path in sorted((DATA / "watermark").glob("*.json")) for run in json.loads(path.read_text())]
"""What the compiled `__zone_watermark_ok` of Debian's kernels returned for random zones: see the README there."""

NOT_EXECUTED = {
    "the low watermark for min": "the function is given the watermark's value",
    "an OOM victim is given highatomic blocks in 5.10": "rmqueue is another function",
    "the boost holds back everybody": "zone_watermark_fast, which is inlined, looks at the boost",
}


def executed_differently() -> Iterator[dict[str, Any]]:
    """Yield the runs in which the model does not do what the kernel did."""
    return (run for run in EXECUTED if not agrees(kernel(run["kernel"]), run))


def test_executed_code() -> None:
    """The model passes and refuses as the compiled function of each kernel does."""
    assert len(EXECUTED) == 557
    assert list(executed_differently()) == []


@pytest.mark.parametrize("mutation", [name for name in MUTATIONS if name not in NOT_EXECUTED])
def test_executed_code_notices_a_broken_rule(mutation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The executed checks detect every broken rule that this function contains."""
    name, broken = MUTATIONS[mutation]
    monkeypatch.setattr(watermark, name, broken)
    assert next(executed_differently(), None) is not None


@pytest.mark.parametrize(
    ("release", "alloc_flags", "lowered"),
    [
        # 1003 - 1003 // 4; a product of 3 / 4 would be 752.
        ("5.10", HARDER, 753),
        # 1003 - 501, then 502 - 125; a product would be 376.
        ("5.10", HIGH | HARDER, 377),
        ("6.12", HIGH | HARDER, 377),
        # The quarter of ALLOC_NON_BLOCK needs ALLOC_MIN_RESERVE.
        ("6.12", HARDER, 1003),
    ],
)
def test_a_quarter_is_rounded_down(release: str, alloc_flags: int, lowered: int) -> None:
    """The kernel subtracts `min / 4`, an integer division."""
    assert lowered_mark(kernel(release), 1003, alloc_flags) == lowered


@pytest.mark.parametrize(("flags", "name", "mark"), [(0, "min", 1000), (1, "low", 1250), (2, "high", 1500)])
def test_the_two_lowest_bits_select_the_watermark(flags: int, name: str, mark: int) -> None:
    """`wmark_pages(zone, alloc_flags & ALLOC_WMARK_MASK)`: enum zone_watermarks is MIN, LOW, HIGH."""
    check = zone_watermark_fast(kernel("6.12"), zone(2000), 0, NORMAL, flags | CPUSET)
    assert (check.watermark, check.mark) == (name, mark)


def test_a_check_that_fails_looks_for_no_block() -> None:
    """`__zone_watermark_ok` returns false before it looks at free_area."""
    check = zone_watermark_fast(kernel("6.12"), zone(10), 0, NORMAL, CPUSET)
    assert (check.outcome, check.largest, check.types_there) == ("watermark", None, frozenset())


def test_a_check_that_passes_shows_the_largest_block() -> None:
    """Of the types that the request may take: order 8 is isolated."""
    check = zone_watermark_fast(kernel("6.12"), zone(5000, "U - - - M - - - I - -"), 2, NORMAL, CPUSET)
    assert (check.outcome, check.largest, check.types_there) == ("ok", 4, frozenset())


def test_usable_pages_may_be_negative() -> None:
    """`free_pages -= __zone_watermark_unusable_free()` of a `long`: 10 - 40 reserved - 5 in CMA areas."""
    check = zone_watermark_fast(kernel("5.10"), zone(10, reserved_highatomic=40, free_cma=5), 0, NORMAL, CPUSET)
    assert check.usable == Range(-35, -35)


BLOCKS = (FreeBlocks(0), FreeBlocks(3, frozenset({"MIGRATE_UNMOVABLE"})))


@pytest.mark.parametrize(
    ("blocks", "pages"),
    [
        (None, Range(0, 40)),
        (BLOCKS, NONE),
        ((*BLOCKS, FreeBlocks(1, frozenset({"MIGRATE_HIGHATOMIC"}))), Range(0, 40)),
        ((*BLOCKS, FreeBlocks(1)), Range(0, 40)),
    ],
)
def test_free_highatomic_pages_that_are_not_counted(blocks: tuple[FreeBlocks, ...] | None, pages: Range) -> None:
    """At most what is reserved; none if each free block is of another type."""
    state = zone(5000, reserved_highatomic=40, free_highatomic=None, blocks=blocks)
    assert highatomic_pages(kernel("6.12"), state, CPUSET) == pages
    assert highatomic_pages(kernel("6.12"), state, HIGH) == Range(0, 0)


@pytest.mark.parametrize(
    ("blocks", "pages"),
    [
        (None, Range(0, 5000)),
        (BLOCKS, Range(0, 0)),
        ((*BLOCKS, FreeBlocks(1, frozenset({"MIGRATE_CMA"}))), Range(0, 5000)),
        ((*BLOCKS, FreeBlocks(1)), Range(0, 5000)),
    ],
)
def test_free_cma_pages_that_are_not_counted(blocks: tuple[FreeBlocks, ...] | None, pages: Range) -> None:
    """At most what is free; none if each free block is of another type."""
    state = zone(5000, free_cma=None, blocks=blocks)
    assert watermark.free_cma_pages(state) == pages
    assert watermark.free_cma_pages(replace(state, free_cma=7)) == Range(7, 7)


@pytest.mark.parametrize(
    ("reserve", "managed", "highest", "pages"),
    [
        # setup_per_zone_lowmem_reserve(): at most the managed pages; else at most what is free.
        (None, 300, NORMAL, Range(0, 300)),
        (None, 0, NORMAL, Range(0, 0)),
        (None, None, NORMAL, Range(0, 5000)),
        ((0, 10, 20), 300, 0, Range(0, 0)),
        ((5, 10, 20), 300, 2, Range(20, 20)),
        # A zone that the array does not have, or that is not known.
        ((5, 10, 20), 300, 3, Range(5, 20)),
        ((5, 10, 20), 300, -1, Range(5, 20)),
        ((5, 10, 20), 300, None, Range(5, 20)),
        ((), 300, None, Range(0, 0)),
    ],
)
def test_lowmem_reserve(
    reserve: tuple[int, ...] | None, managed: int | None, highest: int | None, pages: Range
) -> None:
    """`z->lowmem_reserve[highest_zoneidx]`; a range if that is not known."""
    assert lowmem_reserve_pages(zone(5000, lowmem_reserve=reserve, managed=managed), highest) == pages


@pytest.mark.parametrize(("index", "pages"), [(1, Range(0, 300)), (2, NONE), (3, NONE), (None, Range(0, 300))])
def test_lowmem_reserve_of_the_own_zone(index: int | None, pages: Range) -> None:
    """A zone keeps nothing from requests whose highest zone it is, whatever the log shows."""
    assert lowmem_reserve_pages(zone(5000, index=index, lowmem_reserve=None, managed=300), NORMAL) == pages


def test_a_zone_without_its_boost() -> None:
    """`wmark_pages()` is `_watermark[i] + watermark_boost` for each of the three: include/linux/mmzone.h."""
    plain = without_boost(zone(5000, boost=400))
    assert (plain.watermarks, plain.boost) == ((600, 850, 1100), 0)
    for boost in (0, None):
        assert without_boost(zone(5000, boost=boost)).watermarks == (1000, 1250, 1500)


def test_the_boost_counts_if_the_zone_passes_with_it() -> None:
    """zone_watermark_fast returns true before it looks at the boost, so that the numbers are the boosted ones."""
    check = zone_watermark_fast(kernel("6.12"), zone(5000, boost=400), 0, NORMAL, HIGH)
    assert (check.outcome, check.mark, check.lowered) == ("ok", 1000, 500)


def test_blocks_that_are_not_known() -> None:
    """Nothing is said of them."""
    found = suitable_block(kernel("6.12"), zone(5000, blocks=None), 1, CPUSET)
    assert found == ("unknown", None, frozenset())


@pytest.mark.parametrize("migratetype", ["MIGRATE_RESERVE", "MIGRATE_HIGHATOMIC"])
def test_before_5_9_who_takes_from_a_reserve_is_not_known(migratetype: str) -> None:
    """4.4 replaced MIGRATE_RESERVE by MIGRATE_HIGHATOMIC; an isolated block serves nobody in either."""
    for rules in (OLDEST_RULES, SHARED_RULES):
        old = Watermarks(rules, kernel("5.10").bits)
        blocks = (FreeBlocks(0, frozenset()), FreeBlocks(1, frozenset({migratetype})))
        assert suitable_block(old, zone(5000, blocks=blocks), 1, CPUSET).outcome == "unknown"
        isolated = (*blocks[:1], FreeBlocks(1, frozenset({"MIGRATE_ISOLATE"})))
        assert suitable_block(old, zone(5000, blocks=isolated), 1, CPUSET).outcome == "block"


def test_what_is_not_given_is_not_known() -> None:
    """A zone of which only its free pages and watermarks are known."""
    bare = ZoneState(0, "DMA32", 1, 1200, (1000, 1250, 1500))
    assert (bare.boost, bare.reserved_highatomic, bare.free_highatomic, bare.free_cma) == (None,) * 4
    assert (bare.lowmem_reserve, bare.managed, bare.blocks, bare.reclaimable) == (None,) * 4
    check = zone_watermark_fast(kernel("6.12"), bare, 0, NORMAL, CPUSET)
    assert (check.outcome, check.largest, check.types_there) == ("unknown", None, frozenset())
    assert check.usable == Range(0, 1200)
    assert check.needed == Range(1000, 2200)
