# SPDX-License-Identifier: MIT
"""Opens pages in a browser, and records their console output and requests."""

from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, BrowserContext, Page

from kalloctrace.report.page.data import Limits, page_data
from kalloctrace.report.page.document import page_html
from kalloctrace.trace.reader import TraceReader

Scheme = Literal["light", "dark"]


def write_page(trace: Path, page: Path | None = None) -> Path:
    """Write the page of a trace, next to it by default, and return its path."""
    page = page or trace.with_suffix(".html")
    with TraceReader(trace) as reader:
        page.write_text("".join(page_html(page_data(reader, Limits()))), "utf-8")
    return page


class Opener:
    """Opens pages.

    Attributes:
        console: what pages wrote on their consoles, and errors of their scripts.
        requested: addresses that they requested.
        files: addresses of the pages themselves.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self.console: list[str] = []
        self.requested: set[str] = set()
        self.files: set[str] = set()

    def open(self, path: Path, fragment: str = "", *, width: int = 1600, scheme: Scheme = "light") -> Page:
        """Open a page from disk, and wait until it has drawn itself."""
        context = self._browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.console.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.console.append(f"error: {error}"))
        page.on("request", lambda request: self.requested.add(request.url.partition("#")[0]))
        address = path.as_uri()
        self.files.add(address)
        page.goto(address + fragment)
        page.wait_for_selector("html[data-ready]", state="attached")
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()
