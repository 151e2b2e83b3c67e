# SPDX-License-Identifier: MIT
"""The first ten clicks of a person on the page of `report --html`, with the mouse, in a window of a common size.

Each leaves a screenshot in the test's temporary folder: `pytest tests/browser/test_clicks.py --basetemp=/tmp/clicks`.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.opened import Opener

LAPTOP = 1280
NONSENSE = re.compile(r"NaN|undefined|Infinity|\[object")


class Click(NamedTuple):
    """A click, and what it must show.

    Attributes:
        page: the fixture of the page.
        target: returns what is clicked.
        shows: checks what is shown afterwards.
        fragment: the state in which the page is opened.
    """

    page: str
    target: Callable[[Page], Locator]
    shows: Callable[[Page], None]
    fragment: str = ""


def selected(text: str) -> Callable[[Page], None]:
    """Return a check of how many calls pass the filters."""
    return lambda page: expect(page.locator("#selected")).to_have_text(re.compile(f"^{text} allocations"))


def by_calls(page: Page) -> None:
    """Failed calls have no pages, so they are drawn by their number."""
    selected("2 of 423")(page)
    expect(page.locator("#choice-weight")).to_have_value("allocations")
    assert page.locator("#tasks table", has_text="Tasks").locator("tbody tr").count() == 1


def zoomed(page: Page) -> None:
    """The frame fills the width, and a breadcrumb leads back."""
    expect(page.locator(".crumbs button", has_text="all calls")).to_be_visible()
    expect(page.locator(".icicle g").first).to_contain_text("ksys_read")


def below_the_filters(page: Page) -> None:
    """The heading can be seen."""
    heading = page.locator("section > h2", has_text="Over time").bounding_box()
    filters = page.locator("#filters").bounding_box()
    assert heading is not None
    assert filters is not None
    assert filters["y"] + filters["height"] <= heading["y"] < 800


def with_steps(page: Page) -> None:
    """Each step of the preparation has its rule."""
    expect(page.locator("#requests details[open] .steps li").first).to_be_visible()


def with_zones(page: Page) -> None:
    """The zones of the call, with a reason for each."""
    expect(page.locator("#slowpath details[open] .zones").first).to_be_visible()


def light(page: Page) -> None:
    """The page is light."""
    expect(page.locator("#theme")).to_have_text("Theme: light")


CLICKS = {
    "failed": Click("demo", lambda page: page.locator("button.pick", has_text=re.compile("^failed$")), by_calls),
    "a task": Click("demo", lambda page: page.locator("#tasks button", has_text="cc1"), selected("120 of 423")),
    "the same task again": Click(
        "demo", lambda page: page.locator("#tasks button", has_text="cc1"), selected("All 423"), "#comm=cc1"
    ),
    "remove a filter": Click(
        "demo", lambda page: page.locator("button.chip", has_text="cc1"), selected("20 of 423"), "#comm=cc1&order=3"
    ),
    "reset": Click("demo", lambda page: page.locator("#reset"), selected("All 423"), "#comm=cc1&order=3"),
    "a caller": Click("demo", lambda page: page.locator(".icicle g", has_text="ksys_read").first, zoomed),
    "a link to a section": Click("demo", lambda page: page.locator("nav a", has_text="Over time"), below_the_filters),
    "a request": Click("demo", lambda page: page.locator("#requests summary").first, with_steps),
    "a call of the slow path": Click("pressed", lambda page: page.locator("#slowpath ol summary").first, with_zones),
    "the theme": Click("demo", lambda page: page.locator("#theme"), light),
}


@pytest.mark.parametrize("name", CLICKS)
def test_click_shows_what_a_person_expects(
    opener: Opener, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """Nothing lies above what is clicked, and no text on the page is nonsense afterwards."""
    click = CLICKS[name]
    page = opener.open(request.getfixturevalue(click.page), click.fragment, width=LAPTOP, scheme="dark")
    click.target(page).click()
    click.shows(page)
    assert not NONSENSE.search(page.locator("body").inner_text())
    page.screenshot(path=tmp_path / f"{name.replace(' ', '-')}.png")
