# SPDX-License-Identifier: MIT
"""The distribution's Chromium, and pages of traces in it."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import traces
from tests.browser.opened import Opener, write_page

HOSTILE = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>\u2028"


# No longer than its tests: the event loop that it keeps would be in the way of others.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium once; without it the tests are skipped, or fail if they are required."""
    chromium = shutil.which("chromium")
    if chromium is None and os.environ.get("KALLOCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail("no page can be opened: chromium is not installed (apt install chromium)")
    if chromium is None:
        pytest.skip("no page can be opened: chromium is not installed (apt install chromium)")
    # Its sandbox refuses to run as root, and the pages are our own.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def opener(browser: Browser) -> Iterator[Opener]:
    """Return an opener of pages; afterwards, check that no page wrote to its console or requested anything."""
    opener = Opener(browser)
    yield opener
    opener.close()
    assert opener.console == []
    assert opener.requested <= opener.files


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a trace with mismatches, failures, stacks, tasks and a hostile task name."""
    folder = tmp_path_factory.mktemp("demo")
    snapshot, _, row = traces.source()
    entry, start = snapshot.features.entry, row["time"]
    fault = f"asm_exc_page_fault;handle_mm_fault;do_anonymous_page;alloc_pages_vma;{entry}"
    read = f"entry_SYSCALL_64;ksys_read;page_cache_ra_unbounded;alloc_pages;{entry}"
    changes = [
        *({"time": start + i * 1_000_000, "comm": "make", "stack": fault} for i in range(300)),
        *({"time": start + i * 2_000_000, "comm": "cc1", "stack": read, "order": 0} for i in range(100)),
        *(
            {"time": start + 5_000_000, "comm": "cc1", "stack": read, "order": 3, "freelist_order": 3}
            for _ in range(20)
        ),
        *({"time": start + 9_000_000, "comm": "ld", "order": 9, "freelist_order": 9, "page": False} for _ in range(2)),
        {"time": start + 7_000_000, "comm": HOSTILE, "stack": fault, "alloc_flags": 0x1},
    ]
    return write_page(traces.stream(folder / "demo.arrows", *changes, recording={"stacks": True}))


@pytest.fixture(scope="session")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a trace of a machine short of memory: failed and slow calls, a mismatch, a hostile name."""
    folder = tmp_path_factory.mktemp("pressed")
    calls = traces.slow_calls()
    slowest = sorted((call for call in calls if call["page"]), key=lambda call: -call["duration"])[:70]
    failed = [call for call in calls if call["page"] is False][:150]
    odd = failed[0]
    first, *others = odd["attempts"]
    odd = {**odd, "comm": HOSTILE, "attempts": [{**first, "alloc_flags": first["alloc_flags"] ^ 0x800}, *others]}
    return write_page(traces.slow(folder / "pressed.arrows", *slowest, *failed, odd, lost=2))
