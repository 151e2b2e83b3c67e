# SPDX-License-Identifier: MIT
"""The JSON that the real program prints matches the schemas in kalloctrace/schemas exactly."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from kalloctrace.cli import cli
from kalloctrace.trace.schema import ROWS
from tests import played
from tests.schemas import FOLDER, hold, validator
from tests.traces import RECORDED, aggregate, stream

FIXTURES = RECORDED.parents[1]
LOGS = Path(__file__).parents[1] / "unit" / "data" / "failures"
NEWEST = FIXTURES / "7.3" / "stimulus-cpusets.arrows"
EVENT = (
    "dd 133 [000] 1.5: kmem:mm_page_alloc: page=0x1 pfn=0x1 order=11 migratetype=1 gfp_flags=GFP_KERNEL\n"
    "dd 133 [000] 1.5: kmem:mm_page_alloc: page=0x1 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL\n"
)


def objects(*words: str | Path, stdin: str | None = None) -> list[dict[str, Any]]:
    """Run the real program and return the object on each of its lines."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", *map(str, words)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        input=stdin,
        check=False,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def with_json(command: click.Command, path: str) -> Iterator[str]:
    """Yield the paths of the commands that have an option --json."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            below = command.get_command(click.Context(command), name)
            assert below is not None
            yield from with_json(below, f"{path} {name}")
    elif any("--json" in option.opts for option in command.params):
        yield path


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return traces of each kind: recorded, with mismatches, aggregate, cut off, with stacks, imported, empty."""
    folder = tmp_path_factory.mktemp("traces")
    cut = stream(folder / "cut.arrows", {}, {})
    cut.write_bytes(cut.read_bytes()[:-600])
    imported = folder / "imported.arrows"
    words = ["import", "--kernel", "6.1", "-o", str(imported), "-"]
    subprocess.run(
        [sys.executable, "-m", "kalloctrace", *words], input=EVENT, text=True, check=True, capture_output=True
    )
    return [
        NEWEST,
        FIXTURES / "5.10" / "stimulus.arrows",
        stream(
            folder / "wrong.arrows", {"migratetype": 99, "stack": "a;b"}, {"cpusets_enabled": -1}, {"alloc_flags": 0}
        ),
        aggregate(folder / "aggregate.arrows", ({}, 3), ({"order": 1}, 1)),
        cut,
        imported,
        stream(folder / "sample.arrows", {}, recording={"filters": {"sample": 100}}),
    ]


def test_decode() -> None:
    """Values, and masks in a text: known, unknown, without a kernel."""
    hold("mask", *objects("decode", "--json", "--kernel", "7.3", "0xcc0", "0", "0xffffffff", "GFP_ATOMIC"))
    hold("mask", *objects("decode", "--json", "--kind", "alloc", "0x901", "3"))
    text = "x: mm_page_alloc: gfp_flags=GFP_NONESUCH\nx: mm_page_alloc: gfp_flags=0xcc0\nx: y: gfp_flags=0x123456789\n"
    hold("found_mask", *objects("decode", "--json", "-", stdin=text))


def test_explain() -> None:
    """Requests that are prepared, rejected, and none."""
    words = ["explain", "--json", "--kernel", "7.3", "--gfp", "GFP_KERNEL", "--order"]
    hold("preparation", *objects(*words, "0"), *objects(*words, "30"))
    hold("preparation", *objects(*words, "0", "--machine", FIXTURES / "7.3" / "stimulus.arrows", "--cpusets"))
    hold("preparation", *objects(*words, "0", "--set", "order=1", "--set", "cpusets"), *objects(*words, "0", "--brief"))
    hold("term", *objects("explain", "--json", "--term", "ALLOC_CPUSET", "--lang", "zh-cn"))
    lines = '{"kernel":"6.1","gfp":3264,"order":0,"nodemask":[3]}\n{}\nnonsense\n'
    prepared, *errors = objects("explain", "--batch", "-", stdin=lines)
    hold("preparation", prepared)
    hold("error", *errors)


def test_slow_calls() -> None:
    """Of a trace with the parts of their time, and of an older one; of all calls and by groups."""
    newer, older = (FIXTURES / "7.3" / name for name in ("slow-parts.arrows", "slow.arrows"))
    hold("slow_group", *objects("report", "--slow", "--json", newer), *objects("report", "--slow", "--json", older))
    hold("slow_group", *objects("report", "--slow", "--json", "--by", "gfp,order,stack,cgroup", "--top", "9", newer))


def test_verify(traces: list[Path]) -> None:
    """Verdicts with and without mismatches, unknown ones, and those of another tool's events."""
    found = objects("verify", "--json", *traces)
    hold("verification", *found)
    assert any(verdict["mismatches"] for verdict in found)
    assert any(verdict["unknown_reasons"] for verdict in found)
    assert any(verdict["events"] for verdict in found)
    assert any(verdict["truncated"] for verdict in found)


def test_report(traces: list[Path]) -> None:
    """Summaries of each kind of trace."""
    for trace in traces:
        hold("report", *objects("report", "--json", trace))


@pytest.mark.parametrize("options", [(), ("--failed",), ("--slower-than", "1")], ids=" ".join)
def test_groups(options: tuple[str, ...]) -> None:
    """Groups by every field that a trace can have."""
    stacks = FIXTURES / "6.12" / "slow-stream.arrows"
    fields = "comm,pid,gfp,order,node,zone,migratetype,alloc_flags,stack,cpu,outcome"
    hold("group", *objects("report", "--by", fields, "--json", *options, stacks))
    if not options:
        hold("group", *objects("report", "--by", "gfp,node,zone,migratetype,alloc_flags,outcome", "--json", NEWEST))


@pytest.mark.parametrize("kernel", ["5.10", "6.1", "6.12", "7.3"])
def test_failures_of_a_trace(kernel: str) -> None:
    """Calls of the slow path that failed or took long, with their attempts."""
    found = objects("report", "--failures", "--slower-than", "1", "--json", FIXTURES / kernel / "slow.arrows")
    hold("failure", *found)
    assert {one["event"] for one in found} == {"failure", "stall"}
    assert all(one["attempts"] for one in found if one["complete"])


@pytest.mark.parametrize("log", sorted(LOGS.glob("*.log")), ids=lambda path: path.name)
def test_failures_of_a_log(log: Path) -> None:
    """They come from kernels from 2.6 on, without the keys that only a trace has."""
    found = objects("explain", "--json", log)
    hold("failure", *found)
    assert not any("attempts" in one for one in found)


def test_diff(traces: list[Path]) -> None:
    """Differences of each kind."""
    slow = [FIXTURES / name for name in ("5.10/slow.arrows", "6.12/slow.arrows", "6.12/slow-stream.arrows")]
    for one, other in itertools.pairwise([*traces, *slow]):
        hold("diff", *objects("diff", "--json", one, other))


def test_export(traces: list[Path]) -> None:
    """Each line of each kind of trace."""
    for trace in traces:
        hold("allocation", *objects("export", "--format", "jsonl", trace))


def test_import(tmp_path: Path) -> None:
    """The counts of the trace, and its file; `record` writes the same in a guest (tests/live/in_guest)."""
    words = ("import", "--json", "--kernel", "6.1", "-o", tmp_path / "t.arrows", "-")
    (found,) = objects(*words, stdin=EVENT)
    hold("recording", found)
    assert (found["trace"], found["source"], found["allocations"]) == (str(tmp_path / "t.arrows"), "perf script", 2)


def test_live(tmp_path: Path, traces: list[Path]) -> None:
    """Numbers and rows of each interval: requests, tasks and stacks, of calls of every verdict, some rejected."""
    words = ("live", "--json", "--interval", "1", "--replay")
    stacks = played.trace(tmp_path / "stacks.arrows")
    found = [
        *objects(*words, NEWEST),
        *objects(*words, traces[2], "--by", "task"),
        *objects(*words, traces[5], "--by", "task"),
        *objects(*words, stacks, "--stack"),
    ]
    totals = [line for line in found if line["type"] == "live_totals"]
    rows = [line for line in found if line["type"] != "live_totals"]
    hold("live_totals", *totals)
    hold("live", *rows)
    assert {row["verdict"] for row in rows} == {"ok", "MISMATCH", "unknown"}
    for name in ("comm", "stack", "node", "alloc_flags"):
        assert {row[name] is None for row in rows} == {True, False}, name


def test_each_command_with_json_has_a_schema() -> None:
    """And so has export's form of JSON lines."""
    titles = [json.loads(path.read_text(encoding="utf-8"))["title"] for path in FOLDER.glob("*.json")]
    for path in ("export --format jsonl", *(f"{command} --json" for command in with_json(cli, "kalloctrace"))):
        assert any(path in title for title in titles), path


def test_schema_of_a_line_names_each_column() -> None:
    """It has the columns of a row, in their order, with the descriptions of their definitions; so has a mismatch."""
    about = {field.name: field.metadata[b"about"].decode() for field in ROWS}
    schema = json.loads((FOLDER / "allocation.schema.json").read_text(encoding="utf-8"))
    properties = schema["properties"]
    assert properties.pop("type") == {"const": "allocation"}
    assert {name: rules["description"] for name, rules in properties.items()} == about
    assert list(properties) == ROWS.names
    schema = json.loads((FOLDER / "verification.schema.json").read_text(encoding="utf-8"))
    request = schema["properties"]["mismatches"]["items"]["properties"]["request"]["properties"]
    assert {name: rules["description"] for name, rules in request.items()}.items() <= about.items()


def test_doctor() -> None:
    """The result of this machine, whatever it is."""
    hold("doctor", *objects("doctor", "--json"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.name)
def test_schemas_are_schemas(path: Path) -> None:
    """Each has its version, the command that prints it, and the type of its objects."""
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"].startswith("kalloctrace ")
    assert "type" in schema["required"]


def test_what_a_schema_does_not_say_is_refused() -> None:
    """The tests here notice an extra key, a missing one, and one of another type."""
    (good,) = objects("decode", "--json", "--kernel", "6.1", "0xcc0")
    wrong = [{**good, "new": 1}, {key: good[key] for key in good if key != "hex"}, {**good, "value": "0xcc0"}]
    for bad in wrong:
        assert not validator("mask").is_valid(bad)
    assert jsonschema.Draft202012Validator(json.loads((FOLDER / "mask.schema.json").read_text())).is_valid(wrong[0])
