# SPDX-License-Identifier: MIT
"""What the site's pages cannot hold themselves: the options, the order of the terms, and the Chinese search."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.search import SearchLanguage

from kalloctrace.cli import cli
from kalloctrace.options_reference import options_reference

_OPTIONS = "@options@"
_TERMS = "@terms@"
_LINK = re.compile(r"^- .*", re.MULTILINE)
_PAGE = re.compile(r"\]\(([^)]+)\.md\)")
_HAN = "\u3400-\u9fff\uf900-\ufaff"


class Chinese(SearchLanguage):
    """Chinese text in pairs of characters, which need no dictionary.

    Sphinx's own class for Chinese splits nothing where jieba is missing, and Sphinx 9 gives its page a stemmer that
    does not exist (`window.Stemmer = ChineseStemmer`), so that every search ends in an error.
    """

    lang = "zh"
    language_name = "Chinese"
    js_splitter_code = """
function splitQuery(query) {
  const words = [];
  for (const run of query.match(/[\\u3400-\\u9fff\\uf900-\\ufaff]+|[a-zA-Z0-9_]+/g) || []) {
    if (run.length < 3 || !/^[\\u3400-\\u9fff\\uf900-\\ufaff]/.test(run)) words.push(run);
    else for (let at = 0; at + 1 < run.length; at++) words.push(run.slice(at, at + 2));
  }
  return words;
}
"""
    _runs = re.compile(rf"[{_HAN}]+|[a-zA-Z0-9_]+")
    _first = re.compile(rf"[{_HAN}]")

    def split(self, input: str) -> list[str]:  # noqa: A002  (Sphinx's name)
        """Return the words of a text: those in Latin letters, and single Chinese characters and pairs of them."""
        words: list[str] = []
        for run in self._runs.findall(input):
            if self._first.match(run) is None:
                words.append(run)
            else:
                words += [*run, *(run[at : at + 2] for at in range(len(run) - 1))]
        return words

    def stem(self, word: str) -> str:
        """Return the word in lower case, as the page compares it."""
        return word.lower()


def terms_in_order(index: Path) -> list[str]:
    """Return the pages about terms in the order of their index, which is the one to learn them in."""
    lines = _LINK.findall(index.read_text(encoding="utf-8"))
    return list(dict.fromkeys(page for line in lines for page in _PAGE.findall(line)))


def _fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put into a page what is generated."""
    if docname == "options":
        source[0] = source[0].replace(_OPTIONS, options_reference(cli, "kalloctrace"))
    if docname == "index" and _TERMS in source[0]:
        pages = terms_in_order(Path(app.srcdir) / "terms" / "index.md")
        source[0] = source[0].replace(_TERMS, "\n".join(f"terms/{page}" for page in pages))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything."""
    app.add_search_language(Chinese)
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
