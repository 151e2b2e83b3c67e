# SPDX-License-Identifier: MIT
"""The documentation site, built as `make docs` builds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kalloctrace.explain.glossary import LANGUAGES, term_names

DOCS = Path(__file__).parents[2] / "docs"


OPTIONS = ["-q", "-W", "--keep-going", "-n"]


def build(language: str, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build one language, a warning being an error."""
    options = [*OPTIONS, "-c", str(DOCS), "-d", str(out / "doctrees")]
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(source), str(out / "html")],
        env={**os.environ, "KALLOCTRACE_DOCS": language},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_builds_without_a_warning(language: str, tmp_path: Path) -> None:
    """Each language builds in silence, has a page a term, and leads to the other language's page."""
    done = build(language, DOCS / language, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    html = tmp_path / "html"
    assert {path.stem for path in (html / "terms").glob("*.html")} == set(term_names(language))
    (other,) = set(LANGUAGES) - {language}
    page = (html / "terms/ALLOC_CPUSET.html").read_text(encoding="utf-8")
    assert f'href="../../{other}/terms/ALLOC_CPUSET.html"' in page


def test_a_broken_link_is_an_error(tmp_path: Path) -> None:
    """A page that leads nowhere does not build."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "index.md").write_text("# Title\n\n[nowhere](nowhere.md)\n")
    done = build("en", source, tmp_path / "out")
    assert done.returncode != 0
    assert "nowhere" in done.stderr


def test_make_docs_builds_it_likewise() -> None:
    """`make docs` builds every language with the same options."""
    done = subprocess.run(
        ["make", "--dry-run", "docs"], cwd=DOCS.parent, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"sphinx-build {' '.join(OPTIONS)} -c docs" in done.stdout
    assert f"for language in {' '.join(LANGUAGES)};" in done.stdout


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_pages_beside_the_languages_are_in_the_site(path: Path) -> None:
    """A page of docs/ itself, in one language only, is included by a page of each language."""
    for language in LANGUAGES:
        assert f"{{include}} ../{path.name}" in (DOCS / language / path.name).read_text(encoding="utf-8")
        assert path.stem in (DOCS / language / "index.md").read_text(encoding="utf-8")
