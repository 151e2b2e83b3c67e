# SPDX-License-Identifier: MIT
"""The pages of the `fleet` commands; the fixture `opener` checks that they are silent and request nothing."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from kalloctrace.cli import main
from tests.bench.fleet_data import AFTER, BEFORE, OUTLIER, SMALL, Fleet, make_fleet
from tests.browser.conftest import HOSTILE
from tests.browser.opened import Opener, Scheme
from tests.fleets import add
from tests.traces import slow, slow_calls, stream

INJECTED = Fleet(hosts=30, requests=40, slow=100, calls=20_000, outlier=0.6, regression=1.5, fixture=SMALL)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages of a fleet with hostile names, a mismatch, failures and slow calls."""
    folder = tmp_path_factory.mktemp("fleet")
    name = HOSTILE[:15]
    wrong: list[dict[str, Any]] = [
        {"migratetype": 99, "comm": name},
        {"comm": name, "page": False},
        {"cpusets_enabled": -1},
    ]
    add(
        folder / "fleet",
        stream(folder / "one.arrows", *wrong, recording={"id": "1", "host": HOSTILE}),
        slow(folder / "slow.arrows", *({**call, "comm": name} for call in slow_calls()[:5])),
    )
    made = {}
    for command, code in (("verify", 3), ("report", 0)):
        made[command] = folder / f"{command}.html"
        assert main(["fleet", command, "--html", str(made[command]), str(folder / "fleet")]) == code
    make_fleet(folder / "compared", INJECTED)
    for command, words in (("diff", ("--kernel", BEFORE, "--kernel", AFTER)), ("outliers", ())):
        made[command] = folder / f"{command}.html"
        assert main(["fleet", command, *words, "--html", str(made[command]), str(folder / "compared")]) == 0
    return made


def test_what_changed_and_which_host_is_unlike_its_peers(opener: Opener, pages: dict[str, Path]) -> None:
    """Shares in percent, times in milliseconds, and their ratio."""
    page = opener.open(pages["diff"])
    _, times = page.locator("#tables section").all()
    cells = times.locator("tbody tr", has_text="typical_ns").first.locator("th, td").all_inner_texts()
    before, after, ratio = (float(text.replace(",", "")) for text in cells[2:5])
    assert 1.3 < ratio < 1.7
    assert abs(after / before - ratio) < 0.1
    page = opener.open(pages["outliers"])
    shares, _ = page.locator("#tables section").all()
    assert OUTLIER in shares.inner_text()
    assert page.locator("#headline .doubt").count() == 1


def test_what_differs_is_shown(opener: Opener, pages: dict[str, Path]) -> None:
    """The verdict, its numbers, and each difference with its host; foreign names are text."""
    page = opener.open(pages["verify"])
    assert page.locator("#headline .bad").inner_text().startswith("MISMATCH: 1 of 4 calls")
    assert page.locator("#numbers dt", has_text="mismatched").count() == 1
    differing, unknown = page.locator("#tables section").all()
    assert "gfp_migratetype" in differing.inner_text()
    assert HOSTILE[:24] in differing.inner_text()
    assert "cpusets were being switched on" in unknown.inner_text()
    assert page.evaluate("window.broken") is None
    assert page.locator("main img, main script").count() == 0


def test_tables_are_sorted_by_a_heading(opener: Opener, pages: dict[str, Path]) -> None:
    """The most time is first; a click on the heading turns it round."""
    page = opener.open(pages["report"])
    assert page.locator("#headline .bad").count() == 1
    stalls = page.locator("#tables section").nth(1)
    first = stalls.locator("tbody th").all_inner_texts()
    stalls.locator(".sort").first.click()
    assert stalls.locator("tbody th").all_inner_texts() == first[::-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("name", ["verify", "report", "diff", "outliers"])
def test_page_is_readable(opener: Opener, pages: dict[str, Path], name: str, width: int, scheme: Scheme) -> None:
    """It fits a phone; axe finds nothing wrong, contrast included."""
    page = opener.open(pages[name], width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
