# SPDX-License-Identifier: MIT
"""`kalloctrace diff` as people and scripts run it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.schemas import hold
from tests.traces import RECORDED, aggregate, stream

KEYS = {"type", "before", "after", "threshold", "by"}
ASPECTS = ["request", "alloc_flags", "preparation", "verdict"]
SLOW_ASPECTS = ["slow_kind", "slow_alloc_flags", "slow_verdict"]
OLD_SLOW, SLOW, SLOW_STREAM = (
    RECORDED.parents[1] / name for name in ("5.10/slow.arrows", "6.12/slow.arrows", "6.12/slow-stream.arrows")
)
NEWER = RECORDED.parents[1] / "7.3" / "stimulus.arrows"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "diff", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


def difference(*arguments: str | Path) -> dict[str, Any]:
    """Run the program with --json and return its one object."""
    done = run("--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(found) == KEYS
    both = found["before"]["slow"] and found["after"]["slow"]
    assert list(found["by"]) == (ASPECTS + SLOW_ASPECTS if both else ASPECTS)
    return found


def test_trace_does_not_differ_from_itself() -> None:
    """Nothing appears, vanishes or changes."""
    found = difference("--threshold", "0.0001", RECORDED, RECORDED)
    assert [part["rows"] for part in found["by"].values()] == [[]] * len(ASPECTS)
    assert all(part["same"] > 0 for part in found["by"].values())


def test_each_kind_of_change(tmp_path: Path) -> None:
    """A kind that one trace lacks has appeared or vanished; one whose share differs enough has changed."""
    before = stream(tmp_path / "a.arrows", *[{"order": 0}] * 6, *[{"order": 1}] * 3, {"order": 2})
    after = stream(tmp_path / "b.arrows", *[{"order": 0}] * 6, {"order": 1}, *[{"order": 3}] * 3)
    rows = difference(before, after)["by"]["request"]["rows"]
    assert [(row["order"], row["change"], row["before"], row["after"]) for row in rows] == [
        (3, "appeared", 0, 3),
        (1, "changed", 3, 1),
        (2, "vanished", 1, 0),
    ]
    assert [row["share_before"] for row in rows] == [0.0, 0.3, 0.1]
    part = difference("--threshold", "21", before, after)["by"]["request"]
    assert ([row["order"] for row in part["rows"]], part["same"]) == ([3, 2], 2)


def test_layouts_can_be_compared(tmp_path: Path) -> None:
    """A stream and an aggregate of the same calls do not differ."""
    before = stream(tmp_path / "a.arrows", *[{"order": 0}] * 3, {"order": 1})
    after = aggregate(tmp_path / "b.arrows", ({"order": 0}, 3), ({"order": 1}, 1))
    found = difference("--threshold", "0", before, after)
    assert [part["rows"] for part in found["by"].values()] == [[]] * len(ASPECTS)
    assert (found["before"]["aggregate"], found["after"]["aggregate"]) == (False, True)


def test_verdicts_are_compared(tmp_path: Path) -> None:
    """A mismatch that is new has appeared, with the field that differs."""
    before = stream(tmp_path / "a.arrows", {}, {})
    after = stream(tmp_path / "b.arrows", {}, {"migratetype": 99})
    rows = difference(before, after)["by"]["verdict"]["rows"]
    assert {(row["change"], row["verdict"], row["about"]) for row in rows} == {
        ("appeared", "mismatched", "migratetype"),
        ("changed", "matched", None),
    }


def test_flags_are_compared_by_name() -> None:
    """The same names are the same request on two kernels that number their bits, and print them, differently."""
    found = difference(RECORDED.parents[1] / "6.1" / "stimulus.arrows", NEWER)
    assert (found["before"]["kernel"][:3], found["after"]["kernel"][:3]) == ("6.1", "7.3")
    for aspect in ("request", "preparation", "alloc_flags"):
        kinds: dict[str, set[frozenset[str]]] = {"appeared": set(), "vanished": set(), "changed": set()}
        for row in found["by"][aspect]["rows"]:
            words = [f"{key} {row[key]}" for key in ("entry", "order") if key in row]
            names = [name for key in ("gfp", "alloc_flags") for name in str(row.get(key)).split("|")]
            kinds[row["change"]].add(frozenset([*words, *names]))
        assert kinds["appeared"]
        assert not kinds["appeared"] & kinds["vanished"]
    assert found["by"]["request"]["same"] + len(kinds["changed"]) > 0


def test_text_fits_and_says_the_same() -> None:
    """No line is too wide, each part has its number of differences, and --top limits the rows."""
    found = difference(RECORDED, NEWER)
    done = run("--top", "2", RECORDED, NEWER)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert max(map(len, lines[4:])) <= 80
    for name, heading in (("request", "requests"), ("verdict", "verdicts of the model")):
        assert any(line.startswith(f"{heading}: {len(found['by'][name]['rows']):,} differ") for line in lines)
    assert sum(line.startswith(("  + ", "  - ", "  ~ ")) for line in lines) <= 2 * len(ASPECTS)


def test_slow_path_is_compared() -> None:
    """Attempts have the names of each kernel's own tables: an upgrade renames and adds flags, and removes a kind."""
    found = difference(OLD_SLOW, SLOW)
    assert [found[side]["slow"]["calls"] for side in ("before", "after")] == [13825, 12913]
    assert [found[side]["slow"]["lost"] for side in ("before", "after")] == [2, 43]
    assert found["before"]["slow"]["share"] == round(13825 / 1063890, 6)
    assert found["before"]["slow"]["estimated"]
    flags: dict[str, set[str]] = {"appeared": set(), "vanished": set(), "changed": set()}
    for row in found["by"]["slow_alloc_flags"]["rows"]:
        flags[row["change"]] |= set(row["alloc_flags"].split("|"))
    assert "ALLOC_NON_BLOCK" in flags["appeared"] - flags["vanished"]
    assert "ALLOC_HARDER" in flags["vanished"] - flags["appeared"]
    kinds = {(row["change"], row["kind"]) for row in found["by"]["slow_kind"]["rows"]}
    assert ("vanished", "after_compaction") in kinds
    assert found["by"]["slow_verdict"] == {"same": 1, "rows": []}


@pytest.mark.parametrize("trace", [OLD_SLOW, SLOW, SLOW_STREAM])
def test_slow_path_does_not_differ_from_itself(trace: Path) -> None:
    """In an aggregate and in a stream."""
    found = difference("--threshold", "0", trace, trace)
    assert all(found["by"][name]["rows"] == [] and found["by"][name]["same"] > 0 for name in SLOW_ASPECTS)
    assert found["before"] == found["after"]


def test_text_of_the_slow_path() -> None:
    """The text fits the width, and agrees with the JSON object."""
    found = difference(SLOW, SLOW_STREAM)
    done = run("--top", "100", SLOW, SLOW_STREAM)
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines if ".arrows" not in line) <= 80
    assert f"slow path: {found['before']['slow']['calls']:,} calls (about " in lines[2]
    for name, heading in zip(SLOW_ASPECTS, ("kinds of", "flags of", "verdicts on"), strict=True):
        part = found["by"][name]
        expected = f"slow path, {heading} attempts: {len(part['rows']):,} differ, {part['same']:,} are the same"
        assert expected in lines


def test_slow_path_of_one_trace_alone() -> None:
    """One line says that a trace lacks it, and the number is never 0; if both lack it, nothing is printed."""
    found = difference(SLOW, NEWER)
    assert found["before"]["slow"]["calls"]
    assert found["after"]["slow"] is None
    for pair in ((SLOW, NEWER), (NEWER, SLOW)):
        text = run(*pair).stdout
        assert text.splitlines().count("        slow path: not recorded") == 1
        assert text.count("slow path: ") == 2
        assert "attempts:" not in text
    assert "slow path" not in run(RECORDED, NEWER).stdout


@pytest.mark.parametrize("words", [[], [RECORDED], ["--threshold", "-1", RECORDED, RECORDED]])
def test_wrong_usage(words: list[str | Path]) -> None:
    """It takes two traces."""
    assert run(*words).returncode == 2


def test_unreadable_trace_is_named(tmp_path: Path) -> None:
    """Either trace that cannot be read is named."""
    missing = tmp_path / "missing.arrows"
    for pair in ((missing, RECORDED), (RECORDED, missing)):
        done = run(*pair)
        assert done.returncode == 1
        assert str(missing) in done.stderr


FAILURES = Path(__file__).parents[1] / "unit" / "data" / "failures"
TWO_NODES, MEMCG = FAILURES / "made-two-nodes.log", FAILURES / "memcg-oom.log"


def test_logs(tmp_path: Path) -> None:
    """Their failures are compared by kind: what appeared, what vanished, and whose number differs."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "1.log").write_bytes(TWO_NODES.read_bytes())
    (before / "2.log").write_bytes(MEMCG.read_bytes())
    after.write_bytes((FAILURES / "6.19-boosted.log").read_bytes() + MEMCG.read_bytes() * 3)
    done = run("--json", before, after)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    hold("log_diff", found)
    assert [(row["change"], row["before"], row["after"], row["event"], row["order"]) for row in found["rows"]] == [
        ("changed", 1, 3, "oom", 0),
        ("vanished", 1, 0, "failure", 3),
        ("vanished", 1, 0, "stall", 0),
        ("appeared", 0, 1, "failure", 0),
    ]
    assert found["before"] == {"log": str(before), "logs": 2, "kernels": ["7.3.4+deb13-amd64"], "failures": 3}
    assert (found["after"]["failures"], found["same"]) == (4, 0)
    text = run("--top", "2", before, after).stdout
    assert "3 failures in 2 logs, on 7.3.4+deb13-amd64" in text
    assert "kinds of failures: 4 differ, 0 are the same" in text
    assert "… and 2 more; --json has all" in text


def test_logs_of_another_kernel_with_the_same_failures() -> None:
    """The kernel does not set kinds of failures apart: an upgrade changes it."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "diff", "--json", str(MEMCG), "-"],
        input="Linux version 6.1.0\n" + MEMCG.read_text(),
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    assert (found["after"]["kernels"], found["rows"], found["same"]) == (["6.1.0"], [], 1)


def test_logs_without_failures(tmp_path: Path) -> None:
    """No failure before and after is an answer; a log that cannot be read is none."""
    (tmp_path / "a").write_text("nothing\n")
    assert "kinds of failures: 0 differ" in run(tmp_path / "a", tmp_path / "a").stdout
    done = run(tmp_path / "a", tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == f"error: cannot read {tmp_path / 'none'}"


def test_log_and_trace() -> None:
    """They cannot be compared, in either order; --threshold is of traces."""
    for words in ((RECORDED, MEMCG), (MEMCG, RECORDED), ("--threshold", "2", MEMCG, MEMCG)):
        done = run(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 3)
