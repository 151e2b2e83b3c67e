# SPDX-License-Identifier: MIT
"""The page of `explain --html` as people use it; the fixture `opener` checks that it is silent and requests nothing."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from kalloctrace.diagnose.alike import group_alike
from kalloctrace.diagnose.from_log import explain_failure
from kalloctrace.diagnose.reports.model import Task
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import read_messages
from kalloctrace.report.page.document import logs_html
from kalloctrace.report.page.logs import LogsPage, page_group
from tests.browser.conftest import HOSTILE
from tests.browser.opened import Opener, Scheme

DATA = Path(__file__).parents[1] / "unit" / "data" / "failures"
TASKS = 60


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of three logs; the OOM report of one has tasks, one with a hostile name."""
    page = LogsPage()
    for name in ("made-two-nodes.log", "6.19-boosted.log", "5.10-oom.log"):
        reports = list(find_failures(read_messages((DATA / name).read_text().split("\n") * 2)))
        for report in reports:
            report.host, report.comm = HOSTILE, HOSTILE
            if report.event == "oom":
                report.tasks = [
                    Task(i, i, 0, i * 7919 % 997, i, None, i, HOSTILE if i == 2 else f"task{i}", i)
                    for i in range(TASKS)
                ]
        page.add([page_group(group, f"{HOSTILE}/{name}") for group in group_alike(reports, explain_failure).groups])
    path = tmp_path_factory.mktemp("logs") / "logs.html"
    path.write_text("".join(logs_html(page.to_json(3))), "utf-8")
    return path


def open_all(page: Page) -> None:
    """Expand every group."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    page.wait_for_function("[...document.querySelectorAll('details')].every((one) => one.children.length > 1)")


def column(page: Page, number: int) -> list[str]:
    """Return a column of the tasks."""
    return page.locator(f".bounded tbody tr > :nth-child({number})").all_inner_texts()


def test_zones_are_drawn_against_watermarks(opener: Opener, logs: Path) -> None:
    """Each zone has a bar with three watermarks, and if it was tried a line that the free memory did not reach."""
    page = opener.open(logs)
    open_all(page)
    bars = page.locator(".zone svg")
    assert bars.count() == page.locator(".zone .numbers").count() == 11
    assert page.locator(".zone line.mark").count() == 3 * bars.count()
    for zone in page.locator(".zone.watermark").all():
        needed = float(zone.locator("line.needed").get_attribute("x1") or "nan")
        usable = zone.locator("rect.usable")
        assert float(usable.get_attribute("x") or 0) + float(usable.get_attribute("width") or 0) <= needed + 1
    assert page.locator(".zone.excluded line.needed").count() == 0
    assert "41,572 usable" in page.locator(".zone .numbers").all_inner_texts()[1]


def test_tasks_are_sorted_by_a_heading(opener: Opener, logs: Path) -> None:
    """The largest is first; a click on a heading sorts by it, another click the other way."""
    page = opener.open(logs)
    open_all(page)
    resident = [int(text.replace(",", "")) for text in column(page, 3)]
    assert resident == sorted((i * 7919 % 997 * 4 for i in range(TASKS)), reverse=True)
    page.locator(".bounded .sort", has_text="pid").click()
    assert [int(text) for text in column(page, 1)] == list(range(TASKS - 1, -1, -1))
    page.locator(".bounded .sort", has_text="pid").click()
    assert [int(text) for text in column(page, 1)] == list(range(TASKS))
    assert page.locator(".bounded th[aria-sort=ascending]").inner_text().startswith("pid")
    # A column without any number is left out.
    assert page.locator(".bounded .sort", has_text="swapped").count() == 0


def test_foreign_text_is_text(opener: Opener, logs: Path) -> None:
    """Names of tasks and logs are shown as they are, and run nothing."""
    page = opener.open(logs)
    open_all(page)
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script").count() == 0
    assert any(text.startswith("</script><script>window.broken") for text in column(page, 2))


def test_alike_failures_are_counted(opener: Opener, logs: Path) -> None:
    """The table has each kind with its number; a group names its lines."""
    page = opener.open(logs)
    assert page.locator("#kernel").inner_text().startswith("8 failures in 3 logs; Linux 7.3.4+deb13-amd64")
    assert page.locator("#kinds tbody th").all_inner_texts() == ["2"] * 4
    open_all(page)
    assert page.locator("dt", has_text="harmful?").count() == 4
    assert "2 failures in lines 2 to " in page.locator("#failures").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_page_is_readable(opener: Opener, logs: Path, width: int, scheme: Scheme) -> None:
    """It fits a phone; axe finds nothing wrong, contrast included."""
    page = opener.open(logs, width=width, scheme=scheme)
    open_all(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
