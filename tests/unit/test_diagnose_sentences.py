# SPDX-License-Identifier: MIT
"""The sentences about a failure: what they say, by the numbers of the report."""

from typing import Any

import pytest

from kalloctrace.diagnose.diagnosis import in_every_case
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.reports.model import Blocks, Cache, LoggedZone
from kalloctrace.diagnose.sentences import (
    CLAUSES,
    certainty,
    conditions,
    further_findings,
    headline_alike,
    kilobytes,
    reason_sentence,
    remedy_sentence,
    request_sentence,
    size,
    zone_sentence,
)
from kalloctrace.diagnose.zones import Remedy
from tests.diagnosed import judged, pages, zone

LOW, RICH = zone(100), zone(5000)
SMALL = zone(5000, (pages(5000, "UNMOVABLE"),))
UNKNOWN_SIZE = "6.1.100"
WARNING = "mm/page_alloc.c:1 {}+0x1/0x2"


@pytest.mark.parametrize(
    ("event", "more", "sentence"),
    [
        ("failure", {}, "order 0 (4 kB) with GFP_KERNEL for task failed"),
        ("failure", {"order": 3, "comm": ""}, "order 3 (32 kB) with GFP_KERNEL failed"),
        ("failure", {"gfp": None}, "order 0 (4 kB) for task failed"),
        ("failure", {"order": 3, "release": UNKNOWN_SIZE}, "order 3 (8 pages) with GFP_KERNEL for task failed"),
        ("failure", {"release": UNKNOWN_SIZE}, "order 0 (1 page) with GFP_KERNEL for task failed"),
        ("failure", {"order": 1, "release": "6.6.0-64k"},
         "order 1 (2 pages, likely 128 kB) with GFP_KERNEL for task failed"),
        ("stall", {"waited": "10ms"}, "order 0 (4 kB) with GFP_KERNEL for task stalled for 10ms"),
        ("oom", {}, "order 0 (4 kB) with GFP_KERNEL for task led to the OOM killer"),
        ("oom", {"order": -1}, "order -1 with GFP_KERNEL for task led to the OOM killer"),
        ("oom", {"order_shown": False}, "a request with GFP_KERNEL for task led to the OOM killer"),
        ("memory", {"gfp": None}, "the state of memory"),
        ("memory", {}, "order 0 (4 kB) with GFP_KERNEL in this state of memory"),
        ("warning", {"warning_text": WARNING.format("rmqueue")}, "a warning of the page allocator for task"),
        ("warning", {"warning_text": WARNING.format("rmqueue"), "comm": ""}, "a warning of the page allocator"),
        ("warning", {"warning_text": WARNING.format("__alloc_pages"), "order_shown": False, "gfp": None},
         "a request for task failed"),
        ("vmalloc", {"size": 8193}, "vmalloc of 9 kB with GFP_KERNEL for task failed"),
        ("vmalloc", {}, "vmalloc with GFP_KERNEL for task failed"),
        ("vmap", {"size": 2048, "gfp": None, "comm": ""}, "vmalloc of 2 kB failed"),
        ("cma", {"pages": 1, "gfp": None, "comm": ""}, "1 contiguous page failed"),
        ("cma", {"pages": 1025, "gfp": None, "comm": ""}, "1,025 contiguous pages failed"),
        ("contig", {"gfp": None, "comm": ""}, "a range of pages failed"),
        ("slub", {"cache": Cache("a-64", None, None, 0, 0), "comm": "", "order": 1},
         "a slab of a-64, order 1 (8 kB), with GFP_KERNEL failed"),
        ("slub", {"cache": Cache("a-64", None, None, 0, 0), "comm": "", "order_shown": False},
         "a slab of a-64 with GFP_KERNEL failed"),
        ("slub", {"comm": ""}, "order 0 (4 kB) with GFP_KERNEL failed"),
        ("hugetlb", {"order_shown": False, "gfp": None, "comm": ""}, "huge pages failed"),
        ("hugetlb", {"order_shown": False, "gfp": None, "comm": "", "pages": 9}, "huge pages failed"),
        ("hugetlb", {"order_shown": False, "gfp": None, "comm": "", "pages": 1000, "size": 2 << 20},
         "1,000 huge pages of 2,048 kB failed"),
    ],
)  # fmt: skip
def test_requests(event: str, more: dict[str, Any], sentence: str) -> None:
    """What was asked for, by whom, and what happened."""
    assert request_sentence(judged(LOW, event=event, **more)) == sentence


def test_headlines_of_alike_failures() -> None:
    """Without the duration, which differs."""
    assert "stalled:" in headline_alike(judged(LOW, event="stall", waited="10ms"))


LOW_TEXT = "node 0 Normal had too few free pages above the reserves"
BROKEN = "had no free block of 8 kB or more of a type that it may take"


@pytest.mark.parametrize(
    ("zones", "more", "sentence"),
    [
        ((LOW,), {}, LOW_TEXT),
        ((LOW, zone(100, node=1)), {}, "node 0 Normal and node 1 Normal had too few free pages above the reserves"),
        ((LOW, zone(1, node=1), zone(1, node=2)), {},
         "node 0 Normal, node 1 Normal and node 2 Normal had too few free pages above the reserves"),
        ((SMALL,), {"order": 1}, f"node 0 Normal {BROKEN}"),
        ((zone(100, node=1), SMALL), {"order": 1},
         f"node 1 Normal had too few free pages above the reserves; node 0 Normal {BROKEN}"),
        ((RICH,), {}, "node 0 Normal could serve it in the state that is shown, which is later than the failure"),
        ((RICH, zone(100, node=1)), {},
         "node 0 Normal could serve it in the state that is shown, which is later than the failure"),
        ((RICH,), {"event": "memory"}, "node 0 Normal would serve it"),
        ((LOW,), {"event": "memory"}, f"it would get none: {LOW_TEXT}"),
        ((LOW, zone(5000, node=1)), {"order": 1, "event": "memory"},
         f"{LOW_TEXT}; the log does not decide it for node 1 Normal"),
        ((LOW,), {"event": "oom", "gfp": None, "order_shown": False},
         "unknown, the log does not show which request failed"),
        ((), {"event": "hugetlb", "warning_text": "HugeTLB: allocating 9 failed.  Only allocated 5 hugepages"},
         "no more blocks of that size were free, also after compaction: only allocated 5 hugepages"),
        ((LOW, zone(5000, node=1)), {"order": 1},
         f"{LOW_TEXT}; the log does not decide it for node 1 Normal"),
        ((zone(100, name="Movable"),), {}, "it may use none of the zones that are shown"),
        ((), {}, "unknown, the log does not show the zones"),
        ((), {"gfp": 0x100}, None),
        ((LOW,), {"nodemask": "0", "mems_allowed": "0-1"},
         f"a memory policy or the caller binds it to node 0 (its nodemask); {LOW_TEXT}"),
        ((), {"event": "vmalloc", "warning_text": "allocation failure: 9 bytes", "size": 9},
         "its size is more than the whole memory, or no range of kernel addresses was free; pages did not lack"),
        ((), {"event": "vmap"}, "no range of kernel addresses was free; that is no lack of memory"),
        ((), {"event": "vmalloc", "warning_text": "allocation failure: 0 bytes", "size": 0},
         "vmalloc was asked for 0 bytes, which it refuses"),
        ((), {"event": "vmalloc", "warning_text": "size 9, exceeds total pages", "size": 9},
         "vmalloc refuses more than the machine's whole memory, so no pages were asked for"),
        ((), {"event": "oom", "memcg": True},
         "the limit of its memory cgroup was reached; the zones were not the cause"),
        ((), {"event": "oom", "memcg": True, "memcg_limit": (5000, 6000)},
         "the limit of its memory cgroup was reached (5,000 kB of 6,000 kB used); the zones were not the cause"),
        ((), {"event": "cma"}, "no range of that size could be had from its CMA area (ENOMEM)"),
        ((), {"event": "cma", "errno": 12}, "no range of that size could be had from its CMA area (ENOMEM)"),
        ((), {"event": "cma", "errno": 5}, "no range of that size could be had from its CMA area (error 5)"),
        ((), {"event": "contig", "errno": 16},
         "no range of that size could be had: pages in it were in use and could not be moved (EBUSY)"),
        ((), {"event": "warning", "warning_text": WARNING.format("__alloc_pages")},
         "likely its order is larger than the largest that the page allocator has, so it was refused at once"),
        ((), {"event": "warning", "warning_text": WARNING.format("__alloc_pages"), "pages": 1025},
         ("likely its order is larger than the largest that the page allocator has, so it was refused at once; "
         "a CMA request for 1,025 pages failed before it, which needs order 11 here")),
        ((), {"event": "warning", "warning_text": WARNING.format("__alloc_pages"), "pages": 1024},
         ("likely its order is larger than the largest that the page allocator has, so it was refused at once; "
         "a CMA request for 1,024 pages failed before it, which needs order 10 here")),
        ((), {"event": "warning", "warning_text": WARNING.format("rmqueue")},
         "likely it must not fail (__GFP_NOFAIL), and its order or its mask does not allow that"),
        ((), {"event": "warning", "warning_text": WARNING.format("other")},
         "unknown, the warning is not of a request's order or flags"),
        ((), {"event": "oom", "order": -1}, "a person invoked the OOM killer (SysRq f), no request failed"),
        ((), {"event": "memory", "gfp": None}, "no request is shown"),
        ((), {"event": "oom", "gfp": 0},
         "a page fault found no memory (an empty mask); which request failed before is not shown"),
    ],
)  # fmt: skip
def test_reasons(zones: tuple[LoggedZone, ...], more: dict[str, Any], sentence: str | None) -> None:
    """Why it happened, by what the report shows."""
    found = reason_sentence(judged(*zones, **more))
    if sentence is None:
        assert found.endswith("; the log does not show the zones")
        assert found.startswith("its mask has no reclaim bit")
    else:
        assert found == sentence


def test_early_in_boot() -> None:
    """Then nothing else is a reason."""
    empty = LoggedZone(0, "Normal", {**dict.fromkeys(LOW.kilobytes, 0), "managed": 8000}, (0,) * 5)
    sentence = reason_sentence(judged(empty))
    assert sentence.startswith("no page has been given to the page allocator yet")
    assert ";" not in sentence
    assert [finding.kind for finding in further_findings(judged(empty, gfp=0x100))] == ["boot_mask"]
    assert [finding.kind for finding in further_findings(judged(LOW))] == ["not_given_up"]


def why(*zones: LoggedZone, at: int = 0, **more: Any) -> str:  # noqa: ANN401
    """Return the sentence about a zone."""
    failure = judged(*zones, **more)
    assert failure.why is not None
    return zone_sentence(failure, failure.why.zones[at])


def kept(free: int, reserve: tuple[int, ...], **more: int) -> LoggedZone:
    """Return a zone with a lowmem_reserve."""
    return LoggedZone(0, "DMA32", {**LOW.kilobytes, "free": free * 4, **more}, reserve)


@pytest.mark.parametrize(
    ("zones", "more", "sentence"),
    [
        ((LOW,), {}, "400 kB free, not above min 2,780 kB"),
        ((LOW,), {"gfp": ("GFP_ATOMIC",)}, "400 kB free, not above min 2,780 kB (lowered to 1,044 kB)"),
        ((zone(100, boost=400),), {}, "400 kB free, not above min 2,780 kB with its boost of 400 kB"),
        ((zone(100, boost=400),), {"gfp": 0xA20},
         "400 kB free, not above min 2,380 kB without its boost (lowered to 896 kB)"),
        ((zone(100),), {"order": 7}, "400 kB free, less than one block of the order, not above min 2,780 kB"),
        ((zone(128),), {"order": 7},
         "512 kB free, 4 kB of it usable (not 508 kB for the order), not above min 2,780 kB"),
        ((zone(300),), {"order": 1},
         "1,200 kB free, 1,196 kB of it usable (not 4 kB for the order), not above min 2,780 kB"),
        ((zone(300, reserved_highatomic=400, free_cma=200),), {},
         ("1,200 kB free, 600 kB of it usable (not 400 kB kept for high-order atomic requests, 200 kB in CMA areas), "
         "not above min 2,780 kB")),
        ((zone(100, reserved_highatomic=800),), {},
         "400 kB free, none of it usable (not 800 kB kept for high-order atomic requests), not above min 2,780 kB"),
        ((kept(750, (0, 0, 900, 900, 900)),), {}, "3,000 kB free, not above min 2,780 kB + lowmem_reserve 3,600 kB"),
        ((LoggedZone(0, "Normal", {**LOW.kilobytes, "free": 2000}, (0, 100, 900)),), {},
         "2,000 kB free, not above min 2,780 kB + lowmem_reserve 0 to 400 kB"),
        ((kept(750, (0, 0, 900, 900, 900)),), {"release": UNKNOWN_SIZE},
         "3,000 kB free, not above min 2,780 kB + lowmem_reserve 900 pages"),
        ((zone(100, (Blocks(100, 4, frozenset()),)),), {"gfp": ("GFP_KERNEL", "__GFP_MEMALLOC")},
         "400 kB free, no watermark applies (ALLOC_NO_WATERMARKS); no free block of a type that it may take"),
        ((RICH,), {}, "20,000 kB free, above min 2,780 kB; a free block fits"),
        ((RICH,), {"order": 1},
         ("20,000 kB free, 19,996 kB of it usable (not 4 kB for the order), above min 2,780 kB; "
         "the data does not show whether a free block fits")),
        ((SMALL,), {"order": 2, "gfp": ("GFP_KERNEL", "__GFP_NOMEMALLOC"), "release": "6.6.0"},
         ("20,000 kB free, 19,988 kB of it usable (not 12 kB for the order), above min 2,780 kB; "
         "the largest free block has 4 kB (order 0)")),
        ((zone(5000, (pages(4000, "UNMOVABLE"), Blocks(500, 8, frozenset({"MIGRATE_CMA", "MIGRATE_ISOLATE"})))),),
         {"order": 1, "release": "6.6.0"},
         ("20,000 kB free, 19,996 kB of it usable (not 4 kB for the order), above min 2,780 kB; "
         "the only free blocks of 8 kB or more are CMA, isolated, which it may not take")),
        ((LoggedZone(0, "Normal", {}, (0,) * 5, (pages(9, "UNMOVABLE"),)),), {"order": 1, "release": "6.6.0"},
         "the free blocks add up to 36 kB; the largest free block has 4 kB (order 0)"),
        ((LoggedZone(0, "Normal", {}, (0,) * 5, (pages(9, "UNMOVABLE"),)),), {},
         "the free blocks add up to 36 kB; the log does not show its free pages and watermarks"),
        ((LoggedZone(0, "DMA32", {**LOW.kilobytes, "free": 4 * 900}, None),), {},
         ("3,600 kB free; needed more than min 2,780 kB + lowmem_reserve 0 to 3,600 kB; "
         "the data does not show which is larger")),
        ((RICH,), {"order": 1, "release": "3.10", "gfp": 0xD0},
         ("20,000 kB free, 19,996 kB of it usable (not 1 page for the order), above min 2,780 kB; "
         "kernels before 4.4 also compare the pages of each order, which is not modelled here")),
        ((zone(100, name="Movable"),), {}, "the mask allows zones up to Normal (highest_zoneidx)"),
        ((zone(100, node=1),), {"nodemask": "0"}, "the request's nodemask is 0"),
        ((zone(100, node=1),), {"mems_allowed": "0", "gfp": ("GFP_KERNEL", "__GFP_HARDWALL")},
         "the cpuset has nodes 0, and __GFP_HARDWALL is set"),
        ((zone(100, node=1),), {"mems_allowed": "0", "cpuset": "db", "gfp": ("GFP_KERNEL", "__GFP_HARDWALL")},
         "the cpuset db has nodes 0, and __GFP_HARDWALL is set"),
    ],
)  # fmt: skip
def test_zones(zones: tuple[LoggedZone, ...], more: dict[str, Any], sentence: str) -> None:
    """Why one zone did not serve the request, with its numbers."""
    assert why(*zones, **more) == sentence


def test_a_real_time_task_takes_more_types() -> None:
    """Blocks for high-order atomic requests, on kernels with ALLOC_HARDER."""
    blocks = (pages(4000, "UNMOVABLE"), Blocks(500, 8, frozenset({"MIGRATE_HIGHATOMIC"})))
    assert why(zone(5000, blocks), order=1, release="5.10.0").endswith(
        "blocks of 8 kB or more are high-order atomic, which it may not take, unless the task is real-time"
    )
    assert why(zone(5000, blocks), order=1, release="6.6.0").endswith("which it may not take")


def test_sizes() -> None:
    """In pages where their size is not known."""
    known, likely, unknown = (judged(LOW, release=each) for each in ("6.1.0-amd64", "6.6.0-64k", UNKNOWN_SIZE))
    assert [size(each, 2) for each in (known, likely, unknown)] == ["16 kB", "4 pages, likely 256 kB", "4 pages"]
    assert [kilobytes(each, 2) for each in (known, likely, unknown)] == ["8 kB", "128 kB", "8 kB"]
    in_pages = judged(LOW, in_pages=True)
    assert [kilobytes(in_pages, number) for number in (1, 2)] == ["1 page", "2 pages"]


@pytest.mark.parametrize(
    ("zones", "more", "text"),
    [
        ((LOW,), {}, "certain, for the state that is shown"),
        ((RICH,), {}, "not certain"),
        ((), {}, "unknown"),
        ((), {"event": "cma"}, "certain"),
        ((), {"event": "warning", "warning_text": WARNING.format("rmqueue")}, "likely"),
    ],
)
def test_how_sure(zones: tuple[LoggedZone, ...], more: dict[str, Any], text: str) -> None:
    """Of the state that is shown, or of what the report says without one."""
    assert certainty(judged(*zones, **more)) == text


def test_conditions() -> None:
    """Each once, with the zones that it would change."""
    failure = judged(RICH, zone(5000, node=1), gfp=("GFP_KERNEL", "__GFP_THISNODE"))
    assert failure.why is not None
    assert list(conditions(failure.why)) == [
        "if __GFP_THISNODE asked for another node, the verdict would differ for node 0 Normal, node 1 Normal"
    ]
    low = judged(LOW)
    assert low.why is not None
    both = in_every_case(failure.why, [("page_size", judged(LOW, zone(5000, node=1)).why or low.why)])
    assert [text.partition(",")[0] for text in conditions(both)][1] == f"if {CLAUSES['page_size']}"


def told(failure: Failure) -> dict[str, str]:
    """Return the sentences about remedies."""
    assert failure.why is not None
    return {remedy.change: remedy_sentence(failure, remedy) for remedy in failure.why.remedies}


def test_remedies() -> None:
    """Each says what to change, and in which zone that would have been enough."""
    served = "node 0 Normal would have served"
    assert told(judged(zone(500, boost=400))) == {
        "gfp_high": f"__GFP_HIGH, which opens half of the min watermark: {served}",
        "gfp_atomic": f"the access of GFP_ATOMIC to the reserves: {served}",
        "gfp_memalloc": f"__GFP_MEMALLOC, which ignores watermarks and is for freeing memory only: {served}",
        "min_free_kbytes": (
            "a min watermark of 1,596 kB or less in node 0 Normal, which now has 2,380 kB without its boost "
            "(vm.min_free_kbytes at about 67 % of its value); this leaves less for requests that cannot wait"
        ),
    }
    assert "(vm.min_free_kbytes at less than 1 % of its value)" in told(judged(zone(1)))["min_free_kbytes"]
    movable = told(judged(zone(500, name="Movable"), gfp=("GFP_HIGHUSER_MOVABLE",)))
    assert "which now has 2,780 kB; this leaves" in movable["min_free_kbytes"]
    assert told(judged(SMALL, order=2))["smaller_order"] == (
        "order 0 (4 kB) instead of 2: node 0 Normal had such a block"
    )
    assert told(judged(zone(600, boost=1000)))["watermark_boost"] == (
        f"no watermark boost (vm.watermark_boost_factor=0): {served}"
    )
    assert told(judged(zone(1000, free_cma=2000)))["gfp_movable"] == (
        f"a movable request (__GFP_MOVABLE), which may use CMA areas: {served}"
    )
    assert "no lowmem_reserve" in told(judged(kept(750, (0, 0, 900, 900, 900))))["lowmem_reserve"]
    limited = told(judged(LOW, zone(5000, node=1), nodemask="0"))
    assert limited["nodemask"] == "a nodemask with node 1 in it: node 1 Normal would have served"
    up_to = told(judged(kept(100, (0,) * 5), RICH, gfp=("GFP_KERNEL", "GFP_DMA32")))
    assert up_to["zone_modifier"] == f"a mask that may use zones above DMA32: {served}"
    nomemalloc = told(judged(LOW, gfp=("GFP_KERNEL", "__GFP_NOMEMALLOC")))
    assert "__GFP_MEMALLOC instead of __GFP_NOMEMALLOC, which" in nomemalloc["gfp_memalloc"]


def test_reclaim() -> None:
    """How much would have to be freed, and whether a block would have to be made."""
    atomic: dict[str, Any] = {"gfp": ("GFP_ATOMIC",), "release": "6.6.0"}
    head = "__GFP_DIRECT_RECLAIM, so that the request waits while memory is freed: "
    listed = zone(100, (pages(100, "UNMOVABLE"),), active_file=4000, inactive_file=0)
    # 348 of 695 pages are the watermark that it has then: 249 more are needed.
    assert told(judged(listed, **atomic))["direct_reclaim"] == (
        f"{head}996 kB freed in node 0 Normal (which has 4,000 kB of file pages) would be enough"
    )
    bare = zone(100, (pages(100, "UNMOVABLE"),))
    assert told(judged(bare, **atomic))["direct_reclaim"] == f"{head}996 kB freed in node 0 Normal would be enough"
    assert told(judged(bare, order=1, **atomic))["direct_reclaim"] == (
        f"{head}1,000 kB freed in node 0 Normal would be enough; and compaction would have to make a block of 8 kB "
        "in node 0 Normal"
    )
    assert told(judged(SMALL, order=1, **atomic))["direct_reclaim"] == (
        f"{head}compaction would have to make a block of 8 kB in node 0 Normal"
    )
    old = judged(bare, gfp=0x20, release="3.10")
    assert remedy_sentence(old, Remedy("direct_reclaim", 0, "Normal", 5)).startswith(
        "__GFP_DIRECT_RECLAIM (before 4.4 __GFP_WAIT), so"
    )
