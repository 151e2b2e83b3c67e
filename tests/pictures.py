# SPDX-License-Identifier: MIT
"""Draws the README's pictures from fixtures, into docs/pictures: `make pictures`."""

import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from kalloctrace.live.tui import LiveApp
from kalloctrace.live.view import View
from kalloctrace.signals import Ending
from kalloctrace.trace.replay import Replay
from tests import played
from tests.browser.opened import write_page

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs/pictures"
FAILURES, LIVE = ROOT / "fixtures/7.3/slow.arrows", ROOT / "fixtures/5.10/two-nodes.arrows"
_SIZE = (100, 22)


class _Stepped(Replay):
    """A replay whose time advances only on demand."""

    def drain(self) -> None:
        """Do not advance the time."""


def page_of_failures(folder: Path) -> Path:
    """Write the page about a run with failures."""
    return write_page(FAILURES, folder / "page.html")


def screen_of_live(folder: Path) -> Path:
    """Write the live screen, nine seconds into a recording, as an image of vectors."""
    with _Stepped(LIVE, played.Clock()) as replay:
        app = LiveApp(replay, View(replay.snapshot, "request"), Ending(), interval=10, replayed=LIVE.name)

        async def session() -> str:
            async with app.run_test(size=_SIZE) as pilot:
                for seconds in (8.0, 1.0):
                    await pilot.pause()
                    replay.advance(seconds)
                    app.tick()
                await pilot.pause()
                return app.export_screenshot(title="kalloctrace live")

        drawn = asyncio.run(session())
    image = folder / "live.svg"
    # Without the fonts that Rich links to.
    image.write_text(re.sub(r"@font-face \{.*?\n    \}", "", drawn, flags=re.DOTALL), encoding="utf-8")
    return image


def main() -> None:
    """Draw both."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("pictures: chromium is missing: apt install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # Before the browser starts an event loop of its own.
        files = page_of_failures(Path(folder)), screen_of_live(Path(folder))
        _photograph(chromium, files)


def _photograph(chromium: str, files: tuple[Path, ...]) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for file in files:
            view = browser.new_page(viewport={"width": 1100, "height": 560})
            view.goto(file.as_uri())
            if file.suffix == ".html":
                view.wait_for_selector("html[data-ready]", state="attached")
                view.locator("#filters details").evaluate("details => { details.open = false }")
            view.screenshot(path=PICTURES / f"{file.stem}.png")
        browser.close()


if __name__ == "__main__":
    main()
