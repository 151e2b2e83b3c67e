# SPDX-License-Identifier: MIT
"""`kalloctrace verify` as people and scripts run it: on complete, truncated and altered traces."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pytest

from kalloctrace.kernel.machine import Topology
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.audited import Audited
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS
from kalloctrace.trace.totals import Totals
from kalloctrace.trace.writer import TraceWriter
from tests import traces

TRACE = Path(__file__).parents[2] / "fixtures/5.10/two-nodes.arrows"
BATCHES = 3
ROWS = 7
KEYS = {
    *("type", "trace", "kernel", "allocations", "distinct", "matched", "mismatched", "unknown"),
    *(
        "bulk",
        "sample",
        "lost",
        "missed",
        "missed_by",
        "bpf_calls",
        "audit",
        "truncated",
        "damage",
        "mismatches",
        "unknown_reasons",
        "not_judged",
        "events",
        "fields",
        "zonelists",
        "proven",
        "slow",
        "slow_lost",
    ),
}
Alter = Callable[[dict[str, Any]], dict[str, Any]]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def verdicts(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the JSON objects that were printed; their numbers add up."""
    parsed = [json.loads(line) for line in done.stdout.splitlines()]
    for verdict in parsed:
        assert verdict["allocations"] == verdict["matched"] + verdict["mismatched"] + verdict["unknown"]
    return parsed


class Recorded(NamedTuple):
    """A recorded trace: what is in its metadata, its first rows, its totals."""

    snapshot: Snapshot
    recording: dict[str, Any]
    rows: list[dict[str, Any]]
    totals: dict[str, Any]


@cache
def recorded() -> Recorded:
    """Read the recorded trace."""
    with TraceReader(Path(__file__).parents[2] / TRACE) as trace:
        batches, totals = list(trace.batches()), trace.ending().totals
        assert totals is not None
        rows = pa.Table.from_batches(batches).slice(0, BATCHES * ROWS).to_pylist()
        return Recorded(trace.snapshot, trace.recording, rows, totals.to_json())


def write(
    path: Path, alter: Alter = lambda row: row, snapshot: Snapshot | None = None, **changed_totals: object
) -> Path:
    """Write the first rows of the recorded trace, altered, as a small trace of some batches."""
    source = recorded()
    with TraceWriter(path, snapshot or source.snapshot, source.recording) as writer:
        for first in range(0, BATCHES * ROWS, ROWS):
            batch = [alter(row) for row in source.rows[first : first + ROWS]]
            writer.write(pa.RecordBatch.from_pylist(batch, schema=COLUMNS))
        writer.close(Totals.from_json({**source.totals, "submitted": BATCHES * ROWS, **changed_totals}))
    return path


class Message(NamedTuple):
    """A message of an Arrow stream: its kind, and where its metadata, its body and the next message begin."""

    kind: str
    metadata: int
    body: int
    end: int


def messages(path: Path) -> list[Message]:
    """Return the messages of a stream, in order."""
    found: list[Message] = []
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.MessageReader.open_stream(file)
        while True:
            begin = file.tell()
            try:
                message = reader.read_next_message()
            except StopIteration:
                return found
            size = message.body.size if message.body is not None else 0
            found.append(Message(message.type, begin, file.tell() - size, file.tell()))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A small trace that is whole."""
    return write(tmp_path / "whole.arrows")


def test_whole_trace(whole: Path) -> None:
    """A recording of a real kernel matches, also with --strict, and the numbers are printed."""
    done = run("--strict", whole)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"matched {BATCHES * ROWS}  mismatched 0  unknown 0  lost 0  missed 0" in done.stdout


def test_json_has_the_documented_keys(whole: Path) -> None:
    """One object a trace, with the keys that scripts rely on."""
    (verdict,) = verdicts(run("--json", whole))
    assert set(verdict) == KEYS
    assert (verdict["type"], verdict["trace"], verdict["truncated"]) == ("verification", str(whole), False)


class Cut(NamedTuple):
    """Where a file is cut: the message of its kind, the part of the message, and how much of the part is left."""

    kind: str
    number: int
    part: Literal["metadata", "body"]
    share: float
    whole_batches: int


CUTS = {
    "in a dictionary": Cut("dictionary", 0, "body", 0.5, 0),
    "in the first batch's metadata": Cut("record batch", 0, "metadata", 0.5, 0),
    "between batches": Cut("record batch", 0, "body", 1.0, 1),
    "in a batch's metadata": Cut("record batch", 1, "metadata", 0.5, 1),
    "before a batch's body": Cut("record batch", 1, "metadata", 1.0, 1),
    "in a batch's body": Cut("record batch", 1, "body", 0.5, 1),
    "near the end of the last body": Cut("record batch", 2, "body", 0.99, 2),
    "before the closing record": Cut("record batch", 2, "body", 1.0, 3),
    "in the closing record": Cut("record batch", 3, "metadata", 0.5, 3),
}


def cut(path: Path, at: Cut) -> Path:
    """Write the rest of a trace that was cut."""
    message = [message for message in messages(path) if message.kind == at.kind][at.number]
    begin, end = (message.metadata, message.body) if at.part == "metadata" else (message.body, message.end)
    left = path.with_name("cut.arrows")
    left.write_bytes(path.read_bytes()[: int(begin + (end - begin) * at.share)])
    return left


@pytest.mark.parametrize("at", CUTS.values(), ids=CUTS)
def test_cut_trace(whole: Path, at: Cut) -> None:
    """A truncated trace is judged up to its last complete batch, and is incomplete."""
    done = run("--json", "--strict", cut(whole, at))
    (verdict,) = verdicts(done)
    assert (done.returncode, done.stderr) == (4, "")
    assert (verdict["truncated"], verdict["matched"]) == (True, at.whole_batches * ROWS)


@pytest.mark.parametrize("at", ["in a batch's body", "before the closing record"])
def test_cut_trace_is_reported_and_no_failure(whole: Path, at: str) -> None:
    """The text says that the end is missing; without --strict that is not a failure."""
    done = run(cut(whole, CUTS[at]))
    assert (done.returncode, done.stderr) == (0, "")
    assert "truncated: the end of the recording is missing" in done.stdout
    assert "lost not known  missed not known" in done.stdout


def test_missing_end_mark_is_no_truncation(whole: Path) -> None:
    """The closing record completes a trace: Arrow's end mark after it is not needed."""
    assert run("--strict", cut(whole, Cut("record batch", 3, "body", 1.0, 3))).returncode == 0


def test_rubbish_after_the_end_is_ignored(whole: Path) -> None:
    """What follows the end of a trace is not read."""
    with whole.open("ab") as file:
        file.write(b"rubbish" * 100)
    assert run("--strict", whole).returncode == 0


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_trace_without_its_schema_cannot_be_read(whole: Path, share: float) -> None:
    """A file that is cut within the schema is not a trace."""
    path = cut(whole, Cut("schema", 0, "metadata", share, 0))
    done = run(path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: cannot read {path}\n  why: ")


def test_mismatch(tmp_path: Path) -> None:
    """If the kernel differs the exit code is 3; the field, both values, the request and the rule are printed."""
    path = write(tmp_path / "t.arrows", lambda row: {**row, "migratetype": row["migratetype"] + 5})
    done = run("--json", path)
    (verdict,) = verdicts(done)
    assert (done.returncode, verdict["mismatched"]) == (3, BATCHES * ROWS)
    for mismatch in verdict["mismatches"]:
        assert mismatch["field"] == "migratetype"
        assert mismatch["observed"] == mismatch["expected"] + 5
        assert mismatch["rule"] == "gfp_migratetype"
        assert {"gfp_mask", "order", "preferred_nid", "nodemask"} <= set(mismatch["request"])


@pytest.mark.parametrize(
    ("totals", "key"),
    [
        ({"dropped": 3}, "lost"),
        ({"no_room": 3}, "lost"),
        ({"submitted": BATCHES * ROWS + 3}, "lost"),
        ({"missed": 3}, "missed"),
    ],
)
def test_incomplete_trace(tmp_path: Path, totals: dict[str, Any], key: str) -> None:
    """What is missing is a number, and exit code 4 with --strict."""
    done = run("--json", "--strict", write(tmp_path / "t.arrows", **totals))
    assert (done.returncode, verdicts(done)[0][key]) == (4, 3)


def test_missing_allocations_are_no_failure(tmp_path: Path) -> None:
    """Without --strict a verdict on what was captured is enough."""
    assert run(write(tmp_path / "t.arrows", dropped=3, missed=3)).returncode == 0


def test_changed_machine(tmp_path: Path) -> None:
    """When the machine changed during the recording nothing is judged, and the reason names what changed."""
    done = run("--json", write(tmp_path / "t.arrows", machine_changed=["nodes"]))
    (verdict,) = verdicts(done)
    assert (done.returncode, verdict["unknown"]) == (0, BATCHES * ROWS)
    (reason,) = verdict["unknown_reasons"]
    assert reason.endswith("nodes")


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (["whole", "whole"], 0),
        (["lossy", "whole"], 4),
        (["lossy", "missing", "whole"], 1),
        (["wrong", "missing", "lossy"], 3),
    ],
)
def test_worst_exit_code_wins(tmp_path: Path, files: list[str], code: int) -> None:
    """Each of several traces is judged, and the worst result decides the exit code."""
    write(tmp_path / "whole")
    write(tmp_path / "lossy", missed=1)
    write(tmp_path / "wrong", lambda row: {**row, "migratetype": 99})
    done = run("--json", "--strict", *(tmp_path / name for name in files))
    assert done.returncode == code
    assert [Path(v["trace"]).name for v in verdicts(done)] == [name for name in files if name != "missing"]
    assert done.stderr.count("error: ") == files.count("missing")


@pytest.mark.parametrize(("swapped", "code"), [(False, 0), (True, 3)])
def test_zonelists_are_judged_where_the_trace_has_distances(tmp_path: Path, swapped: bool, code: int) -> None:
    """Zonelists that follow from the distances match; any other is a mismatch, even if every allocation matches."""
    snapshot = recorded().snapshot
    fallback = dict(snapshot.machine.fallback)
    if swapped:
        fallback[1] = fallback[0]
    topology = Topology((0, 1), ((10, 20), (20, 10)), (0, 1), 1024, 1)
    snapshot = replace(snapshot, machine=replace(snapshot.machine, topology=topology, fallback=fallback))
    path = write(tmp_path / "t.arrows", snapshot=snapshot)
    done = run("--json", path)
    (verdict,) = verdicts(done)
    zonelists = verdict["zonelists"]
    assert (done.returncode, zonelists["predicted"], zonelists["nodes"]) == (code, True, 2)
    assert zonelists["mismatched"] == len(zonelists["mismatches"]) == int(swapped)


def test_damaged_distances_are_three_lines(tmp_path: Path) -> None:
    """Distances that are not numbers are a damaged trace: an error without traceback."""
    snapshot = recorded().snapshot
    broken: Any = ((10, "x"), ("x", 10))
    topology = Topology((0, 1), broken, (), 1024, 1)
    path = write(
        tmp_path / "t.arrows", snapshot=replace(snapshot, machine=replace(snapshot.machine, topology=topology))
    )
    done = run(path)
    assert done.returncode == 1
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()] == ["error", "why", "fix"]


def test_trace_without_distances_is_reported(whole: Path) -> None:
    """An older trace has no distances: the output says so, and it is not a failure."""
    done = run("--strict", whole)
    assert done.returncode == 0
    assert "zonelists: not predicted, the trace has no distances" in done.stdout


def test_proven_kernel_is_printed(whole: Path) -> None:
    """The output says how far the rules for the trace's kernel are validated."""
    (verdict,) = verdicts(run("--json", whole))
    assert set(verdict["proven"]) == {"kernel", "release", "same", "differing", "measured", "refuted"}
    assert verdict["proven"]["same"] == (verdict["proven"]["kernel"] is not None and not verdict["proven"]["differing"])


def test_aggregate_counts_calls(tmp_path: Path) -> None:
    """For an aggregate, calls are counted, not rows; each mismatch has the number of its calls."""
    path = traces.aggregate(tmp_path / "t.arrows", ({}, 1_000_000), ({"migratetype": 99}, 70), ({"page": None}, 5))
    (verdict,) = verdicts(run("--json", path))
    assert (verdict["allocations"], verdict["distinct"]) == (1_000_075, 3)
    assert (verdict["matched"], verdict["mismatched"], verdict["lost"]) == (1_000_005, 70, 0)
    assert [(m["field"], m["count"]) for m in verdict["mismatches"]] == [("migratetype", 70)]


def test_sample_is_named_and_not_scaled(tmp_path: Path) -> None:
    """The verdict covers the recorded calls, and the output says that they are a sample."""
    path = traces.stream(tmp_path / "t.arrows", {}, {}, {}, recording={"filters": {"sample": 50}})
    (verdict,) = verdicts(run("--json", path))
    assert (verdict["allocations"], verdict["matched"], verdict["sample"]) == (3, 3, 50)
    assert "1 call in 50 was recorded" in run(path).stdout


def test_mismatch_without_the_facts_is_shown(tmp_path: Path) -> None:
    """A mismatch of a partially captured call is printed, without the missing numbers."""
    change = {"migratetype": 99, "mems_allowed": None, "preempt_count": None, "page": None}
    shown = run(traces.stream(tmp_path / "t.arrows", change))
    assert (shown.returncode, shown.stderr) == (3, "")
    assert "preempt_count not captured, mems_allowed not captured" in shown.stdout


@pytest.fixture
def inferred(tmp_path: Path) -> Path:
    """A trace of one probe: two calls, one of them wrongly prepared."""
    recording = {"attach": "one:multi", "inferred": ["preferred_nid", "gfp_outside_allowed_mask", "scope_bits"]}
    return traces.stream(tmp_path / "t.arrows", {}, {"migratetype": 99}, recording=recording)


def test_rules_of_inferred_facts_are_counted(inferred: Path) -> None:
    """They are no part of the sum: each allocation is matched or mismatched by its other rules."""
    done = run("--json", "--strict", inferred)
    (verdict,) = verdicts(done)
    assert (done.returncode, verdict["matched"], verdict["mismatched"], verdict["unknown"]) == (3, 1, 1, 0)
    assert verdict["not_judged"] == {"zonelist": 2, "gfp_allowed_mask": 2}
    assert "not judged: 2 × zonelist: whose zonelist it is" in run(inferred).stdout


def test_rules_of_inferred_facts_are_skipped_in_ktap(inferred: Path) -> None:
    """A skipped test is no pass, and it does not hide the judged fields."""
    shown = run("--ktap", "--strict", inferred).stdout
    assert "rule_zonelist # SKIP whose zonelist it is: inferred in 2 of 2 allocations" in shown
    assert "not ok" in shown
    plan = int(shown.split("1..")[2].split()[0])
    assert plan == sum(line.startswith(("  ok ", "  not ok ")) for line in shown.splitlines())


def test_inferred_facts_are_no_gap_for_strict(tmp_path: Path) -> None:
    """The recording is complete, and all that it shows is as predicted."""
    path = traces.stream(tmp_path / "t.arrows", {}, recording={"inferred": ["preferred_nid"]})
    assert run("--strict", path).returncode == 0


def test_cause_of_missed_hits_is_printed(tmp_path: Path) -> None:
    """The counters of the kernel that saw the misses, and the bpf(2) calls that are their likely cause."""
    missed_by = {"kprobe": 0, "program": 10_211, "memory": 0}
    path = write(tmp_path / "t.arrows", missed=10_211, missed_by=missed_by, bpf_calls=52_000)
    cause = "missed: 10,211 kprobe hits were skipped while other programs used bpf(2); 52,000 such calls meanwhile"
    assert cause in run(path).stdout
    assert cause in run("--ktap", path).stdout
    (verdict,) = verdicts(run("--json", path))
    assert (verdict["missed_by"], verdict["bpf_calls"]) == (missed_by, 52_000)


def test_audit_that_differs_is_printed(tmp_path: Path) -> None:
    """The verdict covers only what one probe saw, so with --strict it is not complete."""
    audit = Audited(windows=2, seconds=0.2, one=9, pair=11, differing=2, edges=1, fields={"order": 2})
    path = write(tmp_path / "t.arrows", audit=audit.to_json())
    text = "audit: DIFFERS: 9 calls of one probe, 11 of the pair in 2 windows, 0.2 s together: 2 differ"
    assert text in run(path).stdout
    strict = run("--ktap", "--strict", path)
    assert text in strict.stdout
    assert "different in the audit 2" in strict.stdout
    done = run("--json", path)
    (verdict,) = verdicts(done)
    assert verdict["audit"] == audit.to_json()
    assert (done.returncode, strict.returncode) == (0, 4)
