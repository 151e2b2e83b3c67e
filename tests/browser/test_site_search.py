# SPDX-License-Identifier: MIT
"""The search of the documentation site, in both languages, as a person uses it."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from tests.cli.test_site import DOCS, build

pytestmark = pytest.mark.timeout(900)
"""The first test builds the site, which takes minutes on a busy machine."""

_MS = 60_000


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Build both languages and serve them: a search reads its index by a request, which file: URLs refuse."""
    root = tmp_path_factory.mktemp("site")
    for language in ("en", "zh-cn"):
        done = build(language, DOCS / language, root / language)
        assert done.returncode == 0, done.stderr
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=root))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("language", "query", "page"),
    [
        ("en", "pageblock_order", "terms/ALLOC_NOFRAGMENT.html"),
        ("en", "fragmentation", "terms/fragmentation-avoidance.html"),
        ("zh-cn", "迁移类型", "terms/migratetype.html"),
        ("zh-cn", "水位线", "terms/watermarks.html"),
        ("zh-cn", "页块", "terms/ALLOC_NOFRAGMENT.html"),
        ("zh-cn", "cpuset 节点掩码", "terms/nodemask.html"),
        ("zh-cn", "prepare_alloc_pages", "terms/alloc_context.html"),
    ],
)
def test_a_search_finds_the_page(browser: Browser, site: str, language: str, query: str, page: str) -> None:
    """The page is among the results, and nothing went wrong on the way."""
    tab = browser.new_page()
    errors: list[str] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"{site}/{language}/html/search.html?q={quote(query)}", timeout=_MS)
    tab.wait_for_selector(f"#search-results a[href*='{page}']", timeout=_MS)
    tab.close()
    assert errors == []


def test_a_word_that_is_nowhere_finds_nothing(browser: Browser, site: str) -> None:
    """Pairs of characters are all required, so unrelated text is no result."""
    tab = browser.new_page()
    tab.goto(f"{site}/zh-cn/html/search.html?q={quote('熊猫吃竹子')}", timeout=_MS)
    tab.wait_for_function("document.querySelector('.search-summary')?.innerText", timeout=_MS)
    assert tab.query_selector_all("#search-results a") == []
    tab.close()


def test_terms_are_listed_in_the_order_to_learn_them(browser: Browser, site: str) -> None:
    """The side bar has the order of the index of terms, which begins with the order and ends with the reserves."""
    index = (DOCS / "en/terms/index.md").read_text(encoding="utf-8")
    tab = browser.new_page()
    tab.goto(f"{site}/en/html/index.html", timeout=_MS)
    links = tab.eval_on_selector_all(".sidebar-tree a[href^='terms/']", "all => all.map(a => a.getAttribute('href'))")
    tab.close()
    names = [Path(link).stem for link in links if "index" not in link]
    assert len(names) > 30
    places = [index.index(f"]({name}.md)") for name in names]
    assert places == sorted(places)
