# SPDX-License-Identifier: MIT
"""Logs that were once judged wrong, each with the right answer and its reason; each stands for its kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.diagnose.answers.answers import answer
from kalloctrace.diagnose.findings import findings_of
from kalloctrace.diagnose.from_log import Failure, NamedKernel, explain_failure
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.diagnose.sentences import headline
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.logs.messages import read_messages

DATA = Path(__file__).parent / "data" / "judging"


def read(name: str) -> str:
    """Return a log."""
    return (DATA / f"{name}.log").read_text()


def judged(text: str, page_kb: int | None = None) -> list[Failure]:
    """Return the diagnoses of a log."""
    return [explain_failure(one, page_kb=page_kb) for one in find_failures(read_messages(text.split("\n")))]


def only(text: str, page_kb: int | None = None) -> tuple[Failure, dict[str, Any]]:
    """Return the diagnosis of a log with one report, and its JSON object."""
    [failure] = judged(text, page_kb)
    return failure, failure_json(failure)


def verdicts(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return zone, verdict and certainty of each zone."""
    return [(zone["zone"], zone["verdict"], zone["certainty"]) for zone in answer["zones"]]


def texts(failure: Failure) -> dict[str, str]:
    """Return the findings by kind."""
    return {finding.kind: finding.text for finding in findings_of(failure)}


def certainties(failure: Failure) -> dict[str, str]:
    """Return how sure each finding is."""
    return {finding.kind: finding.certainty for finding in findings_of(failure)}


def changes(answer: dict[str, Any]) -> set[str]:
    """Return the kinds of remedies."""
    return {remedy["change"] for remedy in answer["remedies"]}


ZONE = (
    "Node 0 Normal free:{free}kB boost:0kB min:2780kB low:3472kB high:4164kB reserved_highatomic:0KB{more} free_cma:0kB"
)


def log(first: str, *zones: str, release: str = "6.1.100", rest: tuple[str, ...] = ()) -> str:
    """Return a report."""
    return "\n".join((first, f"CPU: 0 PID: 7 Comm: task Not tainted {release} #1", "Mem-Info:", *zones, *rest))


def test_zones_above_the_mask_are_closed() -> None:
    """GFP_KERNEL's highest zone is Normal on every kernel, so Movable is closed, although four layouts are possible."""
    failure, answer = only(read("movable-gfp-kernel"))
    assert verdicts(answer) == [("Normal", "block", "certain"), ("Movable", "excluded", "certain")]
    assert (answer["conclusion"], answer["certainty"], answer["missing"]) == ("block", "certain", [])
    assert answer["highest_zone"] == "Normal"
    assert "Movable" not in {remedy["zone"] for remedy in answer["remedies"]}
    # An OOM victim passes the check, but rmqueue gives it no such block before 6.3; a real-time task gets them.
    assert answer["zones"][0]["passes_if"] == ["the task were real-time"]
    assert answer["zones"][0]["unless"] == []
    assert "unless the task is real-time" in answer["zones"][0]["why"]
    exits = texts(failure)["not_given_up"]
    assert all(word in exits for word in ("OOM victim", "PF_MEMALLOC", "PF_DUMPCORE", "OOM killer is off"))


def test_a_movable_mask_alone_opens_no_zone_above() -> None:
    """gfp_zone() of __GFP_MOVABLE without __GFP_HIGHMEM is ZONE_NORMAL."""
    text = read("movable-gfp-kernel").replace(
        "0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZERO)", "0x40cc8(GFP_KERNEL|__GFP_MOVABLE|__GFP_COMP)"
    )
    _, answer = only(text)
    assert verdicts(answer)[1] == ("Movable", "excluded", "certain")
    high = text.replace("0x40cc8(GFP_KERNEL|__GFP_MOVABLE|", "0x140cca(GFP_HIGHUSER_MOVABLE|")
    assert verdicts(only(high)[1])[1] == ("Movable", "passes", "certain")


def test_an_oom_victim_and_blocks_of_high_order_atomic_requests() -> None:
    """Since 6.3 rmqueue gives them to it, so that such a task would have passed."""
    later = read("movable-gfp-kernel").replace("5.10.168", "6.6.30")
    assert "the task were being killed by the OOM killer" in only(later)[1]["zones"][0]["passes_if"]


@pytest.mark.parametrize(
    ("mask", "order", "given_up"),
    [
        ("0xcc0(GFP_KERNEL)", 3, False),
        ("0xc40(GFP_NOFS)", 0, False),
        ("0xcc0(GFP_KERNEL)", 4, True),
        ("0x10cc0(GFP_KERNEL|__GFP_NORETRY)", 0, True),
        ("0x4cc0(GFP_KERNEL|__GFP_RETRY_MAYFAIL)", 0, True),
        ("0x200cc0(GFP_KERNEL|__GFP_THISNODE)", 0, True),
        ("0x820(GFP_ATOMIC)", 0, True),
        ("0xcc1(GFP_KERNEL|GFP_DMA)", 0, True),
    ],
)
def test_requests_that_the_kernel_does_not_give_up(mask: str, order: int, given_up: bool) -> None:
    """Costly orders, masks that say so, masks without reclaim and low zones are given up by rule."""
    first = f"task: page allocation failure: order:{order}, mode:{mask}, nodemask=(null)"
    failure, _ = only(log(first, release="6.6.30"))
    assert ("not_given_up" not in texts(failure)) is given_up


def test_kswapd_gives_up() -> None:
    """It has PF_MEMALLOC, so the exit is known."""
    first = "kswapd0: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)"
    failure, _ = only(log(first).replace("Comm: task", "Comm: kswapd0"))
    assert "kswapd frees memory itself" in texts(failure)["not_given_up"]


def test_nothing_is_given_to_the_allocator_yet() -> None:
    """Early in boot no page is free and no watermark is set; neither waiting nor compaction would help."""
    failure, answer = only(read("boot-no-pages"))
    assert (answer["conclusion"], answer["certainty"], answer["remedies"]) == ("watermark", "certain", [])
    assert "no page has been given to the page allocator yet" in answer["summary"]
    # The kernel took the reclaim bits away, so they are not the caller's fault.
    assert certainties(failure) == {"nothing_given": "certain", "boot_mask": "certain"}


def test_a_used_up_zone_is_not_one_that_got_nothing() -> None:
    """Watermarks are set, or pages are in the list."""
    text = read("boot-no-pages")
    for used in (text.replace("min:0kB", "min:400kB"), text.replace("0*4kB", "9*4kB", 1).replace("= 0kB", "= 36kB")):
        assert "nothing_given" not in texts(only(used)[0])


def test_the_counter_decides_not_the_list() -> None:
    """The check reads the counter, which is printed as 0 if it is negative; isolated blocks are not counted.

    Of each order all but one block of each other letter may be isolated: 350,868 kB. The list has 462,268 kB.
    """
    failure, answer = only(read("free0-list-full"))
    assert verdicts(answer) == [("Normal", "watermark", "certain")]
    assert (answer["certainty"], answer["contradictions"], answer["remedies"]) == ("certain", [], [])
    counter = texts(failure)["counter"]
    assert "add up to 462,268 kB" in counter
    assert "isolated blocks (I) explain at most 350,868 kB of it" in counter
    assert counter.endswith("the counter is wrong or the list is newer")


def test_isolated_blocks_may_be_all_of_the_difference() -> None:
    """Then nothing is wrong; and blocks of that type alone serve nobody."""
    text = log(
        "task: page allocation failure: order:0, mode:0x10cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=(null)",
        ZONE.format(free=1016, more=""),
        "lowmem_reserve[]: 0 0 0 0 0",
        "Node 0 Normal: 250*4kB (U) 0*8kB 9*16kB (UI) 0*32kB 0*64kB 99*128kB (I) 0*256kB 0*512kB = 13816kB",
    )
    failure, answer = only(text)
    assert verdicts(answer) == [("Normal", "watermark", "certain")]
    assert texts(failure)["counter"].endswith("may be all of the difference")
    alone = text.replace("order:0", "order:4").replace("free:1016kB", "free:13816kB")
    why = only(alone)[1]["zones"][0]
    assert (why["verdict"], "isolated, which it may not take" in why["why"]) == ("block", True)


def test_memory_policy() -> None:
    """The policy is named; whether the zone passes is not known for that vendor's 4.18."""
    failure, answer = only(read("mempolicy"))
    assert "its memory policy binds it to node 3" in answer["summary"]
    assert certainties(failure)["bound"] == "certain"
    assert (answer["zones"][0]["verdict"], answer["remedies"]) == ("unknown", [])


def test_cpuset_and_nodemask() -> None:
    """So are a cpuset, and the nodemask of a request."""
    kill = (
        "oom-kill:constraint=CONSTRAINT_CPUSET,nodemask=(null),cpuset=db,mems_allowed=1,global_oom,task_memcg=/,task=x"
    )
    first = "task invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    assert "its cpuset db binds it to node 1" in headline(only(log(first, rest=(kill,)))[0])
    first = "task: page allocation failure: order:0, mode:0x10cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=2,cpuset=/"
    assert "binds it to node 2 (its nodemask)" in headline(only(log(f"{first},mems_allowed=0-2"))[0])
    # That leaves out no node that the log shows.
    assert "binds" not in headline(only(log(f"{first},mems_allowed=2"))[0])


def test_the_only_node_outside_a_cpuset() -> None:
    """CONSTRAINT_CPUSET means that some node is excluded; if only one is outside, it is that one."""
    kill = "oom-kill:constraint={},nodemask=(null),cpuset=db,mems_allowed=1,global_oom,task_memcg=/,task=x"
    first = "task invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    zones = (ZONE.format(free=900000, more=""), ZONE.format(free=1000, more="").replace("Node 0", "Node 1"))
    for constraint, kinds in (("CONSTRAINT_CPUSET", ["excluded", "watermark"]), ("X", ["passes", "watermark"])):
        _, answer = only(log(first, *zones, rest=(kill.format(constraint),)))
        assert [zone["verdict"] for zone in answer["zones"]] == kinds
        assert answer["zones"][0]["certainty"] == ("certain" if kinds[0] == "excluded" else "unknown")


def test_an_old_oom_report_is_of_a_request_that_waits() -> None:
    """Only such a request gets to the OOM killer, so it is not atomic, whatever the bits of its mask mean."""
    first = "task invoked oom-killer: gfp_mask=0x280da, order=0, oom_adj=0"
    _, answer = only(log(first, ZONE.format(free=1600, more=""), release="2.6.32-754.el6.x86_64"))
    clauses = [*answer["zones"][0]["unless"], *answer["zones"][0]["passes_if"]]
    assert "the request were atomic (GFP_ATOMIC)" not in clauses
    failed = "task: page allocation failure. order:0, mode:0x280da"
    _, answer = only(log(failed, ZONE.format(free=1600, more=""), release="4.4.0"))
    clauses = [*answer["zones"][0]["unless"], *answer["zones"][0]["passes_if"]]
    assert "the request were atomic (GFP_ATOMIC)" in clauses


@pytest.mark.parametrize(
    ("value", "was"),
    [
        ("0xd0(__GFP_IO|__GFP_FS|__GFP_RECLAIMABLE)", "0xd0 was GFP_KERNEL on kernels up to 4.3"),
        ("0x50(__GFP_IO|__GFP_RECLAIMABLE)", "0x50 was GFP_NOFS on kernels up to 4.3"),
        ("0x24000c0(__GFP_IO|__GFP_FS|__GFP_ACCOUNT|0x2000000)", "0x24000c0 was GFP_KERNEL on kernels 4.4 to 4.9"),
        ("0x6000c0(__GFP_IO|__GFP_FS|__GFP_ACCOUNT|__GFP_THISNODE)", "0x6000c0 was GFP_KERNEL on kernels 4.18 to 5.0"),
    ],
)
def test_masks_of_other_kernels(value: str, was: str) -> None:
    """The bits of GFP_KERNEL moved in 4.4, 4.10, 4.18 and 5.1."""
    first = f"z: page allocation failure: order:0, mode:{value}, nodemask=(null)"
    assert texts(only(log(first, release="5.10.100"))[0])["other_layout"].startswith(was)


def test_conditions_that_an_oom_report_rules_out() -> None:
    """A task with PF_MEMALLOC leaves before the OOM killer, and an OOM victim before the report."""
    _, answer = only(read("oom-hedge"))
    assert verdicts(answer) == [("Normal", "watermark", "certain")]
    assert (answer["certainty"], answer["missing"]) == ("certain", [])
    assert answer["zones"][0]["unless"] == answer["zones"][0]["passes_if"] == []
    # A page allocation failure does not rule them out.
    failed = read("oom-hedge").replace("invoked oom-killer: gfp_mask=", "page allocation failure: order:0, mode:")
    failed = failed.replace("task page", "task: page").replace(", order=0, oom_score_adj=0", ", nodemask=(null)")
    assert any("PF_MEMALLOC" in clause for clause in only(failed)[1]["zones"][0]["passes_if"])


@pytest.mark.parametrize(
    ("release", "size"),
    [
        ("6.8.10-asahi", "32 pages, likely 512 kB"),
        ("6.6.31+rpt-rpi-2712", "32 pages, likely 512 kB"),
        ("5.14.0-427.el9.aarch64+64k", "32 pages, likely 2,048 kB"),
        ("4.18.0-477.el8.aarch64", "32 pages, likely 2,048 kB"),
        ("6.1.0-18-amd64", "128 kB"),
        ("5.15.0-91-generic", "32 pages"),
        ("6.16.12", "32 pages"),
    ],
)
def test_page_size(release: str, size: str) -> None:
    """Sizes are in kB where the page size is known, and likely where the flavour's name shows it."""
    text = read("16k-pages-no-list").replace("6.8.10-asahi", release)
    assert f"order 5 ({size}) " in headline(only(text)[0])
    assert "order 5 (512 kB) " in headline(only(text, page_kb=16)[0])


def test_a_page_size_that_matters() -> None:
    """65 pages of lowmem_reserve are 260 kB or 1,040 kB: with a flavour's likely size the answer is likely."""
    first = "task invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    zone = "Node 0 DMA free:3500kB boost:0kB min:2780kB low:3472kB high:4164kB reserved_highatomic:0KB free_cma:0kB"
    normal = "Node 0 Normal free:0kB boost:0kB min:2780kB low:3472kB high:4164kB reserved_highatomic:0KB free_cma:0kB"
    lines = (zone, "lowmem_reserve[]: 0 0 65 65 65", normal, "lowmem_reserve[]: 0 0 0 0 0")
    asked = [only(log(first, *lines, release=release))[1] for release in ("6.6.30", "6.8.10-asahi", "6.6.30-amd64")]
    assert [one["certainty"] for one in asked] == ["unknown", "likely", "unknown"]
    assert [verdicts(one)[0][1] for one in asked] == ["passes", "watermark", "passes"]
    assert "the page size (name it with --page-size)" in asked[0]["missing"]
    assert only(log(first, *lines), page_kb=64)[1]["certainty"] == "certain"


def test_the_page_size_that_counters_show() -> None:
    """62,086 pages free are 248,344 kB, so a page has 4 kB; 15,521 would have 16 kB."""
    assert only(read("global-free-cma"))[0].page_size == (4, "certain")
    assert only(read("global-free-cma").replace("free:62086", "free:15521.5"))[0].page_size == (4, "certain")
    other = read("global-free-cma").replace("free:62086 ", "free:15521 ").replace("free:248344kB", "free:248336kB")
    assert only(other.replace("active_anon:3268", "active_anon:817"))[0].page_size == (16, "certain")


def test_a_state_older_than_its_failure() -> None:
    """It is likely another failure's, and says nothing of this one."""
    failure, answer = only(read("state-older-than-failure"))
    assert (answer["conclusion"], answer["certainty"], answer["zones"]) == ("unknown", "unknown", [])
    assert certainties(failure) == {"older_state": "likely"}
    assert "107 ms older" in texts(failure)["older_state"]
    # Lines of one report may differ by a millisecond.
    near = read("state-older-than-failure").replace("[   44.96", "[   45.07")
    assert only(near)[1]["zones"] != []
    assert "older_state" not in texts(explain_failure(replace(failure.logged, state_age=-0.0005)))


def test_a_true_oom_has_no_remedies() -> None:
    """Even all file pages and the free swap would not bring a zone to its high watermark."""
    _, answer = only(read("true-oom-remedies"))
    assert verdicts(answer) == [("DMA", "watermark", "certain"), ("Normal", "watermark", "certain")]
    assert answer["remedies"] == []


def test_a_zone_whose_line_is_missing() -> None:
    """The zone could have served: DMA's lowmem_reserve shows that DMA32 has pages, and its list that Normal has."""
    text = read("true-oom-remedies")
    _, answer = only(text)
    assert (answer["certainty"], answer["missing"]) == ("unknown", ["the line of node 0 DMA32"])
    whole = text.replace("0 3191 15659 15659 15659", "0 0 15659 15659 15659")
    assert only(whole)[1]["certainty"] == "certain"
    without = "".join(line for line in whole.splitlines(keepends=True) if "Normal free:" not in line)
    _, answer = only(without)
    assert (answer["certainty"], answer["missing"][0]) == ("unknown", "the line of node 0 Normal")
    # HighMem and Movable are above what GFP_KERNEL may use.
    kernel = whole.replace("0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO)", "0xcc0(GFP_KERNEL)")
    assert only(kernel.replace("lowmem_reserve[]: 0 0 0 0 0", "lowmem_reserve[]: 0 0 0 9 9"))[1]["missing"] == []


def test_an_oom_with_memory_left_has_remedies() -> None:
    """Free swap that can take anonymous pages, or file pages, show that memory is left."""
    text = read("true-oom-remedies").replace("Free swap  = 84kB", "Free swap  = 8400000kB")
    anon = text.replace("free_pcp:0kB", "active_anon:5653768kB inactive_anon:6036764kB free_pcp:0kB")
    assert {"gfp_high", "watermark_boost"} <= changes(only(anon)[1])
    file = text.replace("free_pcp:0kB", "active_file:400000kB inactive_file:400000kB free_pcp:0kB")
    assert {"gfp_high", "watermark_boost"} <= changes(only(file)[1])


def test_a_boost_may_be_what_is_in_the_way() -> None:
    """230,984 kB are free, and without the boost of 202,752 kB the high watermark would be 135,168 kB."""
    first = "task invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    zone = (
        "Normal free:230984kB boost:202752kB min:292864kB low:315392kB high:337920kB reserved_highatomic:0KB "
        "active_file:1008kB inactive_file:2176kB free_cma:0kB"
    )
    assert "watermark_boost" in changes(only(log(first, zone, "lowmem_reserve[]: 0 0", release="5.17.0-amd64"))[1])


def test_the_reserve_that_a_layout_decides() -> None:
    """On a machine with DMA and HighMem the second entry is Normal's, with DMA32 the third; CMA pages decide anyway."""
    first = "task invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    zone = (
        "DMA free:519112kB boost:7216kB min:10428kB low:11228kB high:12028kB reserved_highatomic:0KB free_cma:513592kB"
    )
    blocks = "DMA: 1382*4kB (UEC) 0*8kB 0*16kB 0*32kB = 5528kB"
    _, answer = only(log(first, zone, "lowmem_reserve[]: 0 0 3188 3188", blocks))
    assert verdicts(answer) == [("DMA", "watermark", "certain")]
    assert "lowmem_reserve 0 to 12,752 kB" in answer["zones"][0]["why"]


def test_no_reclaim_where_nothing_can_be_reclaimed() -> None:
    """A request that may not wait would have waited in vain."""
    first = "task: page allocation failure: order:0, mode:0x820(GFP_ATOMIC), nodemask=(null)"
    more = " active_anon:900000kB inactive_anon:0kB active_file:{file}kB inactive_file:0kB"
    for file, helps in ((0, False), (80000, True)):
        text = log(first, ZONE.format(free=100, more=more.format(file=file)), "lowmem_reserve[]: 0 0 0 0 0")
        assert ("direct_reclaim" in changes(only(text)[1])) is helps
    swap = ("Free swap  = 800000kB", "Total swap = 900000kB")
    text = log(first, ZONE.format(free=100, more=more.format(file=0)), "lowmem_reserve[]: 0 0 0 0 0", rest=swap)
    assert "direct_reclaim" in changes(only(text)[1])


def test_the_own_zone_keeps_nothing_back() -> None:
    """lowmem_reserve[] has 0 for the zone itself, whatever the layout; and GFP_KERNEL may always use Normal."""
    _, answer = only(read("reserve-all-zero"))
    assert (answer["conclusion"], answer["certainty"], answer["missing"]) == ("watermark", "certain", [])
    assert verdicts(answer) == [("Normal", "watermark", "certain")]
    # 3,000 kB are more than 2,780 kB, so that the state is later than the failure.
    _, answer = only(read("reserve-of-the-own-zone"))
    assert verdicts(answer) == [("Normal", "passes", "certain")]
    assert (answer["conclusion"], answer["certainty"], answer["missing"]) == ("passes", "unknown", [])
    assert "later than the failure" in answer["summary"]


def test_a_lower_zone_keeps_something_back() -> None:
    """DMA32 without its lowmem_reserve stays open for GFP_KERNEL, not for GFP_DMA32, whose highest zone it is."""
    text = read("reserve-of-the-own-zone").replace("Normal", "DMA32")
    assert verdicts(only(text)[1]) == [("DMA32", "unknown", "unknown")]
    own = text.replace("0x10cc0(GFP_KERNEL|", "0x10cc4(GFP_KERNEL|GFP_DMA32|")
    assert verdicts(only(own)[1]) == [("DMA32", "passes", "certain")]


def test_global_free_cma() -> None:
    """Of the machine's only zone 61,834 of 62,086 free pages are in CMA areas, so 1,008 kB are usable."""
    _, answer = only(read("global-free-cma"))
    assert (answer["conclusion"], answer["zones"][0]["verdict"]) == ("watermark", "watermark")
    assert "at most 1,008 kB of it usable" in answer["zones"][0]["why"]
    # If another zone may have them, nothing follows.
    more = read("global-free-cma").replace("free:62086", "free:99999")
    assert only(more)[1]["zones"][0]["verdict"] == "unknown"
    none = read("global-free-cma").replace("free_cma:61834", "free_cma:0")
    assert "at most 248,344 kB" in only(none)[1]["zones"][0]["why"]


def test_order_above_the_largest() -> None:
    """A CMA request fails, and its caller asks the page allocator for 2^15 pages, which it never has."""
    cma, warning = judged(read("order-above-max"))
    assert (cma.conclusion, cma.certainty) == ("contiguous_range", "certain")
    assert "19,200 contiguous pages" in headline(cma)
    assert "ENOMEM" in headline(cma)
    # On arm64 other functions with warnings are inlined into that one.
    assert (warning.conclusion, warning.certainty) == ("order_too_large", "likely")
    assert "19,200 pages failed before it, which needs order 15" in headline(warning)


def test_warnings_of_other_functions() -> None:
    """Those about requests that must not fail, and those about something else."""
    [nofail] = judged("WARNING: CPU: 3 PID: 2599 at mm/page_alloc.c:3013 rmqueue+0x2ec/0x330")
    assert (nofail.conclusion, nofail.certainty) == ("nofail", "likely")
    [other] = judged("WARNING: CPU: 3 PID: 2599 at mm/page_alloc.c:3013 free_pcppages_bulk+0x2ec/0x330")
    assert (other.conclusion, other.certainty) == ("unknown", "unknown")
    # Neither fails a request: `rmqueue` warns, and takes the pages.
    for warning in (nofail, other):
        assert "failed" not in headline(warning)
        assert answer(warning).harm.kind == "unknown"


SIZE = "vmalloc: allocation failure: {} bytes, mode:0x14000c2(GFP_KERNEL|__GFP_HIGHMEM), nodemask=(null)"


@pytest.mark.parametrize(
    ("first", "conclusion", "certainty"),
    [
        (SIZE.format(8_589_934_592), "size_refused", "certain"),
        (SIZE.format(0), "size_refused", "certain"),
        (SIZE.format(524_288_000), "address_range", "certain"),
        # The memory that is not the kernel's own is 50,000 pages: it may be either.
        (SIZE.format(780_000 << 12), "unknown", "unknown"),
        ("vmalloc error: size 99999999, exceeds total pages, mode:0xcc0(GFP_KERNEL)", "size_refused", "certain"),
    ],
)
def test_vmalloc_that_asks_for_no_pages(first: str, conclusion: str, certainty: str) -> None:
    """More than the whole memory, 0 bytes, or no addresses: the zones played no part, whatever they show."""
    zone = ZONE.format(free=900, more="")
    rest = ("800000 pages RAM", "0 pages HighMem/MovableOnly", "50000 pages reserved")
    failure, told = only(log(f"task: {first}", zone, "Node 0 Normal: 225*4kB (U) 0*8kB = 900kB", rest=rest))
    assert (told["conclusion"], told["certainty"], told["zones"]) == (conclusion, certainty, [])
    assert failure.logged.comm == "task"
    assert "too few free pages" not in told["summary"]
    assert answer(failure).what_if == ()


def test_a_mask_without_reclaim_bits() -> None:
    """It can neither wait nor wake kswapd; 0xd0 was GFP_KERNEL up to 4.3."""
    failure, answer = only(read("no-reclaim-bits"))
    assert certainties(failure) == {"no_reclaim": "certain", "other_layout": "likely"}
    assert "it can neither wait for memory nor wake kswapd" in answer["summary"]
    assert "0xd0 was GFP_KERNEL on kernels up to 4.3" in texts(failure)["other_layout"]
    # Of __GFP_HIGH alone nothing is known of its origin; with either bit nothing is wrong.
    high = read("no-reclaim-bits").replace(
        "0x400d0(__GFP_IO|__GFP_FS|__GFP_COMP|__GFP_RECLAIMABLE)", "0x20(__GFP_HIGH)"
    )
    assert certainties(only(high)[0]) == {"no_reclaim": "certain"}
    atomic = high.replace("0x20(__GFP_HIGH)", "0xa20(GFP_ATOMIC)")
    assert certainties(only(atomic)[0]) == {}


def test_no_reclaim_bits_early_in_boot() -> None:
    """Without zones PID 0 makes it likely; a mask with __GFP_IO was not cut by the kernel."""
    boot = read("no-reclaim-bits").replace("z: page", "swapper: page").replace("PID: 1 Comm: z", "PID: 0 Comm: swapper")
    assert certainties(only(boot)[0])["no_reclaim"] == "certain"
    cut = boot.replace("0x400d0(__GFP_IO|__GFP_FS|__GFP_COMP|__GFP_RECLAIMABLE)", "0x100(__GFP_ZERO)")
    assert certainties(only(cut)[0]) == {"boot_mask": "likely"}


def test_memory_cgroup_by_its_trace() -> None:
    """Nothing but a memory cgroup's charge calls mem_cgroup_out_of_memory."""
    _, answer = only(read("memcg-by-trace"))
    assert (answer["conclusion"], answer["certainty"], answer["missing"]) == ("memcg", "certain", [])


def test_address_range_and_pages() -> None:
    """vm_struct needs a range of addresses; vmemmap pages come from the page allocator."""
    _, answer = only(read("vmalloc-error"))
    assert (answer["conclusion"], answer["certainty"], answer["zones"]) == ("address_range", "certain", [])
    assert "no lack of memory" in answer["summary"]
    _, answer = only(read("vmemmap-alloc-failure"))
    assert (answer["conclusion"], answer["certainty"]) == ("block", "certain")
    pages = read("vmalloc-error").replace("vm_struct allocation failed", "page order 0, failed to allocate pages")
    _, answer = only(pages)
    assert (answer["event"], answer["conclusion"]) == ("vmalloc", "passes")


def test_reserved_but_not_free() -> None:
    """Up to 6.12 the check subtracts what is reserved for high-order atomic requests, even if none of it is free."""
    first = "task: page allocation failure: order:0, mode:0x10cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=(null)"
    zone = ZONE.format(free=9000, more="").replace("reserved_highatomic:0KB", "reserved_highatomic:8192KB")
    blocks = "Node 0 Normal: 2250*4kB (U{}) 0*8kB 0*16kB = 9000kB"
    lines = (zone, "lowmem_reserve[]: 0 0 0 0 0")
    failure, answer = only(log(first, *lines, blocks.format("")))
    assert verdicts(answer) == [("Normal", "watermark", "certain")]
    assert "8,192 kB that the check keeps for high-order atomic requests are not free" in texts(failure)["highatomic"]
    assert "highatomic" not in texts(only(log(first, *lines, blocks.format("H")))[0])
    # A log that has free_highatomic is of a kernel that subtracts that.
    counted = zone.replace("8192KB", "8192KB free_highatomic:0KB")
    _, answer = only(log(first, counted, lines[1], blocks.format(""), release="6.12.30"))
    assert verdicts(answer) == [("Normal", "passes", "certain")]
    _, answer = only(log(first, *lines, blocks.format(""), release="6.12.30"))
    assert verdicts(answer) == [("Normal", "watermark", "certain")]


def test_an_empty_mask_of_a_page_fault() -> None:
    """pagefault_out_of_memory() lost the request's mask."""
    first = "task invoked oom-killer: gfp_mask=0x0(), order=0, oom_score_adj=0"
    failure, answer = only(log(first, ZONE.format(free=1000, more="")))
    assert (answer["conclusion"], answer["certainty"], answer["zones"]) == ("no_request", "unknown", [])
    assert "page fault" in headline(failure)


def test_a_single_page_needs_no_list() -> None:
    """Free pages that are neither in CMA areas nor kept for others serve an order-0 request."""
    first = "task: page allocation failure: order:{}, mode:0x10cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=(null)"
    lines = (ZONE.format(free=9000, more=""), "lowmem_reserve[]: 0 0 0 0 0")
    assert verdicts(only(log(first.format(0), *lines))[1]) == [("Normal", "passes", "certain")]
    assert verdicts(only(log(first.format(1), *lines))[1]) == [("Normal", "unknown", "unknown")]


def test_a_kernel_with_or_without_the_zone() -> None:
    """GFP_DMA may use Normal on kernels without DMA only; a zone that is low refuses either way."""
    first = "task: page allocation failure: order:0, mode:0x10cc1(GFP_KERNEL|GFP_DMA|__GFP_NORETRY), nodemask=(null)"
    _, low = only(log(first, ZONE.format(free=1000, more="")))
    assert verdicts(low) == [("Normal", "watermark", "certain")]
    _, rich = only(log(first, ZONE.format(free=900000, more="")))
    assert (rich["conclusion"], rich["zones"][0]["unless"]) == ("unknown", ["the kernel had other zones"])
    assert "which zones this kernel has, so which part of lowmem_reserve holds" in rich["missing"]


def test_pages_of_proc_need_no_page_size() -> None:
    """/proc/zoneinfo counts pages: 3,004 are more than 3,000, whatever their size."""
    text = (
        "Node 0, zone   Normal\n  pages free     3005\n        boost    0\n        min      3000\n"
        "        low      3750\n        high     4500\n        present  262144\n"
        "        managed  250000\n        cma      0\n"
        "        protection: (0, 0, 0, 0, 0)\n      nr_free_pages 3005\n      nr_free_cma 0\n  pagesets\n"
    )
    [logged] = find_failures(read_messages(text.split("\n")))
    Given(gfp=("GFP_KERNEL",), order=1).complete(logged)
    answer = failure_json(explain_failure(logged, NamedKernel("6.1", "", builtin_tables("6.1"))))
    assert "its pages had another size" not in answer["zones"][0]["unless"]
    assert "3,005 pages free" in answer["zones"][0]["why"]


def test_a_mask_of_a_damaged_line() -> None:
    """What is no gfp_t is not used; its names are."""
    first = "task: page allocation failure: order:0, mode:0x100000000000cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=(null)"
    failure, answer = only(log(first, ZONE.format(free=1000, more="")))
    assert (failure.gfp_text, answer["zones"][0]["verdict"]) == ("GFP_KERNEL|__GFP_NORETRY", "watermark")


def test_a_reserve_of_another_zone() -> None:
    """DMA keeps 12,468 pages more for Normal than for DMA32, so DMA32 keeps some for Normal; 0 is Normal's own line."""
    lines = read("true-oom-remedies").replace("Node 0 Normal", "Node 0 DMA32").split("\n")
    _, answer = only("\n".join(lines))
    assert verdicts(answer)[1][:2] == ("DMA32", "watermark")
    rich = "\n".join(lines).replace("DMA32 free:61900kB", "DMA32 free:99900kB")
    _, answer = only(rich)
    assert verdicts(answer)[1] == ("DMA32", "unknown", "unknown")
    assert "lowmem_reserve of node 0 DMA32" in answer["missing"]
    _, answer = only(rich.replace("0 3191 15659 15659 15659", "0 3191 3191 3191 3191"))
    assert verdicts(answer)[1] == ("DMA32", "passes", "certain")


def test_a_log_without_the_zones_of_a_request() -> None:
    """Some zone has the kernel's own memory, so lines are missing."""
    lines = [line for line in read("movable-gfp-kernel").split("\n") if not line.startswith("Normal")]
    _, answer = only("\n".join(lines))
    assert (answer["conclusion"], answer["certainty"]) == ("no_zone", "unknown")


def test_free_blocks_alone() -> None:
    """Where no block fits, the zone refuses, whatever its watermarks; else nothing follows."""
    first = "task: page allocation failure: order:{}, mode:0x10cc0(GFP_KERNEL|__GFP_NORETRY), nodemask=(null)"
    blocks = "Node 0 Normal: 250*4kB (U) 9*8kB (U) 0*16kB 0*32kB = 1072kB"
    [failed] = judged(log(first.format(2), blocks))
    answer = failure_json(failed)
    assert (answer["conclusion"], answer["certainty"]) == ("block", "unknown")
    assert answer["zones"][0]["unless"] == ["it had too few free pages as well"]
    assert (answer["zones"][0]["free_kb"], answer["zones"][0]["min_kb"]) == (None, None)
    assert "the largest free block has 8 kB" in answer["zones"][0]["why"]
    assert only(log(first.format(1), blocks))[1]["conclusion"] == "unknown"


def test_a_cut_log_is_never_more_certain() -> None:
    """Without any one of its lines an answer is the same or weaker, and no verdict becomes another certain one."""
    for path in sorted(DATA.glob("*.log")):
        lines = path.read_text().rstrip("\n").split("\n")
        whole = judged("\n".join(lines))
        if len(whole) != 1:
            continue
        sure = {(one.state.zone, one.kind) for one in (whole[0].why.zones if whole[0].why is not None else ())}
        for number in range(1, len(lines)):
            for cut in judged("\n".join(lines[:number] + lines[number + 1 :])):
                rank = ("unknown", "likely", "certain").index
                if whole[0].conclusion == cut.conclusion:
                    assert rank(cut.certainty) <= rank(whole[0].certainty), (path.name, number)
                for verdict in cut.why.zones if cut.why is not None and cut.certain else ():
                    assert (verdict.state.zone, verdict.kind) in sure, (path.name, number)


def test_a_rate_limit_of_the_whole_kernel() -> None:
    """It does not tell whose messages it suppressed."""
    failure = only(f"__ratelimit: 5 callbacks suppressed\n{read('state-older-than-failure')}")[0]
    assert "a rate limit of the whole kernel suppressed 5 messages before it" in texts(failure)["limited"]
    one = only(f"printk: 1 messages suppressed.\n{read('state-older-than-failure')}")[0]
    assert "suppressed 1 message before it" in texts(one)["limited"]
