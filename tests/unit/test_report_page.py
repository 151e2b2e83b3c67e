# SPDX-License-Identifier: MIT
"""The data of the report's page, and how they are put into it."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.diagnose.sentences import headline_alike
from kalloctrace.diagnose.slow_calls import SlowCallDescriber, grouped, slow_call_json
from kalloctrace.flags.decode import decode_gfp
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.diff import side_of
from kalloctrace.report.page.data import Limits, page_data
from kalloctrace.report.page.document import embedded_json, page_html
from kalloctrace.report.page.explained import explained
from kalloctrace.report.page.moments import Moments
from kalloctrace.report.page.slowpath import SlowLimits, slow_verdict
from kalloctrace.report.summary import summarize
from kalloctrace.trace.containers import ContainerNames
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.slowpath_reader import decode_slow_calls
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.trace import SlowJudge, SlowMismatch, SlowVerification
from kalloctrace.verify.verification import verify_trace
from tests import traces

VENDOR = files("kalloctrace.report.page").joinpath("vendor")
EVENTS = Path(__file__).parent / "data" / "events" / "perf.txt"
BULK = traces.RECORDED.parents[1] / "7.3" / "stimulus.arrows"
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>",
    "a\u2028b\u2029c",
    "&lt;b&gt;",
    '"\\',
    "{{scripts}}",
    "\U0001f9e0",
]


def data_of(path: Path, **limits: Any) -> dict[str, Any]:  # noqa: ANN401 those of Limits
    """Return a trace's data as the page reads them: through JSON."""
    with TraceReader(path) as trace:
        parsed: dict[str, Any] = json.loads(json.dumps(page_data(trace, Limits(**limits))))
    return parsed


def value(data: dict[str, Any], name: str, row: int) -> Any:  # noqa: ANN401 whatever the column holds
    """Return a row's value of a column."""
    found = data["values"][name][data["rows"][name][row]]
    return found["value"] if isinstance(found, dict) else found


def calls(data: dict[str, Any], name: str) -> Counter[Any]:
    """Return how many calls have each value of a column."""
    sums: Counter[Any] = Counter()
    for row, count in zip(data["time"]["row"], data["time"]["count"], strict=True):
        sums[value(data, name, row)] += count
    return sums


def texts(data: dict[str, Any], row: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a row's explanation in words."""
    words = data["texts"]
    return [
        (words[heading], [(words[label], words[text]) for label, text in fields])
        for heading, fields in data["explained"][str(row)]
    ]


@pytest.mark.parametrize("text", HOSTILE)
def test_embedded_data_end_no_script(text: str) -> None:
    """No text leaves the element it stands in or breaks a line of it, and all come back as they were."""
    embedded = "".join(embedded_json({text: [text]}))
    assert not set(embedded) & set("<>&\u2028\u2029\n")
    assert embedded.isascii()
    assert json.loads(embedded) == {text: [text]}


def test_embedded_data_are_made_in_parts() -> None:
    """A part has a few items of a long list, and together they are the data."""
    data = {
        "long": [[number, "<"] for number in range(25_000)],
        "short": [1],
        "none": [],
        "empty": {},
        "in": {"it": {}},
    }
    parts = list(embedded_json(data))
    assert json.loads("".join(parts)) == data
    assert max(map(len, parts)) < len("".join(parts)) / 2


def test_page_holds_the_data_whatever_the_names(tmp_path: Path) -> None:
    """A task's name is neither markup nor a place to put something else in."""
    path = traces.stream(tmp_path / "t.arrows", *({"comm": text} for text in HOSTILE))
    with TraceReader(path) as trace:
        page = "".join(page_html(page_data(trace, Limits())))
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    shown = json.loads(block)["values"]["comm"]
    assert shown == [*HOSTILE[:3], r"a\u2028b\u2029c", *HOSTILE[4:]]
    assert "alert(1)</script>" not in page


def test_policy_names_each_script_and_nothing_else() -> None:
    """Scripts that may run are listed by hash; network requests are forbidden."""
    page = "".join(page_html(data_of(traces.RECORDED)))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert page.count("<script>") == policy.count("&#x27;sha256-") == 3
    assert policy.startswith("default-src &#x27;none&#x27;; script-src &#x27;sha256-")
    assert "unsafe-eval" not in policy


def test_page_names_no_address_to_load_from() -> None:
    """Nothing in the page refers to another file."""
    page = "".join(page_html(data_of(traces.RECORDED)))
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""\bsrc=|\bhref=(?!"#)|url\(|@import""", markup)


def test_libraries_are_those_of_the_list() -> None:
    """Each file of a library has its listed hash, and the page contains its licence."""
    libraries = json.loads(VENDOR.joinpath("libraries.json").read_text())
    listed = {name: file["sha256"] for library in libraries for name, file in library["files"].items()}
    assert listed == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "libraries.json"
    }
    page = "".join(page_html(data_of(traces.RECORDED)))
    for name in listed:
        assert VENDOR.joinpath(name).read_text("utf-8") in page


@pytest.mark.parametrize("path", [traces.RECORDED, BULK], ids=["5.10", "7.3"])
def test_numbers_are_those_of_the_report(path: Path) -> None:
    """Calls, pages, and calls by order, gfp mask, zone and outcome are what `report` counts."""
    data = data_of(path)
    with TraceReader(path) as trace:
        summary, _ = summarize(trace)
    by = {breakdown.name: breakdown.parts for breakdown in summary.by}
    assert sum(data["time"]["count"]) == summary.all.count
    pages = [
        data["rows"]["pages"][row] * count
        for row, count in zip(data["time"]["row"], data["time"]["count"], strict=True)
    ]
    assert sum(pages) == summary.all.pages
    assert calls(data, "order") == {part.key["order"]: part.amount.count for part in by["order"]}
    assert calls(data, "gfp") == {part.key["gfp_mask"]: part.amount.count for part in by["gfp"]}
    assert calls(data, "context") == {part.label: part.amount.count for part in by["context"]}
    assert calls(data, "outcome")["rejected"] == summary.rejected
    zones: Counter[str] = Counter()
    for part in by["preferred_zone"]:
        zones[part.key["zone"] or "none"] += part.amount.count
    assert calls(data, "zone") == zones


def test_values_of_a_column_differ() -> None:
    """No filter offers the same twice, though several masks or counters may mean the same."""
    for path in (traces.RECORDED, BULK):
        for name, values in data_of(path)["values"].items():
            assert len({json.dumps(one) for one in values}) == len(values), name


def test_masks_have_the_names_of_their_kernel() -> None:
    """A mask's text is the recorded kernel's, and its flags are that kernel's bits."""
    data = data_of(traces.RECORDED)
    tables = traces.source()[0].tables
    for mask in data["values"]["gfp"]:
        assert mask["text"] == f"{mask['value']:#x} {decode_gfp(mask['value'], tables).text}".rstrip()
        assert sum(tables.gfp(name) for name in mask["bits"]) == mask["value"]


def test_mismatches_come_first_then_failures(tmp_path: Path) -> None:
    """However rare they are."""
    path = traces.aggregate(
        tmp_path / "t.arrows",
        ({}, 1000),
        ({"page": False}, 5),
        ({"alloc_flags": 0}, 2),
        ({"alloc_flags": 0, "page": False}, 1),
    )
    data = data_of(path)
    rows = [(value(data, "verdict", row), value(data, "outcome", row)) for row in range(4)]
    assert rows == [("mismatched", "page"), ("mismatched", "failed"), ("matched", "failed"), ("matched", "page")]
    assert data["verification"]["mismatched"] == 3


def test_difference_has_both_values_and_the_rule(tmp_path: Path) -> None:
    """In the words of `verify`."""
    data = data_of(traces.aggregate(tmp_path / "t.arrows", ({"alloc_flags": 0x1}, 7)))
    ((numbers,),) = data["differences"]
    field, expected, observed, rule, effect = (data["texts"][number] for number in numbers)
    assert data["differs"] == {"0": 0}
    assert (field, observed, rule) == ("alloc_flags", "0x1 ALLOC_WMARK_LOW", "nofragment")
    assert expected.endswith("ALLOC_KSWAPD")
    assert "ALLOC_KSWAPD" in effect


def test_slow_path_has_its_verdict() -> None:
    """Its numbers and what differs are there; of very many mismatches the first, and the number of the others."""
    call = {"comm": "<b>", "given": {"gfp_mask": 0xCC0, "order": 3}}
    wrong = SlowMismatch("attempt", Difference("alloc_flags", 0x1, 0x2, "boost", "why"), call, 2)
    slow = SlowVerification(calls=1, attempts=300, mismatched=300, mismatches=[wrong] * 300)
    found = slow_verdict(slow, 4, traces.source()[0].tables)
    assert (found["attempts"], found["mismatched"], found["lost"]) == (300, 300, 4)
    assert (len(found["mismatches"]), found["hidden"]) == (200, 100)
    assert found["mismatches"][0] == {
        "step": "attempt 2",
        "field": "alloc_flags",
        "expected": "0x1 ALLOC_WMARK_LOW",
        "observed": "0x2 ALLOC_WMARK_HIGH",
        "rule": "boost: why",
        "request": "0xcc0 GFP_KERNEL, order 3, of <b>",
    }


def test_slow_path_is_judged(tmp_path: Path) -> None:
    """The numbers are those of `verify`, and a mismatched call is a mismatch on the page too."""
    call = next(call for call in traces.slow_calls() if len(call["attempts"]) == 1)
    (attempt,) = call["attempts"]
    wrong = {**call, "attempts": [{**attempt, "alloc_flags": attempt["alloc_flags"] ^ 0x800}]}
    path = traces.slow(tmp_path / "t.arrows", *traces.slow_calls()[:200], wrong, lost=3)
    with TraceReader(path) as trace:
        verdict = verify_trace(trace)
    assert verdict.slow is not None
    data = data_of(path)
    found = data["verification"]["slow"]
    expected = verdict.slow.to_json()
    for name in ("calls", "failed", "attempts", "matched", "mismatched", "unknown", "calls_mismatched"):
        assert found[name] == expected[name]
    assert (found["mismatched"], found["lost"], dict(found["kinds"])) == (1, 3, expected["kinds"])
    assert [one["field"] for one in found["mismatches"]] == ["alloc_flags"]


def test_failed_calls_are_grouped_as_in_the_text(tmp_path: Path) -> None:
    """Largest group first, each with its slowest call, described as in `report --failures --json`."""
    calls = [call for call in traces.slow_calls() if call["page"] is False]
    path = traces.slow(tmp_path / "t.arrows", *calls)
    data = data_of(path)
    groups = grouped(map(describer(path).describe, calls)).groups
    words = data["texts"]
    assert len(groups) == len(data["slow"]["failed"]) > 100
    for group, found in zip(groups, data["slow"]["failed"], strict=True):
        assert (found["calls"], found["first"], found["last"]) == (group.calls, group.first, group.last)
        assert words[found["line"]] == headline_alike(group.slowest.why)
        assert_described(data, found["slowest"], slow_call_json(group.slowest))
    assert (data["slow"]["not_judged"], data["slow"]["rest"]) == (0, {"groups": 0, "calls": 0})


def test_groups_are_limited(tmp_path: Path) -> None:
    """Calls of further causes are only counted, so that the memory has a limit."""
    calls = [call for call in traces.slow_calls() if call["page"] is False][:300]
    describe = describer(traces.slow(tmp_path / "t.arrows", *calls)).describe
    every, some = grouped(map(describe, calls)), grouped(map(describe, calls), 3)
    assert len(every.groups) > 3 == len(some.groups)
    assert sum(group.calls for group in some.groups) + some.beyond == len(calls)
    assert every.beyond == 0
    largest = every.groups[0]
    same = [call for call in calls if describe(call).why.cause == largest.slowest.why.cause]
    assert (largest.calls, largest.first) == (len(same), min(call["time"] for call in same))
    assert largest.slowest.call == max(same, key=lambda call: call["duration"] or 0)


def test_slowest_calls_are_shown(tmp_path: Path) -> None:
    """Those that got a page, the slowest first; a call that was still under way is neither slow nor failed."""
    got = [call for call in traces.slow_calls() if call["page"]][:300]
    under_way = {**got[0], "page": None, "duration": None}
    path = traces.slow(tmp_path / "t.arrows", under_way, *got)
    data = data_of(path, slow=SlowLimits(slowest=20))
    slowest = sorted(got, key=lambda call: -call["duration"])[:20]
    describe = describer(path).describe
    assert len(data["slow"]["slowest"]) == 20
    for call, found in zip(slowest, data["slow"]["slowest"], strict=True):
        assert_described(data, found, slow_call_json(describe(call)))
    assert (data["slow"]["unseen"], data["slow"]["failed"]) == (1, [])


def test_what_is_beyond_the_limits_of_the_slow_path_is_counted(tmp_path: Path) -> None:
    """Groups beyond the page's limit, and failed calls that were not diagnosed."""
    failed = [call for call in traces.slow_calls() if call["page"] is False][:100]
    path = traces.slow(tmp_path / "t.arrows", *failed)
    slow = data_of(path, slow=SlowLimits(groups=5, judged=40))["slow"]
    assert len(slow["failed"]) == 5
    assert sum(group["calls"] for group in slow["failed"]) + slow["rest"]["calls"] == 100
    assert slow["not_judged"] == 60
    all_of_them = data_of(path, slow=SlowLimits(judged=40))
    not_judged = [group for group in all_of_them["slow"]["failed"] if not group["judged"]]
    requests = Counter((call["given"]["gfp_mask"], call["given"]["order"], call["comm"]) for call in failed[40:])
    assert sorted(group["calls"] for group in not_judged) == sorted(requests.values())
    assert all(all_of_them["texts"][group["line"]].endswith("beyond this page's limit") for group in not_judged)


def test_trace_without_slow_path_has_none(tmp_path: Path) -> None:
    """Not recorded is not the same as none."""
    assert data_of(traces.RECORDED)["slow"] is None
    data = data_of(traces.slow(tmp_path / "t.arrows"))
    assert data["verification"]["slow"]["calls"] == 0
    assert (data["slow"]["failed"], data["slow"]["slowest"]) == ([], [])


def test_damaged_calls_of_the_slow_path_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows the calls before the damage, and says that others are missing."""
    path = traces.slow(tmp_path / "t.arrows", *traces.slow_calls()[:9])
    allocations = data_of(path)["verification"]["allocations"]

    def read(text: bytes) -> Iterator[dict[str, Any]]:
        yield from decode_slow_calls(text)
        raise ValueError("no more")

    monkeypatch.setattr("kalloctrace.trace.reader.decode_slow_calls", read)
    data = data_of(path)
    assert data["verification"]["allocations"] == allocations
    assert data["verification"]["slow"]["calls"] == 9
    assert data["slow"]["damage"] == "its calls of the slow path are damaged: no more"


@pytest.mark.parametrize(
    ("consume", "passes"),
    [(lambda trace: page_data(trace, Limits()), 2), (summarize, 1), (side_of, 2)],
    ids=["page", "report", "diff"],
)
def test_a_trace_is_read_once_or_twice(consume: Callable[[TraceReader], object], passes: int, tmp_path: Path) -> None:
    """The rows and the calls of the slow path are read together, not each for each consumer."""
    path = traces.slow(tmp_path / "t.arrows", *traces.slow_calls()[:300])
    batches: list[float] = []
    with TraceReader(path, batches.append) as trace:
        trace.ending()
        in_one_pass = len(batches)
        consume(trace)
    assert in_one_pass > 0
    assert len(batches) - in_one_pass == passes * in_one_pass


def describer(path: Path) -> SlowCallDescriber:
    """Return the describer of a trace's calls."""
    with TraceReader(path) as trace:
        kernel = Kernel.of(trace.snapshot)
        return SlowCallDescriber(trace.snapshot, kernel, SlowJudge.of(trace.snapshot, kernel, trace.ending().totals))


def assert_described(data: dict[str, Any], found: dict[str, Any], reported: dict[str, Any]) -> None:
    """Compare the page's description of a call with the object of `report --failures --json`."""
    words = data["texts"]
    assert {name: found[name] for name in ("time", "duration", "cpu", "pid", "tid", "order")} == {
        name: reported[name] for name in ("time", "duration", "cpu", "pid", "tid", "order")
    }
    assert (words[found["comm"]], words[found["headline"]]) == (reported["comm"], reported["summary"])
    assert words[found["gfp"]] == f"{reported['gfp']:#x} {reported['gfp_text']}"
    # From the entry on; what lies inside it is the probe's own.
    assert ";".join(words[frame] for frame in found["stack"][::-1]) in reported["stack"]
    assert [words[one] for one in found["remedies"]] == [one["text"] for one in reported["remedies"]]
    assert [words[one] for one in found["missing"]] == reported["missing"]
    zones = [(words[one["zone"]], one["free"], one["min"], words[one["why"]]) for one in found["zones"]]
    assert zones == [
        (f"node {one['node']} {one['zone']}", one["free_kb"], one["min_kb"], one["why"]) for one in reported["zones"]
    ]
    assert len(found["attempts"]) == len(reported["attempts"])
    for one, expected in zip(found["attempts"], reported["attempts"], strict=True):
        assert words[one["kind"]] == (" or ".join(expected["kinds"]) or "not classified")
        assert words[one["gfp"]] == f"{expected['gfp']:#x} {expected['gfp_text']}"
        assert words[one["alloc_flags"]] == f"{expected['alloc_flags']:#x} {expected['alloc_flags_text']}"
        assert [words[event] for event in one["between"]] == expected["between"]
        assert (one["after"], one["verdict"]) == (expected["after"], expected["verdict"])


def test_rejected_request_is_explained() -> None:
    """Why nothing was prepared, and that no warning hides it."""
    data = data_of(traces.RECORDED)
    row = next(i for i in range(len(data["rows"]["order"])) if value(data, "outcome", i) == "rejected")
    fields = dict(texts(data, row))["outcome"]
    assert fields[0][0] == "rejected"
    assert "11" in fields[0][1]


def test_steps_are_those_of_the_model() -> None:
    """Each explained request, of the bulk allocator too, has the model's steps in their order."""
    data = data_of(BULK)
    with TraceReader(BULK) as trace:
        kernel = Kernel.of(trace.snapshot)
        sections = [explained(kernel, row, trace.inferred) for row, _ in trace.counted()]
    known = {json.dumps(one) for one in sections}
    assert len(data["explained"]) == Limits().explained
    assert {json.dumps(texts(data, int(row))[:3]) for row in data["explained"]} <= known
    assert any(heading == "request to alloc_pages_bulk" for one in sections for heading, _ in one)


def test_what_was_not_captured_is_said(tmp_path: Path) -> None:
    """A request whose preparation depends on an unknown fact says which, and shows no steps."""
    change = {"cpusets_enabled": 1, "mems_allowed": None, "preempt_count": None}
    data = data_of(traces.aggregate(tmp_path / "t.arrows", (change, 3)))
    assert value(data, "verdict", 0) == "unknown"
    ((heading, ((label, why),)),) = texts(data, 0)
    assert (heading, label) == ("not explained", "why")
    assert why == data["texts"][data["unknown"]["0"]]


def test_stacks_start_at_the_entry(tmp_path: Path) -> None:
    """What lies inside the allocator's entry is the probe's own; a call without a stack has no frames."""
    entry = traces.source()[0].features.entry
    path = traces.stream(
        tmp_path / "t.arrows", {"stack": f"a;b;{entry};probe"}, {"stack": f"a;{entry}"}, {"stack": None}
    )
    callers = data_of(path)["callers"]
    stacks = [[callers["frames"][frame] for frame in stack] for stack in callers["stacks"]]
    assert stacks == [[entry, "b", "a"], [entry, "a"], []]
    assert sum(callers["count"]) == 3


def test_calls_by_control_group(tmp_path: Path) -> None:
    """Each group has the calls of its tasks, beyond a limit only the largest; a container has its name."""
    container = f"/docker/{'0123456789abcdef' * 4}"
    paths = [container] * 5 + ["/init.scope"] * 3 + [None]
    path = traces.stream(
        tmp_path / "t.arrows",
        *({"cgroup": group, "time": 10**9 + number} for number, group in enumerate(paths)),
        containers={container: ContainerNames(None, None, "web")},
    )

    def found(**limits: Any) -> tuple[dict[str, int], dict[str, int]]:  # noqa: ANN401 those of Limits
        data = data_of(path, **limits)
        groups = data["groups"]
        sums = zip((groups["names"][x] for x in groups["x"]), groups["count"], strict=True)
        return dict(sums), data["rest"]["groups"]

    assert found()[0] == {"web": 5, "/init.scope": 3, "none": 1}
    few, rest = found(cells=2)
    assert few == {"web": 5, "/init.scope": 3}
    assert (rest["cells"], rest["count"]) == (1, 1)
    assert data_of(traces.RECORDED)["groups"] is None


def test_trace_without_stacks_has_no_callers() -> None:
    """No caller is invented."""
    assert data_of(traces.RECORDED)["callers"] is None


def test_aggregate_has_neither_time_nor_tasks(tmp_path: Path) -> None:
    """All its calls are in one part, because times are not known."""
    data = data_of(traces.aggregate(tmp_path / "t.arrows", ({}, 6), ({"order": 1}, 4)))
    assert data["aggregate"]
    assert (data["time"]["span"], data["time"]["buckets"], set(data["time"]["x"])) == (None, 1, {0})
    assert sum(data["time"]["count"]) == 10
    assert data["callers"] is None


def test_empty_trace_has_data(tmp_path: Path) -> None:
    """A recording in which nothing happened has a page too."""
    data = data_of(traces.aggregate(tmp_path / "t.arrows"))
    assert (data["rows"]["pages"], data["time"]["count"]) == ([], [])


def test_beyond_the_limit_of_rows_is_summed(tmp_path: Path) -> None:
    """The first rows are there, and the others are counted: nothing is lost silently."""
    data = data_of(traces.varied(tmp_path / "t.arrows", 500), rows=200)
    assert len(data["rows"]["pages"]) == 200
    assert data["rest"]["rows"]["rows"] == 300
    assert sum(data["time"]["count"]) + data["rest"]["rows"]["count"] == 500
    assert max(data["time"]["row"]) == 199


def test_time_is_coarser_before_anything_is_left_out(tmp_path: Path) -> None:
    """With more cells than a page holds, the parts of the time become larger."""
    rows = [{"time": 1_000 + i} for i in range(1000)]
    data = data_of(traces.stream(tmp_path / "t.arrows", *rows), cells=100)
    assert data["time"]["buckets"] == 60
    assert (len(data["time"]["count"]), sum(data["time"]["count"])) == (60, 1000)
    assert data["rest"]["cells"] == {"cells": 0, "count": 0, "pages": 0}


def test_beyond_the_limit_of_cells_is_summed(tmp_path: Path) -> None:
    """Where even that is too much the largest stay, mismatches before them."""
    rows: list[dict[str, Any]] = [{"comm": f"task-{i % 50}", "stack": f"caller_{i}"} for i in range(100)]
    rows.append({"comm": "odd", "stack": "odd_caller", "alloc_flags": 0})
    data = data_of(traces.stream(tmp_path / "t.arrows", *rows), cells=30)
    for name, rest in (("time", "cells"), ("callers", "callers")):
        assert len(data[name]["count"]) == 30
        assert sum(data[name]["count"]) + data["rest"][rest]["count"] == 101
        assert "odd" in {data["values"]["comm"][comm] for comm in data[name]["comm"]}


def test_stacks_are_merged_before_calls_are_left_out(tmp_path: Path) -> None:
    """Where stacks are too many the smallest become one, of the same request and task: filters still hold."""
    rows = [{"comm": f"task-{i % 5}", "stack": f"caller_{i}"} for i in range(100)]
    data = data_of(traces.stream(tmp_path / "t.arrows", *rows), cells=40)
    callers = data["callers"]
    assert sum(callers["count"]) == 100
    assert [callers["frames"][frame] for frame in callers["stacks"][-1]] == ["(other stacks)"]
    last = len(callers["stacks"]) - 1
    summed = [
        (data["values"]["comm"][comm], count)
        for comm, x, count in zip(callers["comm"], callers["x"], callers["count"], strict=True)
        if x == last
    ]
    assert sum(count for _, count in summed) == 80
    assert {name for name, _ in summed} <= {f"task-{i}" for i in range(5)}
    assert len(summed) == len(dict(summed)) > 1
    assert (data["rest"]["stacks"]["count"], data["rest"]["callers"]["count"]) == (80, 0)


def test_the_first_are_explained(tmp_path: Path) -> None:
    """And the most frequent, and those with most pages; the limit is one of the page's data."""
    common: tuple[dict[str, Any], int] = ({"task_flags": 0x400100}, 90)
    large: tuple[dict[str, Any], int] = ({"order": 9, "freelist_order": 9}, 1)
    odd = [({"alloc_flags": 0x1, "freelist_calls": i}, 5) for i in range(1, 20)]
    data = data_of(traces.aggregate(tmp_path / "t.arrows", *odd, common, large), explained=8)
    assert data["limits"]["explained"] == len(data["explained"]) == 8
    assert {"0", "1", "2", "3"} < set(data["explained"])
    assert {value(data, "order", int(row)) for row in data["explained"]} == {0, 9}
    assert "matched" in {value(data, "verdict", int(row)) for row in data["explained"]}


def test_imported_events_have_a_page(tmp_path: Path) -> None:
    """Fields that an event does not show are not known, and no steps are invented."""
    trace = tmp_path / "t.arrows"
    program = [sys.executable, "-m", "kalloctrace", "import", "-o", str(trace), str(EVENTS)]
    subprocess.run(program, check=True, capture_output=True, timeout=60)
    data = data_of(trace)
    assert calls(data, "order") == {0: 7}
    assert calls(data, "outcome") == {"page": 7}
    for name in ("node", "zone", "nid"):
        assert calls(data, name) == {"not known": 7}
    assert data["values"]["alloc_flags"] == [{"value": None, "text": "not known", "bits": []}]
    assert {heading for row in data["explained"] for heading, _ in texts(data, int(row))} == {"not explained"}


def test_truncated_trace_says_so(tmp_path: Path) -> None:
    """And so does a sample, by its factor."""
    whole = traces.stream(tmp_path / "t.arrows", {}, recording={"filters": {"sample": 7}})
    cut = tmp_path / "cut.arrows"
    cut.write_bytes(whole.read_bytes()[:-200])
    data = data_of(cut)
    assert (data["truncated"], data["sample"]) == (True, 7)
    assert ["lost", None] in [[name, number] for name, number, _ in data["totals"]]


def test_the_first_requests_have_walkthroughs() -> None:
    """The page's first requests have a walkthrough behind their steps, of the bulk allocator none."""
    data = data_of(traces.RECORDED)
    first = dict(texts(data, 0))
    walkthrough = [row for row in data["explained"] if len(texts(data, int(row))) > 3]
    assert any(heading.startswith("step 1: ") for heading in first)
    assert "what would change the answer" in first
    assert 0 < len(walkthrough) <= Limits().walkthroughs
    bulk = data_of(BULK)
    kinds = {
        (texts(bulk, int(row))[0][0] == "request to alloc_pages_bulk", len(texts(bulk, int(row))) > 3)
        for row in bulk["explained"]
    }
    assert (True, True) not in kinds


def test_alike_requests_show_what_differs(tmp_path: Path) -> None:
    """By the columns in which they differ, with the kernel's names; a request without a twin has nothing to add."""
    rows: list[tuple[dict[str, Any], int]] = [({}, 9), ({"migratetype": 1, "task_flags": 0x40}, 5), ({"order": 5}, 3)]
    data = data_of(traces.aggregate(tmp_path / "t.arrows", *rows))
    apart = {row: data["texts"][text] for row, text in data["apart"].items()}
    orders = [value(data, "order", row) for row in range(3)]
    assert set(map(int, apart)) == {row for row, order in enumerate(orders) if order != 5}
    assert any("migratetype MOVABLE" in text and "task_flags 0x40" in text for text in apart.values())
    assert all("order" not in text for text in apart.values())


def test_what_differs_is_said_in_words(tmp_path: Path) -> None:
    """Whether a page was returned is yes or no."""
    data = data_of(traces.aggregate(tmp_path / "t.arrows", ({"page": True}, 9), ({"page": False}, 5)))
    assert {data["texts"][text] for text in data["apart"].values()} == {"page returned yes", "page returned no"}


def test_calls_are_counted_by_time_and_duration() -> None:
    """In parts of the time, quarters of a power of ten, the gravest event, and whether they failed."""
    moments = Moments(1_000, 1_000 + 2_399)
    attempts = [{"between": []}, {"between": ["compaction", "direct_reclaim"]}]
    base = {"time": 1_000, "duration": 1_000, "page": True, "attempts": [], "after_last": []}
    for change in (
        {},
        {"time": 1_009, "duration": 1_700},
        {"time": 1_010, "duration": 1_800},
        {"time": 3_399, "page": False, "attempts": attempts},
        {"time": 3_399, "page": False, "attempts": attempts, "after_last": ["oom"]},
        {"duration": 0},
        {"duration": None},
    ):
        moments.add({**base, **change})
    found = moments.to_json()
    assert (found["span"], found["buckets"]) == (2_400, 240)
    cells = zip(*(found[name] for name in ("x", "y", "what", "failed", "count")), strict=True)
    kinds = found["kinds"]
    assert [(x, y, kinds[what], failed, count) for x, y, what, failed, count in cells] == [
        (0, 0, "none", 0, 1),
        (0, 12, "none", 0, 2),
        (1, 13, "none", 0, 1),
        (239, 12, "direct_reclaim", 1, 1),
        (239, 12, "oom", 1, 1),
    ]


def test_times_are_counted_from_the_recording(tmp_path: Path) -> None:
    """From when it began where the recorder wrote that, else from the first call that has a time."""
    path = traces.stream(tmp_path / "t.arrows", {"time": 5_000}, {"time": 9_000})
    first = {"began": 5_000, "event": "the first call that has a time", "wall": None, "first": 0}
    assert data_of(path)["clock"] == first
    known = {"started_monotonic": 2e-6, "started": "2026-11-26T10:57:13+01:00"}
    path = traces.stream(tmp_path / "s.arrows", {"time": 5_000}, recording=known)
    wall = "2026-11-26T09:57:13+00:00"
    assert data_of(path)["clock"] == {"began": 2_000, "event": "the recording began", "wall": wall, "first": 3_000}


def test_failures_are_known_where_the_slow_path_was_recorded(tmp_path: Path) -> None:
    """A call that was not rejected fails in the slow path only, so that no other return has to be traced."""
    assert data_of(traces.slow(tmp_path / "t.arrows"))["returns"] == "slow"
