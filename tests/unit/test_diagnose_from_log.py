# SPDX-License-Identifier: MIT
"""Logs of real kernels, judged; each verdict was worked out by hand from the numbers in the log."""

from pathlib import Path
from typing import Any

from kalloctrace.diagnose.from_log import Failure, NamedKernel, explain_failure
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.logs.messages import read_messages
from tests.failure_text import failure_text

DATA = Path(__file__).parent / "data" / "failures"


def judged(name: str, kernel: str | None = None) -> list[dict[str, Any]]:
    """Return the answers for a file as JSON objects."""
    return [failure_json(failure) for failure in _failures((DATA / name).read_text(), kernel)]


def _failures(text: str, kernel: str | None = None) -> list[Failure]:
    named = NamedKernel(kernel, "", builtin_tables(kernel)) if kernel is not None else None
    return [explain_failure(logged, named) for logged in find_failures(read_messages(text.split("\n")))]


def verdicts(answer: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return zone, verdict and certainty of each zone."""
    return [(zone["zone"], zone["verdict"], zone["certainty"]) for zone in answer["zones"]]


def changes(answer: dict[str, Any]) -> dict[str, tuple[str, int | None]]:
    """Return where each remedy would have helped, and its number."""
    return {remedy["change"]: (remedy["zone"], remedy["value"]) for remedy in answer["remedies"]}


def test_2_6_31() -> None:
    """Of a mask without names the zones are known since 2.6.31, and whether it may wait: 243 of 31 + 238 pages."""
    [answer] = judged("2.6.31-order5-i386.log")
    assert verdicts(answer) == [("DMA", "watermark", "unknown"), ("Normal", "block", "certain")]
    assert (answer["conclusion"], answer["certainty"], answer["highest_zone"]) == ("mixed", "unknown", "Normal")
    assert changes(answer) == {"direct_reclaim": ("Normal", 0)}
    assert "before 4.4 __GFP_WAIT" in answer["remedies"][0]["text"]
    assert "the largest free block has 64 kB (order 4)" in answer["zones"][1]["why"]
    assert answer["gfp_text"] == "GFP_ATOMIC|__GFP_ZERO"


def test_2_6_32() -> None:
    """A zone below its watermark refuses a request without reserves; the log does not show whether the task had any."""
    [answer] = judged("2.6.32-el6-oom.log")
    assert verdicts(answer)[2] == ("Normal", "watermark", "unknown")
    assert "the task were real-time" in answer["zones"][2]["unless"]
    assert "the request were atomic (GFP_ATOMIC)" not in answer["zones"][2]["unless"]
    assert not answer["rules"]


def test_3_13() -> None:
    """Before 4.4 a block of the order is not enough, so one block decides nothing."""
    [answer] = judged("3.13-order4.log")
    assert [verdict for _, verdict, _ in verdicts(answer)] == ["watermark", "unknown", "unknown"]
    assert "kernels before 4.4" in answer["zones"][2]["why"]
    # For order 0 its 30388 pages are more than 13840 + 694 at most.
    assert changes(answer)["smaller_order"] == ("DMA32", 0)


def test_4_14() -> None:
    """The names determine the zones: 3712 of 71 + 3645 pages, 13251 of 12402 + 958, 4285 of 4421."""
    [answer] = judged("4.14-oom.log")
    assert verdicts(answer) == [(zone, "watermark", "certain") for zone in ("DMA", "DMA32", "Normal")]
    assert (answer["conclusion"], answer["certainty"], answer["highest_zone"]) == ("watermark", "certain", "Movable")
    assert answer["mems_allowed"] == "0"


def test_5_10() -> None:
    """3324 of 36 + 11403 pages, 14975 of 6011 + 8991, 22047 of 22111."""
    [answer] = judged("5.10-oom.log")
    assert verdicts(answer) == [(zone, "watermark", "certain") for zone in ("DMA", "DMA32", "Normal")]
    assert (answer["rules"], answer["alloc_flags"], answer["missing"]) == (True, 0x8C0, [])
    # Not even all file pages would bring a zone to its high watermark: 22047 + 84 of 33165. Reserves would not last.
    assert changes(answer) == {}


def test_5_13() -> None:
    """What was printed afterwards has a block of 512 kB, and 29742 - 127 of 474 + 29148 pages in DMA32."""
    [answer] = judged("5.13-order7-atomic-wrapped.log")
    assert verdicts(answer) == [
        ("DMA", "watermark", "certain"),
        ("DMA32", "watermark", "certain"),
        ("Normal", "passes", "certain"),
    ]
    assert (answer["conclusion"], answer["certainty"]) == ("passes", "unknown")
    assert answer["remedies"] == []


def test_5_14() -> None:
    """A zone of 160 kB has no 4 MiB; it had 128 kB."""
    [answer] = judged("5.14-dma-order10.log")
    assert (answer["conclusion"], answer["certainty"], answer["highest_zone"]) == ("watermark", "certain", "DMA")
    assert changes(answer) == {"smaller_order": ("DMA", 5)}
    assert "less than one block of the order" in answer["zones"][0]["why"]


def test_6_9() -> None:
    """1666 - 1 of 106 + 1564 pages in DMA; 11730 - 1 of 11157 in DMA32, with blocks."""
    [answer] = judged("6.9-order1-passes.log")
    assert verdicts(answer) == [("DMA", "watermark", "certain"), ("DMA32", "passes", "certain")]


def test_highatomic_reserve() -> None:
    """What high-order atomic requests do not use is kept back by what is reserved or by what is free of it."""
    [old] = judged("6.12-highatomic-oom-cut.log", "6.6")
    assert verdicts(old)[0][1] == "watermark"
    assert "409,784 kB of it usable (not 1,073,152 kB kept for high-order atomic requests)" in old["zones"][0]["why"]
    # No block of type H is free, so all of it is usable; but lowmem_reserve is cut off.
    [new] = judged("6.12-highatomic-oom-cut.log", "6.13")
    assert verdicts(new)[0][1] == "unknown"
    assert new["missing"] == ["lowmem_reserve of node 0 Normal"]
    [without] = judged("6.12-highatomic-oom-cut.log")
    assert verdicts(without)[0][1] == "unknown"
    assert "release" in without["missing"][0]
    assert without["zones"][0]["why"].endswith(
        "lowmem_reserve 0 to 1,482,936 kB; the data does not show which is larger"
    )


def test_boost() -> None:
    """Without its boost of 7168 pages, Normal's 19848 - 8 are more than 20077 - 7168; so are not all others'."""
    [answer] = judged("6.19-boosted.log")
    assert (answer["conclusion"], answer["certainty"]) == ("watermark", "certain")
    assert changes(answer)["watermark_boost"] == ("Normal", None)
    assert "not above min 80,308 kB with its boost of 28,672 kB" in answer["zones"][2]["why"]
    # 13046 pages in DMA32 are more than 1983 + 9127, but not than 3965 + 9127.
    assert changes(answer)["gfp_high"] == ("DMA32", None)
    # DMA32 would do with 3918 of 3965 pages, Normal with 12671 of 12909.
    assert changes(answer)["min_free_kbytes"] == ("DMA32", 3918)
    texts = {remedy["change"]: remedy["text"] for remedy in answer["remedies"]}
    assert "which now has 15,860 kB (vm.min_free_kbytes at about 98 % of its value)" in texts["min_free_kbytes"]
    # With __GFP_NOMEMALLOC neither would have opened what it opens.
    assert texts["gfp_memalloc"].startswith("__GFP_MEMALLOC instead of __GFP_NOMEMALLOC, which")
    assert texts["gfp_atomic"].startswith("the access of GFP_ATOMIC to the reserves instead of __GFP_NOMEMALLOC:")


def test_lowmem_reserve() -> None:
    """The second kill found 94145 of 140 + 94028 pages in DMA32; after the first 94260 were there."""
    first, second = judged("6.19-lowmem-reserve.log")
    assert verdicts(first)[1] == ("DMA32", "passes", "certain")
    assert verdicts(second) == [(zone, "watermark", "certain") for zone in ("DMA", "DMA32", "Normal")]
    assert "lowered to 560 kB" in second["zones"][1]["why"]
    assert changes(second)["lowmem_reserve"] == ("DMA", None)
    # 105 of 140 pages for a request that may not block.
    assert changes(second)["gfp_atomic"] == ("DMA32", None)


def test_nodes() -> None:
    """A nodemask and a cpuset close a node; CMA pages and lowmem_reserve keep the other's."""
    web, db = judged("made-two-nodes.log")
    assert [zone["excluded_by"] for zone in web["zones"]] == ["nodemask", None, None]
    assert [verdict for _, verdict, _ in verdicts(web)] == ["excluded", "watermark", "block"]
    assert (web["conclusion"], web["certainty"]) == ("mixed", "certain")
    # No nodemask with node 0 is proposed: __GFP_THISNODE may require node 1.
    assert changes(web) == {
        "smaller_order": ("Normal", 1),
        "gfp_movable": ("Normal", None),
    }
    assert [zone["excluded_by"] for zone in db["zones"]] == ["cpuset", None]
    assert changes(db)["cpuset"] == ("Normal", None)
    # Movable requests may use its CMA pages: 9750 of 10000.
    assert (db["event"], verdicts(db)[1][1]) == ("stall", "watermark")


def test_this_node_is_not_shown() -> None:
    """The log does not show which of several nodes __GFP_THISNODE requires."""
    text = (DATA / "made-two-nodes.log").read_text().replace("nodemask=1,", "nodemask=(null),")
    web = failure_json(_failures(text)[0])
    assert web["missing"] == ["which node __GFP_THISNODE asked for"]
    # Node 0 has blocks of 32 kB, so it matters whether it was tried.
    assert verdicts(web)[0] == ("Normal", "passes", "unknown")
    assert web["zones"][0]["unless"] == ["__GFP_THISNODE asked for another node"]
    assert (web["conclusion"], web["certainty"]) == ("unknown", "unknown")


def test_memory_cgroup() -> None:
    """The limit of a cgroup is named instead of zones."""
    [answer] = judged("memcg-oom.log")
    assert (answer["conclusion"], answer["certainty"], answer["zones"], answer["missing"]) == (
        "memcg",
        "certain",
        [],
        [],
    )
    assert "memory cgroup" in answer["summary"]


def test_no_zones() -> None:
    """A log that breaks off before Mem-Info gets what is missing, and no verdict."""
    [answer] = judged("4.19-interleaved.log")
    assert (answer["conclusion"], answer["certainty"]) == ("unknown", "unknown")
    assert answer["missing"][0].startswith("the zones")


def test_sysrq() -> None:
    """The OOM killer that a person invoked explains no request."""
    [failure] = _failures("bash invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=-1, oom_score_adj=0")
    assert "a person invoked the OOM killer" in failure_json(failure)["summary"]


def test_a_request_that_was_not_made() -> None:
    """A state of memory that --gfp and --order complete has no failure, so none is claimed."""
    text = (Path(__file__).parents[1] / "logs/data/sysrq-m.log").read_text()
    report = next(iter(find_failures(read_messages(text.split("\n")))))
    Given(gfp=("GFP_KERNEL",), order=3).complete(report)
    summary = failure_json(explain_failure(report))["summary"]
    assert summary.startswith("order 3 (32 kB) with GFP_KERNEL in this state of memory: ")


def test_a_task_without_a_name() -> None:
    """A first line that lost its task's name names nobody."""
    (made,) = _failures("page allocation failure: order:0, mode:0x2080020(GFP_ATOMIC)")
    assert failure_json(made)["summary"].startswith("order 0 (1 page) with GFP_ATOMIC failed: ")


def test_contradiction_is_reported() -> None:
    """Blocks that do not add up are ignored, and listed as a contradiction."""
    text = (DATA / "5.10-oom.log").read_text().replace("= 92388kB", "= 92400kB")
    [answer] = [failure_json(failure) for failure in _failures(text)]
    assert answer["contradictions"] == [
        "the free blocks of node 0 Normal add up to 92,388 kB, but 92,400 kB is printed"
    ]
    # One page needs no list: free pages are enough, and lowered watermarks would have let it pass.
    assert (answer["missing"], answer["certainty"]) == ([], "unknown")
    assert verdicts(answer)[2] == ("Normal", "watermark", "certain")
    assert "the task were real-time" in answer["zones"][2]["passes_if"]
    # Two pages need a block of two.
    [pair] = [failure_json(failure) for failure in _failures(text.replace("order=0", "order=1"))]
    assert "the free blocks of node 0 Normal" in pair["missing"]
    assert verdicts(pair)[2] == ("Normal", "watermark", "unknown")
    assert "the task were real-time" in pair["zones"][2]["unless"]


def test_reports_that_run_into_each_other() -> None:
    """Where a zone is shown twice, one line is another report's: nothing is certain then."""
    lines = [line for line in (DATA / "6.19-boosted.log").read_text().splitlines() if not line.startswith("#")]
    [whole] = _failures("\n".join(lines))
    others = [line.replace(" free:", " free:1") for line in lines if " free:" in line and " min:" in line]
    [mixed] = _failures("\n".join([*lines, *others]))
    assert (failure_json(whole)["certainty"], failure_json(mixed)["certainty"]) == ("certain", "unknown")
    assert "shown twice" in mixed.logged.contradictions[0]


def test_page_size() -> None:
    """The smallest block shows the page size; a kernel with 16 KiB pages counts a quarter of the pages."""
    lines = (
        "x: page allocation failure: order:1, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)",
        "CPU: 0 PID: 1 Comm: x Not tainted 6.8.10 #1",
        "Node 0 Normal free:1600kB min:1200kB low:1400kB high:1600kB reserved_highatomic:0KB free_cma:0kB",
        "lowmem_reserve[]: 0 0",
        "Node 0 Normal: 100*16kB (U) 0*32kB = 1600kB",
    )
    [failure] = _failures("\n".join(lines))
    assert failure.page_kb == 16
    answer = failure_json(failure)
    assert (answer["conclusion"], answer["zones"][0]["free_kb"]) == ("block", 1600)
    assert "order 1 (32 kB)" in answer["summary"]


def test_zones_without_pages() -> None:
    """Zones without pages, which old kernels show, are on no zonelist and so not judged."""
    lines = (
        "x: page allocation failure. order:1, mode:0x20",
        "Node 0 DMA32 free:3408kB min:5704kB low:7128kB high:8556kB present:2051180kB",
        "lowmem_reserve[]: 0 0 0 0",
        "Node 0 Normal free:0kB min:0kB low:0kB high:0kB present:0kB",
        "lowmem_reserve[]: 0 0 0 0",
        "Node 0 DMA32: 852*4kB 0*8kB = 3408kB",
        "Node 0 Normal: empty",
    )
    [failure] = _failures("\n".join(lines))
    answer = failure_json(failure)
    assert [zone for zone, _, _ in verdicts(answer)] == ["DMA32"]
    assert not [missing for missing in answer["missing"] if "Normal" in missing]


def test_names_go_before_numbers() -> None:
    """A different configuration has other numbers: the printed names count, and the difference is reported."""
    lines = (
        "x: page allocation failure: order:2, mode:0x80cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)",
        "CPU: 0 PID: 1 Comm: x Not tainted 6.12.9 #1",
        "Node 0 Normal free:1600kB min:1200kB low:1400kB high:1600kB reserved_highatomic:0KB free_cma:0kB",
        "lowmem_reserve[]: 0 0 0 0 0",
        "Node 0 Normal: 100*4kB (U) 150*8kB (U) 0*16kB 0*32kB = 1600kB",
    )
    [failure] = _failures("\n".join(lines))
    assert failure.gfp_text == "GFP_KERNEL|__GFP_COMP"
    assert not failure.attempt.nomemalloc
    assert any("so its names hold" in missing for missing in failure.missing)


def test_names_are_not_markup() -> None:
    """The name of a cpuset is written as it is, brackets and all."""
    text = (DATA / "made-two-nodes.log").read_text().replace("cpuset=db,", "cpuset=[red]db[/red],")
    assert "the cpuset [red]db[/red] has nodes 1" in " ".join(failure_text(_failures(text)).split())


def test_every_log_can_be_written() -> None:
    """Each answer has a headline, a row for each zone, and no line with spaces at its end or over 100 columns."""
    for path in sorted(DATA.glob("*.log")):
        failures = _failures(path.read_text())
        lines = failure_text(failures).split("\n")
        assert [line for line in lines if line != line.rstrip() or len(line) > 100] == []
        for failure in failures:
            for zone in failure.logged.zones:
                assert any(line.startswith(f"node {zone.node} {zone.zone} ") for line in lines)


def test_no_watermarks_are_compared() -> None:
    """For a request that ignores watermarks only the blocks are shown, not usable or needed pages."""
    lines = (
        "x: page allocation failure: order:2, mode:0x22a20(GFP_ATOMIC|__GFP_MEMALLOC), nodemask=(null)",
        "CPU: 0 PID: 1 Comm: x Not tainted 5.10.0-46-amd64 #1 Debian 5.10.262-1",
        "Node 0 Normal free:1600kB min:4800kB low:5000kB high:5200kB reserved_highatomic:6144KB free_cma:0kB",
        "lowmem_reserve[]: 0 0 0 0 0",
        "Node 0 Normal: 200*4kB (U) 100*8kB (U) 0*16kB 0*32kB = 1600kB",
    )
    [failure] = _failures("\n".join(lines))
    [only] = failure_json(failure)["zones"]
    assert only["why"] == (
        "1,600 kB free, no watermark applies (ALLOC_NO_WATERMARKS); the largest free block has 8 kB (order 1)"
    )
