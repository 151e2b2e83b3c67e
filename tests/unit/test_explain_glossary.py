# SPDX-License-Identifier: MIT
"""The pages about the terms, held against the tables that kalloctrace itself uses."""

import json
import re
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.explain.glossary import LANGUAGES, docs_folder, language_of, read_term, term_names
from kalloctrace.explain.request import BadRequestError, WhatIf
from kalloctrace.explain.rules import RULES
from kalloctrace.explain.walkthrough import walkthrough_of
from kalloctrace.flags import rows
from kalloctrace.flags.builtin import builtin_kernels, builtin_tables
from kalloctrace.flags.meanings import meaning
from kalloctrace.flags.releases import Release, parse_release

# What BTF says of `struct alloc_context` in Debian's kernels: its size, and the offset of each member.
LAYOUTS = json.loads((Path(__file__).parent / "data/alloc_context.json").read_text(encoding="ascii"))
ALLOC_NAMES = {row.name for row in rows.ALLOC}
MEMBERS = {member for layout in LAYOUTS.values() for member in layout["members"]}
SECTIONS = {"en": 6, "zh-cn": 6}
_LINK = re.compile(r"\]\(([^)]+)\)")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CHINESE = re.compile(r"[\u4e00-\u9fff]")


def page(name: str, language: str) -> str:
    """Return a page's text."""
    return read_term(name, language).text


def table(text: str) -> list[list[str]]:
    """Return the cells of a page's table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines[2:]]


def since(text: str) -> Release:
    """Read a table's release: a first one has no patch level, unless it is a stable release."""
    release = parse_release(text)
    assert release is not None
    return release if text.count(".") > 1 else Release(release.major, release.minor, 0)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", sorted(ALLOC_NAMES))
def test_each_flag_has_its_page_with_its_values(name: str, language: str) -> None:
    """Every ALLOC_* name of the tables has a page, whose releases and values are those of the tables."""
    cells = table(page(name, language))
    listed = [(since(first), since(last) if last else None, int(value, 16)) for first, last, value, _ in cells]
    known = [row for row in rows.ALLOC if row.name == name]
    last_release = max(row.until for row in rows.ALLOC)
    assert listed == [(row.since, None if row.until == last_release else row.until, row.value) for row in known]
    assert [source for *_, source in cells if source] == [
        row.source or "mm/internal.h, mm/page_alloc.h" for row in known
    ]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("member", sorted(MEMBERS))
def test_each_member_has_its_page_with_its_offset(member: str, language: str) -> None:
    """Every member of struct alloc_context in BTF has a page, with its offset and its first release."""
    ((first, _, offset, _),) = table(page(member, language))
    having = {kernel for kernel, layout in LAYOUTS.items() if member in layout["members"]}
    assert {LAYOUTS[kernel]["members"][member] for kernel in having} == {int(offset)}
    releases = {kernel: parse_release(kernel) for kernel in LAYOUTS}
    assert having == {kernel for kernel, release in releases.items() if release is not None and release >= since(first)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_structure_has_its_sizes(language: str) -> None:
    """The page about alloc_context names both sizes that BTF shows."""
    sizes = {layout["size"] for layout in LAYOUTS.values()}
    assert sizes == {40, 48}
    assert all(str(size) in page("alloc_context", language) for size in sizes)


def test_both_languages_have_the_same_pages() -> None:
    """No page is in one language only."""
    assert term_names("en") == term_names("zh-cn")
    assert set(term_names("en")) > ALLOC_NAMES | MEMBERS


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [name for name in term_names() if name != "index"])
def test_a_page_is_whole(name: str, language: str) -> None:
    """Each page has its title, all its sections, commands, sources and links that lead somewhere."""
    text = page(name, language)
    assert text.startswith(f"# {name}\n")
    assert text.count("\n## ") >= SECTIONS[language]
    assert "\n```console\n$ kalloctrace " in text
    assert {Path(link).stem for link in _LINK.findall(text)} <= set(term_names(language))
    paragraphs = [line for line in _CODE.sub("", text).splitlines() if line and line[0] not in "#|-["]
    assert len(paragraphs) >= 4
    # A translation, not a copy.
    assert all(bool(_CHINESE.search(line)) == (language == "zh-cn") for line in paragraphs)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_index_leads_to_every_page(language: str) -> None:
    """The reading order lists each term once."""
    links = [Path(link).stem for link in _LINK.findall(page("index", language))]
    assert sorted(links) == sorted(set(term_names(language)) - {"index"})


@pytest.mark.parametrize("kernel", builtin_kernels())
@pytest.mark.parametrize("entry", ["normal", "nolock"])
def test_what_explain_says_has_a_page(kernel: str, entry: str) -> None:
    """Every term that a walkthrough names, and every one that a rule names, has its page."""
    try:
        answer = WhatIf().answer({"kernel": kernel, "gfp": 0x1CCA, "order": 0, "entry": entry})
    except BadRequestError:
        assert entry == "nolock"
        return
    assert set(walkthrough_of(answer).terms) <= set(term_names())
    assert {term for rule in RULES.values() for term in rule.terms} <= set(term_names())


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("alloc_cpuset", "ALLOC_CPUSET"),
        ("preferred zone", "preferred_zoneref"),
        ("ALLOC_HIGH", "ALLOC_HIGH"),
        ("GFP zone modifiers", "gfp-zone-modifiers"),
    ],
)
def test_terms_are_found_as_people_write_them(word: str, name: str) -> None:
    """Case and fillers do not matter, and the beginning of a name will do."""
    assert read_term(word, "en").name == name


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_gfp_flag_has_an_entry(language: str) -> None:
    """The page lists every name that a kernel of the tables has, in English with the meaning that `decode` prints."""
    names = {name for kernel in builtin_kernels() for name, _ in _gfp_names(kernel)}
    listed = {cells[0]: cells[1] for cells in table(page("gfp-flags", language)) if len(cells) == 2}
    listed.pop("bit" if language == "en" else "位", None)
    listed = {name: about for name, about in listed.items() if "GFP" in name}
    assert set(listed) == names
    for name in names:
        assert bool(_CHINESE.search(listed[name])) == (language == "zh-cn")
        assert language != "en" or listed[name] == meaning(name)
        entry = read_term(name, language)
        assert (entry.name, entry.to_json()["path"]) == (name, f"{language}/terms/gfp-flags.md")
        assert entry.text.startswith(f"# {name}\n\n{listed[name]}\n")


def _gfp_names(kernel: str) -> list[tuple[str, int]]:
    tables = builtin_tables(kernel)
    return [*tables.gfp_print, *tables.gfp_bits]


def test_an_entry_has_the_values_of_all_kernels() -> None:
    """GFP_ATOMIC lost __GFP_ATOMIC in 6.3, or Debian's 6.1: mm: discard __GFP_ATOMIC."""
    (before, value, bits), *later = table(read_term("gfp_atomic", "en").text)
    assert (before[:4], int(value, 16)) == ("5.10", 0xA20)
    assert bits == "__GFP_HIGH, __GFP_ATOMIC, __GFP_KSWAPD_RECLAIM"
    assert {(int(value, 16), bits) for _, value, bits in later} == {(0x820, "__GFP_HIGH, __GFP_KSWAPD_RECLAIM")}


@pytest.mark.parametrize("word", ["prepare_alloc_pages", "pageblock", "GFP_KERNEL", "__GFP_IO", "__gfp_dma", "GFP_DMA"])
def test_what_people_look_up(word: str) -> None:
    """It has a page or an entry under its own name."""
    assert read_term(word, "en").name.lower() == word.lower()


@pytest.mark.parametrize(("word", "part"), [("ALLOC_CPUSETS", "ALLOC_CPUSET"), ("xyz", "--term index"), ("", "index")])
def test_unknown_term(word: str, part: str) -> None:
    """A term without a page is refused, with what is near."""
    with pytest.raises(KalloctraceError) as caught:
        read_term(word, "en")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh-cn"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LC_MESSAGES": "zh_CN", "LANG": "de_DE"}, "zh-cn"),
        ({}, "en"),
    ],
)
def test_the_locale_chooses_the_language(environment: dict[str, str], language: str) -> None:
    """LC_ALL comes before LC_MESSAGES, and that before LANG."""
    assert language_of(environment) == language


def test_the_pages_are_in_the_checkout() -> None:
    """A checkout reads its own docs/."""
    assert docs_folder() == Path(__file__).parents[2] / "docs"
