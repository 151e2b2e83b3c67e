# SPDX-License-Identifier: MIT
"""The objects that scripts read: each member, and where its value comes from."""

from array import array
from typing import Any

import pytest

from kalloctrace.diagnose.alike import Alike, Moment, alike_json, caller_name, constraint, group_alike
from kalloctrace.diagnose.answers.answers import Answers, answer
from kalloctrace.diagnose.answers.text import answer_rows, caller_words
from kalloctrace.diagnose.answers.to_json import answers_json
from kalloctrace.diagnose.answers.types import Advice, Caller, Harm, Holder, KnownBug, OutOfMemory, Statement
from kalloctrace.diagnose.from_log import explain_failure
from kalloctrace.diagnose.given import Given
from kalloctrace.diagnose.reports.model import Blocks, Frame, LoggedFailure, LoggedZone
from kalloctrace.diagnose.sentences import headline, remedy_sentence, zone_sentence
from kalloctrace.diagnose.to_json import failure_json
from tests.diagnosed import judged, pages, zone

LOW = zone(100, (pages(100, "UNMOVABLE"),))
TRACE: dict[str, Any] = {"trace": (Frame("tcp_sendmsg", None, reliable=True),), "trace_lines": (9,)}


def test_a_failure() -> None:
    """Amounts are kB; what is not known is null."""
    failure = judged(LOW, nodemask="0", mems_allowed="0-1", gfp=0xDC0, line=7, contradictions=["x"], **TRACE)
    assert failure.why is not None
    made = failure_json(failure)
    [verdict] = failure.why.zones
    expected = {
        "type": "failure",
        "line": 7,
        "event": "failure",
        "comm": "task",
        "kernel": "6.1.100-amd64",
        "rules": True,
        "order": 0,
        "gfp": 0xDC0,
        "gfp_text": "GFP_KERNEL|__GFP_ZERO",
        "nodemask": "0",
        "mems_allowed": "0-1",
        "highest_zone": "Normal",
        "alloc_flags": 0x840,
        "conclusion": "watermark",
        "certainty": "unknown",
        "summary": headline(failure),
        "order_shown": True,
        "findings": made["findings"],
        "zones": [
            {
                "node": 0,
                "zone": "Normal",
                "verdict": "watermark",
                "excluded_by": None,
                "certainty": "certain",
                "unless": [],
                "passes_if": made["zones"][0]["passes_if"],
                "why": zone_sentence(failure, verdict),
                "free_kb": 400,
                "min_kb": 2780,
                "boost_kb": 0,
                "lowmem_reserve": [0, 0, 0, 0, 0],
                "free_blocks": [100],
            }
        ],
        "remedies": [
            {
                "change": remedy.change,
                "node": 0,
                "zone": "Normal",
                "value": remedy.value,
                "text": remedy_sentence(failure, remedy),
            }
            for remedy in failure.why.remedies
        ],
        "missing": [],
        "contradictions": ["x"],
        **answers_json(answer(failure)),
    }
    assert made == expected
    assert {remedy["change"] for remedy in made["remedies"]} == {"gfp_memalloc", "min_free_kbytes"}
    assert [finding["kind"] for finding in made["findings"]] == ["bound", "not_given_up"]
    assert all(set(finding) == {"kind", "certainty", "text"} for finding in made["findings"])


def test_what_is_not_known_is_null() -> None:
    """A report without a mask, a kernel or numbers."""
    bare = judged(LoggedZone(0, "Normal", {}, None, (Blocks(3, 4, None),)), gfp=None, release="")
    made = failure_json(bare)
    nothing = ("kernel", "gfp", "gfp_text", "nodemask", "mems_allowed", "highest_zone", "alloc_flags")
    assert [made[name] for name in nothing] == [None] * len(nothing)
    [shown] = made["zones"]
    numbers = ("free_kb", "min_kb", "boost_kb", "lowmem_reserve", "free_blocks")
    assert [shown[name] for name in numbers] == [None, None, None, None, [3]]
    assert made["rules"] is False
    assert failure_json(judged())["zones"] == []
    doubtful = failure_json(judged(zone(5000), order=1))["zones"][0]
    assert (doubtful["certainty"], doubtful["free_blocks"]) == ("unknown", None)
    excluded = failure_json(judged(zone(100, name="Movable")))["zones"][0]
    assert (excluded["verdict"], excluded["excluded_by"]) == ("excluded", "highest_zoneidx")
    boosted = failure_json(judged(zone(100, boost=400)))["zones"][0]
    assert (boosted["boost_kb"], boosted["min_kb"]) == (400, 2780)
    unless = failure_json(judged(zone(5000), gfp=("GFP_KERNEL", "__GFP_THISNODE")))["zones"][0]["unless"]
    assert "__GFP_THISNODE asked for another node" in unless


ANSWERS = Answers(
    caller=Caller("f", "m", "s", 1),
    harm=Harm("failed", "w", "likely", 2),
    memory=OutOfMemory(True, (Statement("r", 3), Statement("t"))),
    holders=(Holder("task", "web", 40, 7, 4), Holder("file", "cache", 8)),
    advice=(Advice("a", "vm.x", 5, "likely", 6), Advice("b", None, None, "certain")),
    known_bugs=(KnownBug("title", "abc", "6.13", "shown", 8), KnownBug("other", "def", "6.1", "too")),
    what_if=(),
)


def test_answers() -> None:
    """Without a line it is null."""
    assert answers_json(ANSWERS) == {
        "caller": {"function": "f", "module": "m", "subsystem": "s"},
        "harm": "failed",
        "harm_why": "w",
        "harm_certainty": "likely",
        "harm_line": 2,
        "out_of_memory": True,
        "out_of_memory_why": [{"text": "r", "line": 3}, {"text": "t", "line": None}],
        "holders": [
            {"kind": "task", "what": "web", "kb": 40, "pid": 7, "line": 4},
            {"kind": "file", "what": "cache", "kb": 8, "pid": None, "line": None},
        ],
        "advice": [
            {"text": "a", "setting": "vm.x", "value": 5, "certainty": "likely", "line": 6},
            {"text": "b", "setting": None, "value": None, "certainty": "certain", "line": None},
        ],
        "known_bugs": [
            {"title": "title", "commit": "abc", "fixed_in": "6.13", "text": "shown", "line": 8},
            {"title": "other", "commit": "def", "fixed_in": "6.1", "text": "too", "line": None},
        ],
    }
    nobody = answers_json(answer(judged(LOW, line=0)))
    assert (nobody["caller"], nobody["harm_line"], nobody["out_of_memory"]) == (None, None, None)


def test_rows_of_answers() -> None:
    """Each question with its answers, and the line that supports each."""
    rows = list(answer_rows(judged(LOW, state_line=5), ANSWERS))
    assert [heading for heading, _ in rows] == [
        *("asked by", "harmful?", "why", "out of memory?", "who holds it", "who holds it"),
        *("what to change", "what to change", "known bug", "known bug"),
    ]
    texts = [text for _, text in rows]
    assert texts[0] == "f [m], s (line 1)"
    assert texts[1] == "yes, its caller got nothing (likely): w (line 2)"
    assert texts[2].endswith("(line 5)")
    assert texts[3:8] == [
        "yes: r (line 3); t",
        "40 kB web (pid 7) (line 4)",
        "8 kB cache",
        "vm.x = 5: a (line 6)",
        "b",
    ]
    assert texts[8] == 'shown; fixed in 6.13 by abc ("title") (line 8)'


@pytest.mark.parametrize(
    ("caller", "words"),
    [
        (Caller("f", None, None), "f"),
        (Caller("f", "m", None), "f [m]"),
        (Caller("f", None, "s"), "f, s"),
        (Caller("f", "m", "m"), "f [m]"),
    ],
)
def test_words_about_a_caller(caller: Caller, words: str) -> None:
    """A module that the tables do not have is named once."""
    assert caller_words(caller) == words


def rows(**changes: Any) -> dict[str, list[str]]:  # noqa: ANN401
    """Return the answers by question."""
    members = {name: getattr(ANSWERS, name) for name in Answers.__slots__}
    found: dict[str, list[str]] = {}
    for heading, text in answer_rows(judged(LOW), Answers(**{**members, **changes})):
        found.setdefault(heading, []).append(text)
    return found


def test_further_answers() -> None:
    """Settings of the boot line have no blanks; at most four holders, and what nobody accounts for."""
    advice = (
        Advice("a", "cma=", "8M", "likely"),
        Advice("b", "swap", None, "likely"),
        Advice("c", "mem=", None, "likely"),
    )
    assert rows(advice=advice)["what to change"] == ["cma=8M: a", "swap: b", "mem=: c"]
    many = tuple(Holder("site", f"s{number}", number) for number in range(6))
    assert rows(holders=many)["who holds it"] == [f"{number} kB s{number}" for number in range(4)]
    rest = (*many, Holder("unaccounted", "rest", 9))
    assert rows(holders=rest)["who holds it"][4:] == ["9 kB rest"]
    assert rows(holders=(Holder("unaccounted", "rest", 9), *many))["who holds it"][0] == "9 kB rest"
    assert "out of memory?" not in rows(memory=OutOfMemory(None, ()))
    for verdict, words in ((True, "yes: r"), (False, "no: r"), (None, "not known: r")):
        assert rows(memory=OutOfMemory(verdict, (Statement("r"),)))["out of memory?"] == [words]
    for kind, words in (
        ("fallback", "no, there is another way"),
        ("retried", "no, it is tried again"),
        ("dropped", "a little, a packet is dropped"),
        ("killed", "yes, a process was killed"),
        ("unknown", "not known"),
    ):
        assert rows(harm=Harm(kind, "w", "certain"))["harmful?"] == [f"{words}: w"]  # type: ignore[arg-type]
    assert "asked by" not in rows(caller=None)


def test_a_group() -> None:
    """What all have in common, with their number, lines and times."""
    failure = judged(LOW, line=7, **TRACE)
    group = Alike(failure, Moment(1.5, "12:00"), Moment(None, ""), array("q", [7, 9]), 3)
    assert alike_json(group, "kern.log") == {
        **failure_json(failure),
        "log": "kern.log",
        "count": 2,
        "lines": [7, 9],
        "first": 1.5,
        "last": None,
        "first_text": "12:00",
        "last_text": None,
        "constraint": "none",
        "suppressed": 3,
    }
    fresh = Alike(failure, Moment(1.5, ""), Moment(1.5, ""))
    assert (fresh.count, list(fresh.lines), fresh.suppressed) == (0, [], 0)


def test_groups() -> None:
    """By event, order, mask, caller, constraint, conclusion and kernel; in the order of their first lines."""
    logged = [judged(LOW, line=line, time=float(line), suppressed=line, **more).logged for line, more in (
        (5, {}), (3, {}), (9, {"order": 1}), (4, {}), (2, {"event": "stall"}), (8, TRACE), (7, {"gfp": 0xC40}),
        (6, {"release": "6.6.0"}), (1, {"constraint": "cpuset"}),
    )]  # fmt: skip
    found = group_alike(logged, explain_failure)
    assert [list(group.lines) for group in found.groups] == [[1], [2], [3, 4, 5], [6], [7], [8], [9]]
    three = found.groups[2]
    assert (three.count, three.suppressed, three.failure.logged.line) == (3, 12, 3)
    assert (three.first, three.last) == (Moment(3.0, ""), Moment(5.0, ""))
    assert found.beyond == 0
    # Of those that are too many only the number is kept; the groups that are there go on.
    few = group_alike([logged[number] for number in (0, 2, 4, 1, 3)], explain_failure, 2)
    assert ([list(group.lines) for group in few.groups], few.beyond) == ([[3, 4, 5], [9]], 1)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "none"),
        ({"constraint": "cpuset"}, "cpuset"),
        ({"event": "oom", "memcg": True}, "memcg"),
        ({"event": "oom", "memcg": True, "constraint": "none"}, "none"),
        ({"nodemask": "1"}, "mempolicy"),
        ({"nodemask": "0"}, "none"),
        ({"mems_allowed": "1", "gfp": ("GFP_KERNEL", "__GFP_HARDWALL")}, "cpuset"),
        ({"mems_allowed": "0", "gfp": ("GFP_KERNEL", "__GFP_HARDWALL")}, "none"),
    ],
)
def test_what_bound_a_request(more: dict[str, Any], expected: str) -> None:
    """As the OOM killer prints it, or would."""
    assert constraint(judged(LOW, **more)) == expected


def test_the_caller_of_a_group() -> None:
    """The function alone."""
    assert caller_name(judged(LOW, **TRACE)) == "tcp_sendmsg"
    assert caller_name(judged(LOW)) is None


def test_a_mask_that_a_person_gives() -> None:
    """Every member of it says so."""
    logged = LoggedFailure("memory", 7, "", 0)
    Given(gfp=0xCC0).complete(logged)
    mask = logged.mask
    assert mask is not None
    assert (mask.line, mask.column, mask.kind, mask.value, mask.decoded, mask.printed) == (7, 1, "gfp", 0xCC0, None, ())
    assert (mask.kernel, mask.source, mask.note, mask.form) == ("", "option", "", "option")
    assert vars(Given()) == {"gfp": None, "order": None, "page_kb": None}
