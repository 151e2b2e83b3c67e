# SPDX-License-Identifier: MIT
"""The pages about the words that `explain` uses: docs/LANGUAGE/terms/NAME.md, which the wheel carries too."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from kalloctrace.errors import Exit, KalloctraceError

LANGUAGES = ("en", "zh-cn")
_SOURCES = Path(__file__).resolve().parent.parent
_FILLERS = re.compile(r"[-_ ]+")


@dataclass(frozen=True, slots=True)
class Term:
    """One page.

    Attributes:
        name: the term, as the kernel writes it where it is a name of the kernel's.
        language: one of LANGUAGES.
        text: the page, Markdown.
    """

    name: str
    language: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the page as JSON values; "path" is relative to docs/."""
        path = f"{self.language}/terms/{self.name}.md"
        return {"type": "term", "name": self.name, "language": self.language, "path": path, "text": self.text}

    def write(self, stream: TextIO) -> None:
        """Write the page: as it is, and on a terminal as it is meant to look."""
        if not stream.isatty():
            stream.write(self.text)
            return
        from rich.console import Console  # noqa: PLC0415 - only here, and it takes its time
        from rich.markdown import Markdown  # noqa: PLC0415

        Console(file=stream).print(Markdown(self.text, hyperlinks=False))


@cache
def docs_folder() -> Path:
    """Return the folder with the pages of all languages: inside the installed package, or beside it in a checkout."""
    installed = _SOURCES / "_docs"
    return installed if installed.is_dir() else _SOURCES.parent / "docs"


def term_names(language: str = "en") -> tuple[str, ...]:
    """Return the terms that have a page, sorted; "index" is the order to learn them in."""
    return tuple(sorted(path.stem for path in (docs_folder() / language / "terms").glob("*.md")))


def read_term(wanted: str, language: str) -> Term:
    """Return the page about a term.

    Args:
        wanted: its name, or the beginning of it; case, spaces, - and _ do not matter.
        language: one of LANGUAGES.

    Raises:
        KalloctraceError: there is no such page (exit code 2).
    """
    names = {_plain(name): name for name in term_names(language)}
    plain = _plain(wanted)
    matching = [plain] if plain in names else [name for name in names if plain and name.startswith(plain)]
    if len(matching) != 1:
        near = matching or difflib.get_close_matches(plain, names, n=3)
        listed = ", ".join(names[name] for name in near)
        raise KalloctraceError(
            f"no page about {wanted!r}",
            f"there are pages about {listed}" if listed else "no term is called so",
            "name one of these" if listed else "all of them: kalloctrace explain --term index",
            Exit.USAGE,
        )
    name = names[matching[0]]
    path = docs_folder() / language / "terms" / f"{name}.md"
    return Term(name, language, path.read_text(encoding="utf-8"))


def language_of(environment: Mapping[str, str]) -> str:
    """Return the language that the locale's variables ask for, of those that there are."""
    locale = next((value for name in ("LC_ALL", "LC_MESSAGES", "LANG") if (value := environment.get(name))), "")
    return "zh-cn" if locale.lower().startswith("zh") else "en"


def _plain(name: str) -> str:
    return _FILLERS.sub("", name).lower()
