# SPDX-License-Identifier: MIT
"""The pages about the terms that `explain` uses: docs/LANGUAGE/terms/NAME.md, also in the wheel."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kalloctrace.console import Console
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.explain.gfp_entry import PAGE, gfp_entry, gfp_flag
from kalloctrace.text import wrap_command

LANGUAGES = ("en", "zh-cn")
_SOURCES = Path(__file__).resolve().parent.parent
_FILLERS = re.compile(r"[-_ ]+")
_LINK = re.compile(r"\[([\w-]+)\]\(\1\.md\)")
"""A link to another page. On a terminal it leads nowhere: the term itself is what `--term` takes."""
_COMMAND = re.compile(r"^[$#] kalloctrace .*$", re.MULTILINE)
_MORE = {"en": "a term's page: kalloctrace explain --term NAME", "zh-cn": "查看术语：kalloctrace explain --term 名称"}


@dataclass(frozen=True, slots=True)
class Term:
    """One page.

    Attributes:
        name: the term; kernel identifiers are spelled as in the kernel.
        language: one of LANGUAGES.
        text: the page, Markdown.
        page: the name of the page that it is an entry of; empty for a page of its own.
    """

    name: str
    language: str
    text: str
    page: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the page as JSON values; "path" is relative to docs/."""
        path = f"{self.language}/terms/{self.page or self.name}.md"
        return {"type": "term", "name": self.name, "language": self.language, "path": path, "text": self.text}

    def write(self, console: Console) -> None:
        """Print the page: as Markdown, rendered on a terminal."""
        if not console.is_terminal:
            console.lines(self.text.splitlines())
            return
        from kalloctrace.styled import sheet_of  # noqa: PLC0415 - only here, and slow to import

        sheet = sheet_of(console)
        # A block has a column free on either side.
        shown = _COMMAND.sub(lambda found: "\n".join(wrap_command(found[0], sheet.width - 2)), self.text)
        sheet.markdown(_LINK.sub(r"\1", shown))
        if _LINK.search(self.text):
            sheet.blank()
            sheet.line(_MORE[self.language], "dim")
        sheet.show()


@cache
def docs_folder() -> Path:
    """Return the folder with the pages of all languages: inside the installed package, or next to it in a checkout."""
    installed = _SOURCES / "_docs"
    return installed if installed.is_dir() else _SOURCES.parent / "docs"


def term_names(language: str = "en") -> tuple[str, ...]:
    """Return the terms that have a page, sorted; "index" lists them in reading order."""
    return tuple(sorted(path.stem for path in (docs_folder() / language / "terms").glob("*.md")))


def read_term(name: str, language: str) -> Term:
    """Return the page about a term.

    Args:
        name: its name, or the beginning of it; case, spaces, - and _ do not matter. A gfp flag has an entry of its own;
            of its name only the case does not matter.
        language: one of LANGUAGES.

    Raises:
        KalloctraceError: there is no such page (exit code 2).
    """
    flag = gfp_flag(name)
    if flag is not None:
        return Term(flag, language, gfp_entry(flag, language, _read(PAGE, language)), PAGE)
    names = {_plain(name): name for name in term_names(language)}
    plain = _plain(name)
    matching = [plain] if plain in names else [name for name in names if plain and name.startswith(plain)]
    if len(matching) != 1:
        near = matching or difflib.get_close_matches(plain, names, n=3)
        listed = ", ".join(names[name] for name in near)
        raise KalloctraceError(
            f"no page about {name!r}",
            f"there are pages about {listed}" if listed else "no term has this name",
            "use one of these" if listed else "list all terms: kalloctrace explain --term index",
            Exit.USAGE,
        )
    term = names[matching[0]]
    return Term(term, language, _read(term, language))


def _read(term: str, language: str) -> str:
    return (docs_folder() / language / "terms" / f"{term}.md").read_text(encoding="utf-8")


def language_of(environment: Mapping[str, str]) -> str:
    """Return the language of LANGUAGES that the locale's variables select."""
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(name))), "")
    return "zh-cn" if locale.lower().startswith("zh") else "en"


def _plain(name: str) -> str:
    return _FILLERS.sub("", name).lower()
