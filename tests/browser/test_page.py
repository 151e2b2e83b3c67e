# SPDX-License-Identifier: MIT
"""The page of `report --html` as people use it. Each test also checks that the console stays empty.

The fixture `opener` checks it, and that the page requests nothing except its own file.
"""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from kalloctrace.__main__ import main
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.page.explained import explained
from kalloctrace.trace.inferred import NOTHING_INFERRED
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace
from tests import traces
from tests.browser.opened import Opener, Scheme, write_page

FIXTURES = traces.RECORDED.parents[1]
ALL, ORDER_3, FAILED = 423, 20, 2
TOO_SMALL = """() => [...document.querySelectorAll("body *")]
  .filter((one) => [...one.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
  .filter((one) => one.checkVisibility() && !one.closest("script, style, title, .skip"))
  .flatMap((one) => {
    const box = one.getBoundingClientRect();
    const size = parseFloat(getComputedStyle(one).fontSize);
    const outside = box.left < -1 || box.right > document.documentElement.clientWidth + 1;
    const cut = one.tagName !== "SELECT" && one.scrollWidth > one.clientWidth + 1 &&
      !["inline", "contents"].includes(getComputedStyle(one).display) && !(one instanceof SVGElement);
    const found = `${one.tagName} ${one.textContent.trim().slice(0, 40)}: ${size} ${box.left} ${box.right}`;
    return size < 12 || outside || cut ? [found] : [];
  })"""

EMPTY = """() => [...document.querySelectorAll("section, section table, figure")].filter((one) => {
    const copy = one.cloneNode(true);
    copy.querySelectorAll("h2, .lead, .controls, caption, thead").forEach((part) => part.remove());
    return !copy.textContent.trim() && !one.parentElement.querySelector(".note");
  }).map((one) => one.outerHTML.slice(0, 200))"""
"""Sections, tables and charts without content or a line that says why."""


def table(page: Page, caption: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table, by its heading."""
    found = page.locator("table", has=page.locator("caption", has_text=re.compile(f"^{caption}")))
    cells = """(rows) => rows.map((row) => [
        row.querySelector("th").innerText.trim(), [...row.querySelectorAll("td")].map((cell) => cell.innerText.trim())
    ])"""
    return dict(found.locator("tbody tr").evaluate_all(cells))


def everything(page: Page) -> list[str]:
    """Return the text of each section that follows the filters."""
    return page.locator("#findings, #failures, #time, #shape, #flags, #callers, #tasks, #requests").all_inner_texts()


def open_all(page: Page) -> None:
    """Expand every element that can be expanded."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    # Elements fire their `toggle` event later, in a task of their own.
    count = "document.querySelectorAll('.request details{}').length"
    page.wait_for_function(f"{count.format('')} <= {count.format(' h3')}")


def empty(path: Path) -> Path:
    """Write an empty trace."""
    return traces.aggregate(path)


def aggregate(path: Path) -> Path:
    """Write a trace without time, tasks and returns."""
    return traces.aggregate(path, ({"page": None}, 30), ({"order": 2, "page": None}, 10))


def truncated_sample(path: Path) -> Path:
    """Write a truncated sample."""
    whole = traces.stream(path, {}, {"order": 1}, recording={"filters": {"sample": 10}})
    path.write_bytes(whole.read_bytes()[:-200])
    return path


def one_call(path: Path) -> Path:
    """Write a trace of a single call, whose duration is 0."""
    return traces.stream(path, {"stack": "a;b"})


@pytest.mark.parametrize("make", [empty, aggregate, truncated_sample, one_call])
def test_odd_traces(opener: Opener, tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The page names what a trace lacks, and every filter still works."""
    page = opener.open(write_page(make(tmp_path / "t.arrows")))
    expect(page.locator("#filters select").first).to_be_visible()
    assert page.evaluate(EMPTY) == []
    for select in page.locator("#filters select").all():
        values = select.locator("option:not([disabled])").evaluate_all("(all) => all.map((one) => one.value)")
        select.select_option(values[-1])
        assert not page.evaluate(
            "document.body.innerText.includes('NaN') || document.body.innerText.includes('undefined')"
        )
    if make is aggregate:
        assert "without times" in page.locator("#time").inner_text()
        assert "without tasks" in page.locator("#tasks").inner_text()
        assert "were not traced" in page.locator("#failures").inner_text()
        assert page.locator("#filter-comm").count() == 0
    if make is truncated_sample:
        assert "end of the recording is missing" in page.locator("#notices").inner_text()
        assert "lost not known" in page.locator("#verdict").inner_text()
        assert "All ~20 allocations" in opener.open(tmp_path / "t.html").locator("#selected").inner_text()
    if make is one_call:
        assert page.locator("#selected").inner_text().startswith("The only allocation: 1 page, ")


@pytest.mark.parametrize("name", ["7.3/stimulus", "6.1/no-dma32", "5.10/stimulus-cpusets"])
def test_recorded_traces(opener: Opener, tmp_path: Path, name: str) -> None:
    """Real recordings of several kernels have their page; the verdict is on top."""
    page = opener.open(write_page(FIXTURES / f"{name}.arrows", tmp_path / "t.html"))
    assert re.search(r"[\d,]+ matched\s+0 mismatched\s+0 unknown", page.locator("#verdict").inner_text())
    open_all(page)
    assert page.locator("#requests .steps li").count() > 20


def test_everything_is_counted(opener: Opener, demo: Path) -> None:
    """Without filters the numbers are those of the trace."""
    page = opener.open(demo)
    assert page.locator("#selected").inner_text().startswith(f"All {ALL} allocations: 561 pages")
    assert table(page, "Tasks")["make"] == ["300", "300", "1,200 kB", "70.9%"]
    assert table(page, "Outcomes")["failed"][:2] == ["2", "0"]
    assert table(page, "order × migratetype")["3"] == ["20"]


@pytest.mark.parametrize(
    ("name", "choice", "calls"),
    [
        ("comm", "cc1", 120),
        ("gfp", "__GFP_HIGHMEM", ALL),
        ("order", "3", ORDER_3),
        ("node", "1", ALL),
        ("zone", "Normal", ALL),
        ("migratetype", "UNMOVABLE", ALL),
        ("alloc_flags", "0x1", 1),
        ("outcome", "failed", FAILED),
        ("verdict", "mismatched", 1),
    ],
)
def test_filters_change_what_is_shown(opener: Opener, demo: Path, name: str, choice: str, calls: int) -> None:
    """Each filter leaves the matching calls, in every section, and a reset shows all again."""
    page = opener.open(demo)
    before = everything(page)
    page.locator(f"#filter-{name}").select_option(choice)
    shown = page.locator("#selected").inner_text()
    assert shown.startswith(f"{calls} of {ALL} allocations" if calls < ALL else f"All {ALL} allocations")
    counted = [int(cells[0]) for cells in table(page, "Tasks").values()]
    assert sum(counted) == calls
    if calls < ALL:
        changed = [old != new for old, new in zip(before, everything(page), strict=True)]
        assert sum(changed) >= 6
    assert f"{name}={choice}" in page.url
    page.locator("#reset").click()
    assert everything(page) == before
    assert "=" not in page.url


def test_filters_go_together(opener: Opener, demo: Path) -> None:
    """Two filters leave the calls that pass both; if none does, the page says so."""
    page = opener.open(demo)
    page.locator("#filter-comm").select_option("cc1")
    page.locator("#filter-order").select_option("3")
    assert next(iter(table(page, "gfp masks").values()))[0] == "20"
    page.locator("#filter-verdict").select_option("mismatched")
    assert page.locator("#selected").inner_text().startswith(f"0 of {ALL} allocations")
    assert "No allocation passes the filters" in page.locator("#tasks").inner_text()


def test_rows_of_tables_are_filters(opener: Opener, demo: Path) -> None:
    """A click on a row's name filters by it, a second one removes the filter; the focus stays."""
    page = opener.open(demo)
    page.locator("#tasks button", has_text="cc1").click()
    assert page.locator("#filter-comm").input_value() == "cc1"
    assert list(table(page, "Tasks")) == ["cc1"]
    assert page.evaluate("document.activeElement.textContent") == "cc1"
    page.keyboard.press("Enter")
    assert page.locator("#filter-comm").input_value() == ""


def test_state_is_in_the_address(opener: Opener, demo: Path) -> None:
    """A link shows what its sender saw; a link to a section keeps it; a change of the address is followed."""
    page = opener.open(demo, "#order=3&weight=pages&theme=dark")
    assert page.locator("#selected").inner_text().startswith(f"{ORDER_3} of {ALL}")
    assert page.locator("#choice-weight").input_value() == "pages"
    page.locator("nav a", has_text="Callers").click()
    expect(page.locator("#filter-order")).to_have_value("3")
    assert "order=3" in page.url
    page.evaluate("location.hash = 'comm=make'")
    expect(page.locator("#filter-comm")).to_have_value("make")
    assert page.locator("#selected").inner_text().startswith(f"300 of {ALL}")


def test_unknown_state_is_harmless(opener: Opener, demo: Path) -> None:
    """A value that the trace lacks matches nothing and can be reset; an unknown choice is the default one."""
    page = opener.open(demo, "#order=99&weight=<b>&theme=blue&nonsense=1")
    assert page.locator("#selected").inner_text().startswith(f"0 of {ALL}")
    assert page.locator("#choice-weight").input_value() == "allocations"
    page.locator("#chips button").click()
    assert page.locator("#selected").inner_text().startswith(f"All {ALL}")


def test_hostile_name_is_text(opener: Opener, demo: Path) -> None:
    """A task name that is markup is shown as text, in tables and filters, and no script in it runs."""
    page = opener.open(demo)
    name = next(name for name in table(page, "Tasks") if name.startswith("</script>"))
    assert r"\u2028" in name
    page.locator("#tasks button", has_text="</script>").click()
    assert page.locator("#selected").inner_text().startswith("1 of ")
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0


def test_policy_stops_what_is_not_the_page(demo: Path, opener: Opener) -> None:
    """An injected script does not run, and the page sends no request."""
    page = opener.open(demo)
    attempt = """async (address) => {
        const blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.broken = 1";
        document.body.append(script);
        await fetch(address).catch(() => {});
        document.body.append(Object.assign(document.createElement("img"), { src: `${address}x.png` }));
        await new Promise((done) => setTimeout(done, 200));
        return blocked;
    }"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        blocked = page.evaluate(attempt, f"http://127.0.0.1:{server.getsockname()[1]}/")
        server.settimeout(0.5)
        with pytest.raises(TimeoutError):
            server.accept()
    assert page.evaluate("window.broken") is None
    assert sorted(blocked) == ["connect-src", "img-src", "script-src-elem"]
    # The browser reports each blocked request.
    assert all("Content Security Policy" in line for line in opener.console)
    opener.console.clear()
    opener.requested.clear()


def test_mismatches_come_first_with_their_explanation(opener: Opener, demo: Path) -> None:
    """Differences show both values and the rule without a click; the keyboard expands the steps."""
    page = opener.open(demo)
    headings = page.locator("h2").all_inner_texts()
    assert headings[:3] == ["Overview", "Mismatches", "Failures"]
    reported = page.locator("#findings .difference").inner_text()
    assert "alloc_flags differs" in reported
    assert "0x1 ALLOC_WMARK_LOW" in reported
    assert "nofragment: ALLOC_KSWAPD" in reported
    page.locator("#findings summary").focus()
    page.keyboard.press("Enter")
    with TraceReader(demo.with_suffix(".arrows")) as trace:
        kernel = Kernel.of(trace.snapshot)
        row = next(row for row, _ in trace.counted() if row["alloc_flags"] == 1)
    (_, steps) = explained(kernel, row, NOTHING_INFERRED)[1]
    expect(page.locator("#findings .steps li")).to_have_text([f"{function} {effect}" for function, effect in steps])


def test_mismatches_of_the_slow_path_come_first(opener: Opener, pressed: Path) -> None:
    """They are listed with the others and colour the verdict, although the preparation matched; numbers are below."""
    page = opener.open(pressed)
    reported = page.locator("#slow").inner_text()
    assert "slow path, attempt 1: alloc_flags differs" in reported
    assert re.search(r"1 of \d+ attempts in the slow path differ", reported)
    assert "mismatched" in (page.locator("#verdict").get_attribute("class") or "")
    with TraceReader(pressed.with_suffix(".arrows")) as trace:
        slow = verify_trace(trace).slow
    assert slow is not None
    numbers = page.locator("#slowpath .fields").first.inner_text()
    assert f"{slow.failed} failed; return not traced for 0" in numbers
    assert f"{slow.failed} calls of the slow path failed" in page.locator("#failures").inner_text()
    assert f"{slow.matched} matched, 1 mismatched, 0 unknown" in numbers
    assert re.search(r"lost events\s+2\b", numbers)
    kinds = {kind: number for kind, (number,) in table(page, "Attempts by kind").items()}
    assert {name: str(slow.kinds[name]) for name in ("retry", "after_waking_kswapd")}.items() <= kinds.items()
    page.locator("#slow a").click()
    assert page.locator("#slowpath").is_visible()


def failures_of(trace: Path) -> dict[tuple[int, int], dict[str, Any]]:
    """Return the object that `report --failures --json` prints for each call, by its time and thread."""
    program = [sys.executable, "-m", "kalloctrace", "report", "--failures", "--slower-than", "0", "--json", str(trace)]
    lines = subprocess.run(program, check=True, capture_output=True, text=True).stdout.splitlines()
    return {(call["time"], call["tid"]): call for call in map(json.loads, lines)}


@pytest.mark.parametrize("kind", ["failed", "slowest"])
def test_calls_of_the_slow_path_open(opener: Opener, pressed: Path, kind: str) -> None:
    """It expands to the caller, the zones, the remedies and each attempt, as in `report --failures --json`."""
    page = opener.open(pressed)
    data = json.loads(page.locator("#data").text_content() or "")
    zoned = [bool(one.get("slowest", one)["zones"]) for one in data["slow"][kind]]
    number = zoned[:10].index(True)
    first = data["slow"][kind][number]
    call = first["slowest"] if kind == "failed" else first
    reported = failures_of(pressed.with_suffix(".arrows"))[call["time"], call["tid"]]
    item = page.locator("#slowpath ol").nth(0 if kind == "failed" else 1).locator("> li").nth(number)
    words = ("failed", f"{first['calls']} calls") if kind == "failed" else (f"{call['duration'] / 1e6:,.3f} ms",)
    for word in words:
        assert word in item.locator("summary").inner_text()
    item.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(item.locator("h3").first).to_have_text("caller")
    text = item.inner_text()
    for name in ("time", "pid", "cpu"):
        assert (
            f"{reported[name] / 1e9:.6f} s in the kernel's log" if name == "time" else f"{name} {reported[name]}"
        ) in text
    rows = item.locator(".zones tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.children].map((cell) => cell.innerText.trim()))"
    )
    assert rows
    assert [(zone, free, least, why) for zone, free, least, _, why in rows] == [
        (f"node {one['node']} {one['zone']}", f"{one['free_kb']:,} kB", f"{one['min_kb']:,} kB", one["why"])
        for one in reported["zones"]
    ]
    for one in (*reported["remedies"], *reported["missing"]):
        assert (one if isinstance(one, str) else one["text"]) in text
    attempts = item.locator(".attempt").all_inner_texts()
    assert len(attempts) == min(10, len(reported["attempts"]))
    for shown, one in zip(attempts, reported["attempts"], strict=False):
        kinds = " or ".join(one["kinds"])
        assert shown.startswith(f"{one['number']}. {kinds} after {one['after'] / 1e6:,.3f} ms {one['verdict']}")
        assert f"{one['alloc_flags']:#x} {one['alloc_flags_text']}" in shown
        assert f"{one['gfp']:#x} {one['gfp_text']}" in shown
        assert all(event in shown for event in one["between"])


def test_mismatched_attempt_is_shown_in_its_call(opener: Opener, pressed: Path) -> None:
    """It is shown with both values; a task name that is markup is shown as text, and no script in it runs."""
    page = opener.open(pressed)
    while (more := page.locator("#slowpath button", has_text="Show more groups")).is_visible():
        more.click()
    item = page.locator("#slowpath li.request", has_text="</script>")
    assert r"\u2028" in item.locator("summary").inner_text()
    expect(item.locator("summary .badge")).to_have_text(["failed", "mismatched"])
    item.locator("summary").click()
    expect(item.locator(".attempt .difference")).to_contain_text("alloc_flags differs")
    assert page.evaluate("window.broken") is None
    assert page.locator("img").count() == 0


def test_slow_path_does_not_follow_the_filters(opener: Opener, pressed: Path) -> None:
    """And the page says so."""
    page = opener.open(pressed)
    before = page.locator("#slowpath").inner_text()
    assert "Filters do not apply to this section" in before
    page.locator("#slowpath summary").first.click()
    expect(page.locator("#slowpath .attempt").first).to_be_visible()
    opened = page.locator("#slowpath").inner_text()
    page.locator("#filter-verdict").select_option("matched")
    assert page.locator("#slowpath").inner_text() == opened != before


def test_slow_path_that_is_not_there(opener: Opener, demo: Path, tmp_path: Path) -> None:
    """One line says whether it was not recorded or not taken."""
    assert "was not recorded" in opener.open(demo).locator("#slowpath .list").inner_text()
    none = opener.open(write_page(traces.slow(tmp_path / "t.arrows")))
    assert none.locator("#slowpath .list").inner_text() == "No slow-path calls were recorded. Lost events: 0."


def test_failures_of_the_slow_path_are_all(opener: Opener, tmp_path: Path) -> None:
    """Where other returns were not traced, nothing is left open: a call that was not rejected fails there only."""
    failed = next(call for call in traces.slow_calls() if call["page"] is False)
    page = opener.open(write_page(traces.slow(tmp_path / "t.arrows", failed)))
    text = page.locator("#failures .list").inner_text()
    assert "1 call of the slow path failed" in text
    assert "not known" not in text
    none = opener.open(write_page(traces.slow(tmp_path / "s.arrows")))
    assert none.locator("#failures .list").inner_text() == "None: the only allocation got its pages."


def test_times_of_a_journal(opener: Opener, tmp_path: Path) -> None:
    """Next to the seconds, the wall-clock time, where the recording has it."""
    failed = next(call for call in traces.slow_calls() if call["page"] is False)
    path = write_page(traces.slow(tmp_path / "t.arrows", {**failed, "time": 61_500_000_000}))
    began = '"wall":"2026-11-26T09:57:13+00:00"'
    for known, expected in (('"wall":null', "log"), (began, "log, about 2026-11-26T09:58:14+00:00 in a journal")):
        path.write_text(path.read_text().replace('"wall":null', known))
        page = opener.open(path)
        page.locator("#slowpath li.request summary").first.click()
        expect(page.locator("#slowpath li.request").first).to_contain_text(f"61.500000 s in the kernel's {expected}")


def test_failures_are_listed(opener: Opener, demo: Path) -> None:
    """What returned NULL, with its explanation."""
    page = opener.open(demo)
    (item,) = page.locator("#failures li.request").all()
    assert re.search(r"order 9, node \d\s+2 allocations, 0 pages\s+failed", item.inner_text())
    item.locator("summary").click()
    expect(item.locator("h3").first).to_have_text("what the kernel did")
    assert "returned NULL" in item.inner_text()


def test_callers_come_before_time(opener: Opener, demo: Path, tmp_path: Path) -> None:
    """Where there are stacks they are the main picture; without, a line says so further down."""
    for path, before in (
        (demo, True),
        (write_page(one_call(tmp_path / "t.arrows")), True),
        (write_page(traces.slow(tmp_path / "s.arrows")), False),
    ):
        headings = opener.open(path).locator("h2").all_inner_texts()
        assert (headings.index("Callers") < headings.index("Over time")) == before


def test_requests_that_look_alike_differ(opener: Opener, demo: Path) -> None:
    """Each of them shows its values of what differs."""
    page = opener.open(demo)
    lines = page.locator("#requests summary .what").all_inner_texts()
    assert len(lines) == len(set(lines)) > 3
    assert any("alloc_flags 0x1 ALLOC_WMARK_LOW" in line for line in lines)


def test_icicle_zooms_by_keyboard_and_pointer(opener: Opener, demo: Path) -> None:
    """A selected frame fills the width, and a breadcrumb leads back."""
    page = opener.open(demo)
    frames = page.locator(".icicle g")
    before = frames.count()
    page.locator(".icicle g", has_text="ksys_read").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".crumbs")).to_be_visible()
    assert (frames.first.text_content() or "").startswith("ksys_read")
    assert page.evaluate("document.activeElement.closest('.icicle') !== null")
    page.locator(".crumbs button", has_text="all calls").click()
    assert frames.count() == before
    page.locator("#choice-from").select_option("innermost")
    assert traces.source()[0].features.entry in (frames.nth(1).text_content() or "")


def test_icicle_is_one_stop_of_the_tab_key(opener: Opener, demo: Path) -> None:
    """Arrow keys move the focus, and a text describes the focused frame."""
    page = opener.open(demo)
    assert page.locator(".icicle g[tabindex='0']").count() == 1
    page.locator("#choice-from").focus()
    page.keyboard.press("Tab")
    steps = [("ArrowDown", "asm_exc_page_fault"), ("ArrowRight", "entry_SYSCALL_64"), ("ArrowDown", "ksys_read")]
    for key, name in [*steps, ("ArrowUp", "entry_SYSCALL_64"), ("ArrowLeft", "asm_exc_page_fault")]:
        page.keyboard.press(key)
        expect(page.locator("#callers output")).to_have_text(re.compile(f"^{name}: "))


def test_icicle_is_weighed_by_what_is_chosen(opener: Opener, demo: Path) -> None:
    """By allocations at first, by pages on demand."""
    page = opener.open(demo)
    frame = page.locator(".icicle g[aria-label^=ksys_read]")
    expect(frame).to_have_attribute("aria-label", re.compile("120 allocations, 260 pages .* 28.4%"))
    page.locator("#choice-weight").select_option("pages")
    expect(frame).to_have_attribute("aria-label", re.compile("46.3%"))


@pytest.mark.parametrize("width", [1000, 1600])
def test_headings_are_below_the_filters(opener: Opener, demo: Path, width: int) -> None:
    """A link to a section shows its heading, although the filters stay on top."""
    page = opener.open(demo, width=width)
    for name in ("Callers", "Failures", "Over time"):
        page.locator("nav a", has_text=name).click()
        heading = page.locator("section > h2", has_text=name)
        filters = page.locator("#filters").bounding_box()
        place = heading.bounding_box()
        assert filters is not None
        assert place is not None
        assert filters["y"] + filters["height"] <= place["y"] < 900


def test_the_answer_comes_first(opener: Opener, demo: Path) -> None:
    """The overview begins with the failed calls, in the colour of a failure."""
    page = opener.open(demo)
    first = page.locator("#headline li").first
    assert re.fullmatch(r"2 of \d+ allocations failed \(.*%\)", first.inner_text())
    assert first.get_attribute("class") == "bad"


def test_time_has_bars_and_words(opener: Opener, demo: Path) -> None:
    """The chart has a bar for each interval with calls, and a text names the one with most."""
    page = opener.open(demo)
    assert page.locator("#time svg rect").count() > 100
    assert "Each bar is 1.246 milliseconds" in page.locator("#time figcaption").inner_text()
    page.locator("#choice-split").select_option("comm")
    assert {"make", "cc1", "ld"} <= set(page.locator("#time .legend li").all_inner_texts())


def test_failures_are_on_the_time_line(opener: Opener, demo: Path, pressed: Path) -> None:
    """Those that pass the filters have a mark; without times of allocations, those of the slow path have."""
    page = opener.open(pressed)
    with TraceReader(pressed.with_suffix(".arrows")) as trace:
        failed = sum(call["page"] is False for call in trace.slow_calls())
    caption = page.locator("#time figcaption").inner_text()
    assert f"Triangles mark {failed} failed calls of the slow path (filters do not apply to them)." in caption
    page = opener.open(demo)
    assert f"Triangles mark {FAILED} failed calls." in page.locator("#time figcaption").inner_text()
    assert page.locator("#time .failure path").count() == 1
    page.locator("#filter-comm").select_option("make")
    assert page.locator("#time .failure path").count() == 0


def test_durations_have_charts(opener: Opener, pressed: Path) -> None:
    """A legend counts the calls by the gravest event; the histogram and the map over time have a caption each."""
    page = opener.open(pressed)
    with TraceReader(pressed.with_suffix(".arrows")) as trace:
        events = [
            {*call["after_last"], *(e for one in call["attempts"] for e in one["between"])}
            for call in trace.slow_calls()
        ]
    killed = sum("oom" in each for each in events)
    reclaimed = sum("direct_reclaim" in each and "oom" not in each for each in events)
    legend = page.locator("#durations .legend li").all_inner_texts()
    assert {f"direct reclaim: {reclaimed} calls", f"the OOM killer: {killed} calls"} <= set(legend)
    assert page.locator("#durations svg[role=img]").count() == page.locator("#durations figcaption").count() == 2
    assert page.locator("#durations svg").last.locator("rect").count() > 10


def test_download_is_the_data(opener: Opener, demo: Path) -> None:
    """The button downloads all data of the page as JSON."""
    page = opener.open(demo)
    with page.expect_download() as started:
        page.locator("#download").click()
    assert started.value.suggested_filename == "demo.arrows.json"
    data: dict[str, Any] = json.loads(started.value.path().read_bytes())
    with TraceReader(demo.with_suffix(".arrows")) as trace:
        distinct = len(list(trace.counted()))
    assert (data["type"], len(data["rows"]["pages"])) == ("page", distinct)


def test_theme_follows_the_system_and_can_be_chosen(opener: Opener, demo: Path) -> None:
    """Dark where the system is, light or dark where the button says so."""
    background = "getComputedStyle(document.body).backgroundColor"
    page = opener.open(demo, scheme="dark")
    dark = page.evaluate(background)
    page.locator("#theme").click()
    light = page.evaluate(background)
    assert (page.locator("#theme").inner_text(), light == dark) == ("Theme: light", False)
    page.locator("#theme").click()
    assert page.evaluate(background) == dark
    assert opener.open(demo, scheme="light").evaluate(background) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("of", ["demo", "pressed"])
def test_text_is_readable(opener: Opener, request: pytest.FixtureRequest, of: str, width: int, scheme: Scheme) -> None:
    """No text is smaller than 12 px, runs out of the page or is cut; axe finds nothing wrong, contrast included."""
    page = opener.open(request.getfixturevalue(of), width=width, scheme=scheme)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(TOO_SMALL) == []
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_long_names_do_not_widen_the_page(opener: Opener, tmp_path: Path) -> None:
    """All masks of a kernel, and a name without a line break opportunity, fit a phone's width."""
    rows = [{"gfp_mask": 0x7FFFFF, "comm": "x" * 200, "stack": "f" * 300}]
    page = opener.open(write_page(traces.stream(tmp_path / "t.arrows", *rows)), width=360)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate(TOO_SMALL) == []


def test_page_follows_its_width(opener: Opener, demo: Path) -> None:
    """Charts are redrawn when the window changes."""
    page = opener.open(demo)
    page.set_viewport_size({"width": 400, "height": 800})
    for chart in ("#time svg", ".icicle"):
        width = f"document.querySelector('{chart}').getBoundingClientRect().width"
        page.wait_for_function(f"{width} < 400")
        assert page.evaluate(width) > 0


def test_printed_page_has_no_controls(opener: Opener, demo: Path) -> None:
    """Paper gets the numbers, not the buttons, and is always light."""
    page = opener.open(demo, "#theme=dark")
    color = "getComputedStyle(document.body).color"
    dark = page.evaluate(color)
    page.emulate_media(media="print")
    assert page.evaluate(color) == opener.open(demo).evaluate(color) != dark
    assert not page.locator("#download").is_visible()
    assert not page.locator("#filter-order").is_visible()
    assert page.locator("#tasks table").first.is_visible()
    assert page.pdf().startswith(b"%PDF")


def test_hundred_thousand_rows(opener: Opener, tmp_path: Path) -> None:
    """A page with the maximum of distinct allocations opens and filters in acceptable time."""
    path = write_page(traces.varied(tmp_path / "t.arrows", 100_000))
    began = time.monotonic()
    page = opener.open(path)
    opened = time.monotonic()
    page.locator("#filter-comm").select_option("task-7")
    filtered = time.monotonic()
    assert page.locator("#selected").inner_text().startswith("2,000 of 100,000 allocations")
    assert list(table(page, "Tasks")) == ["task-7"]
    size = path.stat().st_size / 1e6
    print(f"100,000 rows: {size:.1f} MB, opened in {opened - began:.1f} s, filtered in {filtered - opened:.1f} s")


def test_imported_events_that_the_model_cannot_judge(opener: Opener, tmp_path: Path) -> None:
    """No verdict is not a good one, and what is missing is to be recorded with the other tool."""
    text, path = tmp_path / "trace.txt", tmp_path / "t.arrows"
    text.write_text(
        "  cc1-7 [001] ..... 1.5: mm_page_alloc: page=0x1 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL\n"
    )
    assert main(["import", "--kernel", "6.1", "-o", str(path), str(text)]) == 0
    page = opener.open(write_page(path))
    expect(page.locator("#findings .list")).to_have_text("Not known: no allocation could be judged.")
    expect(page.locator("#callers figure")).to_contain_text("Record them with perf record -g")
