# SPDX-License-Identifier: MIT
"""What is judged of a report as a whole: the kernel, the request, the conclusion and how sure it is."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.diagnose.from_log import Failure, NamedKernel, explain_failure, nodes_of
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.reports.model import Blocks, Cache, LoggedFailure, LoggedZone
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.logforms import ReleaseText
from tests.diagnosed import judged, pages, zone

LOW, RICH = zone(100), zone(5000)
UNKNOWN_SIZE = "6.1.100"
CGROUP = Cache("kmalloc-64(17:web)", "17:web", None, 0, 0)
WARNING = "mm/page_alloc.c:1 {}+0x1/0x2"


def test_the_kernel_that_is_judged_by() -> None:
    """The one that is named, else the log's, else none."""
    logged = LoggedFailure("failure", 1, "task", 0, zones=[LOW])
    assert explain_failure(logged).kernel == ""
    logged.release = ReleaseText("6.1.100", "#1 SMP Debian 6.1.100-1", None)
    assert explain_failure(logged).kernel == "6.1.100"
    named = explain_failure(logged, NamedKernel("5.10", "", builtin_tables("5.10")))
    assert (named.kernel, named.tables) == ("5.10", builtin_tables("5.10"))
    assert explain_failure(logged, page_kb=64).page_kb == 64
    assert explain_failure(logged).page_kb == 4


@pytest.mark.parametrize(
    ("event", "more", "conclusion", "certainty"),
    [
        ("oom", {"memcg": True}, "memcg", "certain"),
        ("slub", {"cache": CGROUP}, "memcg", "likely"),
        ("vmap", {}, "address_range", "certain"),
        ("vmalloc", {"warning_text": "size 1, exceeds total pages"}, "size_refused", "certain"),
        ("vmalloc", {"warning_text": "allocation failure: 8192 bytes", "size": 8192, "total_ram_pages": 1,
                     "reserved_pages": 0}, "size_refused", "certain"),
        ("vmalloc", {"warning_text": "allocation failure: 8192 bytes", "size": 8192, "total_ram_pages": 9,
                     "reserved_pages": 0}, "address_range", "certain"),
        ("vmalloc", {"warning_text": "allocation failure: 8192 bytes", "size": 8192}, "unknown", "unknown"),
        ("vmalloc", {"warning_text": "allocation failure: 8192 bytes", "size": 8192, "total_ram_pages": 9,
                     "reserved_pages": 0, "release": UNKNOWN_SIZE}, "unknown", "unknown"),
        ("cma", {}, "contiguous_range", "certain"),
        ("contig", {}, "contiguous_range", "certain"),
        ("warning", {"warning_text": WARNING.format("__alloc_pages")}, "order_too_large", "likely"),
        ("warning", {"warning_text": WARNING.format("rmqueue")}, "nofail", "likely"),
        ("warning", {"warning_text": WARNING.format("free_one_page")}, "unknown", "unknown"),
        ("oom", {"order": -1}, "no_request", "unknown"),
        ("memory", {"gfp": None}, "no_request", "unknown"),
        *((event, {}, "watermark", "certain") for event in ("failure", "stall", "oom", "vmalloc", "vmemmap")),
        *((event, {}, "watermark", "certain") for event in ("slub", "hugetlb", "memory")),
    ],
)  # fmt: skip
def test_conclusions_by_event(event: str, more: dict[str, Any], conclusion: str, certainty: str) -> None:
    """The zones decide where the request got to them."""
    failure = judged(LOW, event=event, **more)
    assert (failure.conclusion, failure.certainty) == (conclusion, certainty)
    assert failure.certain is (certainty == "certain")
    assert (failure.why is None) is (conclusion != "watermark")


def test_certainty() -> None:
    """Lines that are missing, contradict each other, or decide nothing make it unknown."""
    assert judged(LOW).certainty == "certain"
    assert judged(RICH).certainty == "unknown"
    assert judged().certainty == "unknown"
    assert judged(LOW, contradictions=["x"]).certainty == "unknown"
    # A lower zone shows that there is DMA32, whose line is not there.
    lower = LoggedZone(0, "DMA", {**LOW.kilobytes}, (0, 10, 30, 30, 30))
    found = judged(lower, LOW)
    assert (found.conclusion, found.certainty, found.unshown) == ("watermark", "unknown", ((0, "DMA32"),))
    # A zone that the mask excludes leaves none.
    none = judged(zone(100, name="Movable"))
    assert (none.conclusion, none.certainty) == ("no_zone", "unknown")


@pytest.mark.parametrize(
    ("release", "kilobytes", "expected"),
    [
        # 2,784 kB are 43 pages of 64 kB, as the watermark is; but 696 pages of 4 kB, which are more than 695.
        ("6.6.0-64k", 2784, "likely"),
        ("6.6.0-64k", 2700, "certain"),
        ("6.6.0", 2780, "certain"),
    ],
)
def test_certainty_of_page_sizes(release: str, kilobytes: int, expected: str) -> None:
    """A size that is only likely makes the answer likely, if another one would change it."""
    failure = judged(LoggedZone(0, "Normal", {**LOW.kilobytes, "free": kilobytes}, (0,) * 5), release=release)
    assert (failure.conclusion, failure.certainty) == ("watermark", expected)


def causes(*failures: Failure) -> int:
    """Return how many causes failures have."""
    return len({failure.cause for failure in failures})


def test_causes() -> None:
    """The request, its task, and the zones that refused it; not their numbers."""
    first = judged(LOW)
    assert causes(first, judged(zone(90))) == 1
    for other in (
        judged(LOW, event="stall"),
        judged(LOW, comm="other"),
        judged(zone(100, (pages(100, "UNMOVABLE"),)), order=1),
        judged(LOW, gfp=0xC40),
        judged(LOW, zone(100, name="DMA32")),
        judged(zone(100, node=1)),
        judged(RICH),
        judged(),
    ):
        assert causes(first, other) == 2
    # Zones that the request may not use do not count, nor those that refused where another would serve.
    assert causes(first, judged(LOW, zone(100, name="Movable"))) == 1
    assert causes(judged(RICH), judged(RICH, zone(100, node=1))) == 1
    assert causes(judged(RICH), judged(RICH, zone(5000, node=1))) == 2
    # One that is not known is open, as one that would serve.
    unknown = LoggedZone(1, "DMA32", {**LOW.kilobytes, "free": 4 * 900}, None)
    block = zone(5000, (pages(5000, "UNMOVABLE"),))
    assert causes(judged(block, unknown, order=1), judged(block, order=1), judged(LOW, order=1)) == 3
    # Without zones what is missing, and the limit of a cgroup.
    assert causes(judged(), judged(gfp=None)) == 2
    assert causes(judged(event="oom", memcg=True), judged(event="oom", order=-1)) == 2
    assert causes(judged(LOW, event="oom"), judged(LOW, event="oom", memcg=True)) == 2


def test_requests_that_ignore_watermarks() -> None:
    """__GFP_MEMALLOC has ALLOC_NO_WATERMARKS: `__gfp_pfmemalloc_flags`."""
    assert judged(LOW, gfp=("GFP_KERNEL", "__GFP_MEMALLOC")).ignores_watermarks
    assert not judged(LOW).ignores_watermarks
    assert judged(LOW, gfp=("GFP_KERNEL", "__GFP_MEMALLOC"), release="5.4.0").ignores_watermarks


@pytest.mark.parametrize(
    ("release", "line", "expected"),
    [
        ("6.1.100", {}, "reserved"),
        ("6.1.100", {"free_highatomic": 0}, "free"),
        ("6.13.0", {}, "free"),
        # Stable 6.12 counts them from some patch level on, and prints what it counts.
        ("6.12.30", {"free_highatomic": 0}, "free"),
        ("6.12.30", {}, "reserved"),
        ("6.12.30", {"free_cma": None}, "unknown"),
        ("6.12.30", {"free_cma": None, "active_anon": 0}, "reserved"),
        ("6.12.30", {"free_cma": None, "free_pcp": 0}, "reserved"),
        ("6.12.30", {"free_cma": None, "managed": 0}, "unknown"),
        ("6.12.30", {"reserved_highatomic": None}, "unknown"),
        ("6.12.30", {"reserved_highatomic": None, "free_highatomic": 0}, "unknown"),
    ],
)
def test_the_counter_of_high_order_atomic_pages(release: str, line: dict[str, int | None], expected: str) -> None:
    """c928807f6f6b prints free_highatomic behind reserved_highatomic; a line that is cut off shows nothing."""
    numbers = {name: value for name, value in {**LOW.kilobytes, **line}.items() if value is not None}
    failure = judged(LoggedZone(0, "Normal", numbers, (0,) * 5), LoggedZone(1, "Normal"), release=release)
    assert failure.rules.highatomic == expected


def test_the_request() -> None:
    """GFP_KERNEL and GFP_ATOMIC of 5.10: ALLOC_CPUSET 0x40, ALLOC_KSWAPD 0x800, ALLOC_HIGH 0x20, ALLOC_HARDER 0x10."""
    kernel = judged(LOW, release="5.10.0", gfp=0xCC0, order=2).attempt
    assert (kernel.order, kernel.alloc_flags, kernel.gfp_mask, kernel.direct_reclaim) == (2, 0x840, 0xCC0, True)
    assert (kernel.hardwall, kernel.thisnode, kernel.nomemalloc, kernel.oom) == (False,) * 4
    assert (kernel.nodemask, kernel.mems_allowed, kernel.highest_zoneidx) == (None, None, 2)
    atomic = judged(LOW, release="5.10.0", gfp=0xA20).attempt
    assert (atomic.alloc_flags, atomic.direct_reclaim) == (0x830, False)
    names = ("GFP_KERNEL", "__GFP_HARDWALL", "__GFP_THISNODE", "__GFP_NOMEMALLOC")
    limited = judged(LOW, release="5.10.0", gfp=names, nodemask="0,2", mems_allowed="0-1", event="oom").attempt
    assert (limited.hardwall, limited.thisnode, limited.nomemalloc, limited.oom) == (True,) * 4
    assert (limited.nodemask, limited.mems_allowed) == (0b101, 0b011)
    # Names without a number, of a kernel whose numbers are not known.
    old = judged(LOW, release="5.4.0", gfp=names).attempt
    assert (old.hardwall, old.thisnode, old.nomemalloc, old.gfp_mask) == (True, True, True, 0)
    assert judged(LOW, order=-1, event="oom").attempt.order == 0


@pytest.mark.parametrize(
    ("event", "gfp", "reclaims"),
    [
        ("failure", None, None),
        ("oom", None, True),
        ("stall", None, True),
        ("failure", 0xA20, False),
        ("failure", 0xCC0, True),
    ],
)
def test_whether_it_may_reclaim(event: str, gfp: int | None, reclaims: bool | None) -> None:
    """The OOM killer and a stall are of requests that may."""
    assert judged(LOW, event=event, gfp=gfp).attempt.direct_reclaim is reclaims


def facts(failure: Failure) -> set[str]:
    """Return the conditions of a request."""
    return {condition.fact for condition in failure.attempt.conditions}


def test_conditions() -> None:
    """What the task may be; the OOM killer is not reached by its victims, nor by who frees memory itself."""
    assert {"real_time", "oom_victim", "pf_memalloc"} <= facts(judged(LOW, release="5.10.0"))
    killed = facts(judged(LOW, release="5.10.0", event="oom"))
    assert "real_time" in killed
    assert not {"oom_victim", "pf_memalloc"} & killed
    # A mask whose bits are not known may be atomic, unless the request waited.
    unknown = facts(judged(LOW, release="3.10", gfp=None))
    assert "atomic_mask" in unknown
    assert "real_time" not in unknown
    # __GFP_HIGH is the same bit on every kernel, and all of GFP_ATOMIC up to 4.3.
    high = facts(judged(LOW, release="", gfp=0x20))
    assert "plain_mask" in high
    assert not {"atomic_mask", "real_time"} & high
    assert "plain_mask" in facts(judged(LOW, release="", gfp=0x20, event="oom"))
    assert "plain_mask" not in facts(judged(LOW, release="", gfp=0xD0, event="oom"))
    waited = facts(judged(LOW, release="3.10", gfp=None, event="stall"))
    assert "atomic_mask" not in waited
    assert "real_time" in waited
    assert not {"oom_victim", "pf_memalloc"} & facts(judged(LOW, release="3.10", gfp=None, event="oom"))


def test_an_unknown_mask_may_be_movable() -> None:
    """Then CMA pages could serve it; the zone modifiers of a mask whose other bits are not known say whether it is."""
    cma = replace(LOW, kilobytes={**LOW.kilobytes, "free": 90_000, "free_cma": 89_000})
    hidden = judged(cma, release="", gfp=None, event="oom")
    assert hidden.why is not None
    assert (hidden.why.zones[0].kind, hidden.certainty) == ("watermark", "unknown")
    assert "movable_mask" in hidden.why.zones[0].unless
    assert "movable_mask" in facts(judged(LOW, release="", gfp=None))
    assert judged(LOW, release="", gfp=None, event="oom").certainty == "certain"
    movable, other = (judged(cma, release="", gfp=gfp, event="oom") for gfp in (0x280DA, 0x201D0))
    assert movable.why is not None
    assert other.why is not None
    assert movable.why.zones[0].kind != "watermark"
    assert other.why.zones[0].kind == "watermark"
    assert not {"movable_mask"} & (facts(movable) | facts(other))


@pytest.mark.parametrize(
    ("more", "nodes", "hardwall"),
    [
        ({"constraint": "cpuset", "mems_allowed": "0"}, (0, 1), True),
        ({"constraint": "cpuset", "mems_allowed": "0"}, (0, 1, 2), False),
        ({"constraint": "cpuset", "mems_allowed": "0-1"}, (0, 1), False),
        ({"constraint": "cpuset"}, (0,), False),
        ({"constraint": "none", "mems_allowed": "0"}, (0, 1), False),
        ({"mems_allowed": "0"}, (0, 1), False),
    ],
)
def test_the_only_node_outside_a_cpuset(more: dict[str, Any], nodes: tuple[int, ...], hardwall: bool) -> None:
    """CONSTRAINT_CPUSET says that a node is excluded: if one only is outside, that one."""
    failure = judged(*(zone(100, node=node) for node in nodes), event="oom", **more)
    assert failure.attempt.hardwall is hardwall


@pytest.mark.parametrize(("text", "mask"), [(None, None), ("(null)", None), ("0", 1), ("0-1,3", 0b1011), ("x", None)])
def test_nodes(text: str | None, mask: int | None) -> None:
    """As the kernel prints them; a cut list is not known."""
    assert nodes_of(text) == mask


def missing(*zones: LoggedZone, **more: Any) -> list[str]:  # noqa: ANN401
    """Return what the log lacks."""
    return list(judged(*zones, **more).missing)


BLOCKS = (Blocks(100, 4, frozenset({"MIGRATE_UNMOVABLE"})),)


def test_what_is_missing() -> None:
    """Only what would make the answer certain."""
    assert missing(LOW) == []
    assert missing(LOW, event="cma") == []
    assert missing(LOW, event="oom", memcg=True) == []
    assert missing() == ["the zones (the lines 'Node 0 Normal free:… min:… low:… high:…' after Mem-Info)"]
    assert missing(LOW, state_age=-1.5) == ["the zones: those that follow are 1,500 ms older than the failure"]
    assert missing(LOW, release="", gfp=("GFP_KERNEL",))[0] == "the kernel's release (name it with --kernel)"
    assert missing(LOW, gfp=None)[0] == "the gfp mask"
    assert "0xabc000 mean on this kernel, but for those" in missing(LOW, gfp=0xABC000, release="2.6.30")[0]
    assert "0x100000 mean on this kernel, so which zones" in missing(LOW, gfp=0x100000, release="")[1]
    assert "0xabc000 mean on this kernel, but for those" in missing(LOW, gfp=0xABC000, release="3.10")[0]


def test_what_is_missing_of_zones() -> None:
    """Free blocks, lowmem_reserve, whole lines, or what the kernel has."""
    unlisted = zone(5000)
    assert missing(unlisted, order=1) == ["the free blocks of node 0 Normal"]
    assert missing(zone(5000, (pages(5000, "UNMOVABLE"),)), order=1) == []
    lower = LoggedZone(0, "DMA32", {**LOW.kilobytes, "free": 4 * 900}, None, BLOCKS)
    assert missing(lower) == ["lowmem_reserve of node 0 DMA32"]
    own = LoggedZone(0, "Normal", {**LOW.kilobytes, "free": 4 * 900}, None, BLOCKS)
    assert not any("lowmem_reserve of" in text for text in missing(own))
    dma = LoggedZone(0, "DMA", {**LOW.kilobytes}, (0, 10, 30, 30, 30), BLOCKS)
    assert missing(dma, LOW) == ["the line of node 0 DMA32"]
    listed = zone(5000, (pages(5000, "UNMOVABLE"),))
    assert missing(listed, gfp=("GFP_KERNEL", "__GFP_THISNODE")) == ["which node __GFP_THISNODE asked for"]
    layout = missing(LoggedZone(0, "Normal", {**LOW.kilobytes, "free": 4 * 900}, (0, 500, 9)))
    assert any(text.startswith("which zones this kernel has") for text in layout)


def test_what_is_missing_of_the_rules() -> None:
    """Kernels whose check is not known in every detail."""
    assert any("the watermark check of 3.10:" in text for text in missing(LOW, release="3.10"))
    assert any("the watermark check of 5.4.0 in every detail" in text for text in missing(LOW, release="5.4.0"))
    assert any("the watermark check of this kernel" in text for text in missing(LOW, release="", gfp=("GFP_KERNEL",)))
    assert missing(LOW, release="5.10.0", gfp=("GFP_KERNEL",)) == []


def test_early_in_boot_nothing_helps() -> None:
    """No page has been given to the allocator."""
    empty = LoggedZone(0, "Normal", {**dict.fromkeys(LOW.kilobytes, 0), "managed": 8000}, (0,) * 5)
    assert judged(empty).why is not None
    assert judged(empty).why.remedies == ()  # type: ignore[union-attr]
    assert judged(LOW).why.remedies != ()  # type: ignore[union-attr]


def test_each_case_is_judged() -> None:
    """GFP_DMA gets Normal on a kernel without DMA: a rich zone may serve, a low one does not either way."""
    rich = LoggedZone(0, "Normal", {**LOW.kilobytes, "free": 40_000}, None)
    failure = judged(rich, gfp=("GFP_KERNEL", "GFP_DMA"))
    assert failure.why is not None
    assert failure.why.zones[0].unless == ("zone_layout",)
    low = judged(LoggedZone(0, "Normal", dict(LOW.kilobytes), None), gfp=("GFP_KERNEL", "GFP_DMA"))
    assert (low.conclusion, low.certainty) == ("watermark", "certain")


def test_the_highest_zone() -> None:
    """Of the mask, on this kernel."""
    assert judged(LOW).highest_zone == "Normal"
    assert judged(LOW, gfp=("GFP_HIGHUSER_MOVABLE",)).highest_zone == "Movable"
    assert judged(LOW, gfp=("GFP_KERNEL", "GFP_DMA32")).highest_zone == "DMA32"
    assert judged(LOW, gfp=None).highest_zone is None


def test_given_facts_are_the_reports() -> None:
    """A mask that a person names is judged as one that is printed."""
    logged = LoggedFailure("memory", 1, "", 0, zones=[LOW], release=ReleaseText("6.1.100", "", None), order_shown=False)
    assert explain_failure(logged).conclusion == "no_request"
    Given(gfp=("GFP_KERNEL",), order=0).complete(logged)
    assert explain_failure(logged).conclusion == "watermark"
