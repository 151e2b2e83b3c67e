# SPDX-License-Identifier: MIT
"""The output of `kalloctrace export`, read by the intended tools or by their own definitions of the format."""

import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import duckdb
import jsonschema
import polars as pl
import pyarrow as pa
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as perfetto

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.text import printable
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import COLUMNS, ROWS
from kalloctrace.trace.writer import TraceWriter
from tests.traces import RECORDED, aggregate, source, stream

SLOW = RECORDED.parents[1] / "6.1" / "stimulus-cpusets.arrows"
SPEEDSCOPE = Path(__file__).parents[1] / "unit" / "data" / "speedscope" / "file-format-schema.json"
UNDER_PRESSURE = RECORDED.parents[1] / "6.12" / "slow.arrows"
CLEARED, NEEDED = 1, 2


def export(tmp_path: Path, form: str, trace: Path) -> tuple[Path, str]:
    """Run the real program; return the file that it wrote, and its messages."""
    output = tmp_path / f"out.{form}"
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "export", "--format", form, "-o", str(output), str(trace)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return output, done.stderr


def read(path: Path) -> tuple[Snapshot, list[dict[str, Any]]]:
    """Return the kernel of a trace and its rows."""
    with TraceReader(path) as trace:
        return trace.snapshot, [row for batch in trace.batches() for row in batch.to_pylist()]


def pages(row: dict[str, Any]) -> int:
    """Return the pages that a call got."""
    if row["entry"] == "bulk":
        return row["bulk_seen"] or 0
    return 0 if row["page"] is False else 1 << row["order"]


@pytest.mark.parametrize(
    ("form", "function"), [("parquet", "read_parquet"), ("csv", "read_csv"), ("jsonl", "read_json")]
)
def test_duckdb_reads_tables(tmp_path: Path, form: str, function: str) -> None:
    """DuckDB finds each column, and the same numbers as the trace has."""
    output, _ = export(tmp_path, form, SLOW)
    _, rows = read(SLOW)
    table = duckdb.sql(f"from {function}('{output}')")
    assert table is not None
    assert table.columns == (["type"] if form == "jsonl" else []) + ROWS.names
    have = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    for name in ("time", "gfp_mask", "order", "alloc_flags", "comm", "freelist_calls", "page", "preferred_zone"):
        assert [row[name] for row in have] == [row[name] for row in rows], name


def test_polars_reads_tables(tmp_path: Path) -> None:
    """Polars reads Parquet as the very rows, and JSON lines with the same numbers."""
    _, rows = read(SLOW)
    assert pl.read_parquet(export(tmp_path, "parquet", SLOW)[0]).to_dicts() == rows
    lines = pl.read_ndjson(export(tmp_path, "jsonl", SLOW)[0], infer_schema_length=None)
    assert lines.drop("type").select("time", "gfp_mask", "nodemask", "count").to_dicts() == [
        {name: row[name] for name in ("time", "gfp_mask", "nodemask", "count")} for row in rows
    ]


class Timeline:
    """A Perfetto trace, decoded by Perfetto's own definitions and the rules of its track events.

    Attributes:
        tracks: by uuid.
        events: on each track: time, kind, name and annotations.
        counters: values of each counter's track.
    """

    def __init__(self, data: bytes) -> None:
        self.tracks: dict[int, Any] = {}
        self.events: dict[int, list[tuple[int, int, str, dict[str, Any]]]] = defaultdict(list)
        self.counters: dict[int, list[tuple[int, int]]] = defaultdict(list)
        trace = perfetto.Trace()
        assert trace.ParseFromString(data) == len(data)
        names: dict[int, str] = {}
        keys: dict[int, str] = {}
        texts: dict[int, str] = {}
        for number, packet in enumerate(trace.packet):
            assert packet.trusted_packet_sequence_id == 1
            assert (packet.sequence_flags == CLEARED) == (number == 0)
            names |= {entry.iid: entry.name for entry in packet.interned_data.event_names}
            keys |= {entry.iid: entry.name for entry in packet.interned_data.debug_annotation_names}
            texts |= {entry.iid: entry.str.decode() for entry in packet.interned_data.debug_annotation_string_values}
            if packet.HasField("track_descriptor"):
                track = packet.track_descriptor
                assert not track.parent_uuid or track.parent_uuid in self.tracks
                self.tracks[track.uuid] = track
            if packet.HasField("track_event"):
                assert packet.sequence_flags == NEEDED
                event = packet.track_event
                assert event.track_uuid in self.tracks
                facts = {
                    keys[fact.name_iid]: texts[fact.string_value_iid] if fact.string_value_iid else fact.int_value
                    for fact in event.debug_annotations
                }
                if event.type == perfetto.TrackEvent.TYPE_COUNTER:
                    self.counters[event.track_uuid].append((packet.timestamp, event.counter_value))
                else:
                    name = names[event.name_iid] if event.name_iid else ""
                    self.events[event.track_uuid].append((packet.timestamp, event.type, name, facts))

    def track(self, **want: Any) -> int:  # noqa: ANN401 - what a message holds
        """Return the one track whose descriptor holds this: a name, or a thread's tid."""
        found = [
            uuid
            for uuid, track in self.tracks.items()
            if (
                track.name == want["name"]
                if "name" in want
                else track.thread.tid == want["tid"] and track.HasField("thread")
            )
        ]
        assert len(found) == 1
        return found[0]


@pytest.mark.parametrize("path", [RECORDED, SLOW], ids=["5.10", "6.1"])
def test_timeline_has_each_call_on_its_cpu_and_its_task(tmp_path: Path, path: Path) -> None:
    """Each call is at its time on the tracks of its CPU and its task, and has its request."""
    snapshot, rows = read(path)
    timeline = Timeline(export(tmp_path, "perfetto", path)[0].read_bytes())
    kinds = perfetto.TrackEvent
    by_cpu: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    by_task: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    for row in rows:
        gfp = decode_gfp(row["gfp_mask"], snapshot.tables).text or "0x0"
        slow = row["freelist_calls"] > 1
        name = f"{'slow path: ' if slow else ''}{gfp} order {row['order']}"
        by_cpu[row["cpu"]].append((row["time"], kinds.TYPE_INSTANT, name))
        by_task[row["tid"]] += [(row["time"], kinds.TYPE_SLICE_BEGIN if slow else kinds.TYPE_INSTANT, name)]
        by_task[row["tid"]] += [(row["time"], kinds.TYPE_SLICE_END, "")] if slow else []
    for cpu, expected in by_cpu.items():
        assert [event[:3] for event in timeline.events[timeline.track(name=f"CPU {cpu}")]] == expected
    for tid, expected in by_task.items():
        assert [event[:3] for event in timeline.events[timeline.track(tid=tid)]] == expected
    last = {row["tid"]: row["comm"] for row in rows}
    assert {tid: timeline.tracks[timeline.track(tid=tid)].thread.thread_name for tid in last} == last
    facts = timeline.events[timeline.track(name=f"CPU {rows[0]['cpu']}")][0][3]
    assert facts["task"] == rows[0]["comm"]
    assert (facts["order"], facts["freelist_calls"]) == (rows[0]["order"], rows[0]["freelist_calls"])


def test_timeline_counts(tmp_path: Path) -> None:
    """The counters of each CPU never decrease, and end at the sum over its calls."""
    _, rows = read(SLOW)
    timeline = Timeline(export(tmp_path, "perfetto", SLOW)[0].read_bytes())
    for cpu in {row["cpu"] for row in rows}:
        mine = [row for row in rows if row["cpu"] == cpu]
        expected = {
            "pages": sum(map(pages, mine)),
            "slow paths": sum(row["freelist_calls"] > 1 for row in mine),
            "failures": sum(row["page"] is False for row in mine),
        }
        for name, total in expected.items():
            values = [value for _, value in timeline.counters[timeline.track(name=f"CPU {cpu} {name}")]]
            assert values == sorted(values)
            assert values[-1] == total
    assert sum(row["freelist_calls"] > 1 for row in rows)


def test_timeline_has_slow_paths_with_their_length(tmp_path: Path) -> None:
    """A slice on the task's track, with its attempts inside; an instant if its return was not seen."""
    with TraceReader(UNDER_PRESSURE) as trace:
        calls = list(trace.slow_calls())
    call = {**next(call for call in calls if call["duration"] and len(call["attempts"]) > 1), "tid": 7}
    unended = {**next(call for call in calls if call["duration"] is None), "tid": 8}
    snapshot, totals, row = source()
    path = tmp_path / "t.arrows"
    with TraceWriter(path, snapshot, {"mode": "stream", "slow": True}) as writer:
        writer.write(pa.RecordBatch.from_pylist([{**row, "freelist_calls": 2}], schema=COLUMNS))
        writer.write_slow([call, unended])
        writer.close(totals)
    timeline = Timeline(export(tmp_path, "perfetto", path)[0].read_bytes())
    kinds = perfetto.TrackEvent
    begin, *attempts, end = timeline.events[timeline.track(tid=7)]
    assert (begin[0], begin[1], begin[3]["attempts"]) == (call["time"], kinds.TYPE_SLICE_BEGIN, len(call["attempts"]))
    assert begin[2].startswith("slow path: ")
    assert (end[0], end[1]) == (call["time"] + call["duration"], kinds.TYPE_SLICE_END)
    assert [time for time, *_ in attempts] == [call["time"] + attempt["after"] for attempt in call["attempts"]]
    assert all(kind == kinds.TYPE_INSTANT and "ALLOC_" in name for _, kind, name, _ in attempts)
    begin, *attempts = timeline.events[timeline.track(tid=8)]
    assert (begin[0], begin[2].startswith("slow path: "), "page" in begin[3]) == (unended["time"], True, False)
    assert [time for time, *_ in attempts] == [unended["time"] + attempt["after"] for attempt in unended["attempts"]]
    assert {kind for _, kind, *_ in (begin, *attempts)} == {kinds.TYPE_INSTANT}
    row_events = timeline.events[timeline.track(tid=row["tid"])]
    assert [kind for _, kind, *_ in row_events] == [kinds.TYPE_INSTANT]


def test_timeline_of_an_aggregate_is_refused(tmp_path: Path) -> None:
    """An aggregate has no times: the error has the fix, and no file is written."""
    path, output = aggregate(tmp_path / "t.arrows", ({}, 3)), tmp_path / "out"
    words = ["export", "--format", "perfetto", "-o", str(output), str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", *words], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "--mode stream" in done.stderr
    assert not output.exists()


def test_renamed_task_keeps_its_track(tmp_path: Path) -> None:
    """A task that changes its name stays on its track, under its last name."""
    path = stream(tmp_path / "t.arrows", {"tid": 7, "comm": "old"}, {"tid": 7, "comm": "new"})
    timeline = Timeline(export(tmp_path, "perfetto", path)[0].read_bytes())
    track = timeline.track(tid=7)
    assert (timeline.tracks[track].thread.thread_name, len(timeline.events[track])) == ("new", 2)


def folded(text: str) -> dict[tuple[str, ...], int]:
    """Return stacks and counts as flamegraph.pl reads them: the count follows the last space."""
    lines = [line.rpartition(" ") for line in text.splitlines()]
    stacks = {tuple(words.split(";")): int(count) for words, _, count in lines}
    assert len(stacks) == len(lines)
    return stacks


def speedscope(text: str) -> list[dict[tuple[str, ...], int]]:
    """Return the profiles of a file that speedscope's own schema allows."""
    document = json.loads(text)
    jsonschema.Draft7Validator(json.loads(SPEEDSCOPE.read_text())).validate(document)
    names = [frame["name"] for frame in document["shared"]["frames"]]
    profiles = []
    for profile in document["profiles"]:
        stacks = [tuple(names[frame] for frame in sample) for sample in profile["samples"]]
        assert len(set(stacks)) == len(stacks)
        assert profile["endValue"] - profile["startValue"] == sum(profile["weights"])
        profiles.append(dict(zip(stacks, profile["weights"], strict=True)))
    return profiles


def test_stacks(tmp_path: Path) -> None:
    """Calls of the same task and stack are one stack, outermost first; those without one are separate."""
    calls: list[dict[str, Any]] = [
        {"comm": "cat", "stack": "entry;alloc", "order": 0},
        {"comm": "cat", "stack": "entry;alloc", "order": 3},
        {"comm": "dog", "stack": "entry;alloc", "order": 0},
        {"comm": "dog", "stack": None, "order": 1},
        {"comm": "dog", "stack": "entry", "order": 2, "page": False},
    ]
    path = stream(tmp_path / "t.arrows", *calls)
    output, messages = export(tmp_path, "folded", path)
    expected = {
        ("cat", "entry", "alloc"): 2,
        ("dog", "entry", "alloc"): 1,
        ("dog", "[no stack recorded]"): 1,
        ("dog", "entry"): 1,
    }
    assert messages == ""
    assert folded(output.read_text()) == expected
    counts, memory = speedscope(export(tmp_path, "speedscope", path)[0].read_text())
    assert counts == expected
    sizes = {("cat", "entry", "alloc"): 9, ("dog", "entry", "alloc"): 1, ("dog", "[no stack recorded]"): 2}
    assert memory == {stack: sizes.get(stack, 0) * 4096 for stack in expected}


def test_without_stacks_the_request_stands_there(tmp_path: Path) -> None:
    """Without recorded stacks, frames are the task, the mask and the order, and a message says so."""
    snapshot, rows = read(SLOW)
    output, messages = export(tmp_path, "folded", SLOW)
    assert messages.startswith("no stacks were recorded")
    frames = [
        (row["comm"], decode_gfp(row["gfp_mask"], snapshot.tables).text or "0x0", f"order {row['order']}")
        for row in rows
    ]
    assert folded(output.read_text()) == Counter(frames)
    counts, memory = speedscope(export(tmp_path, "speedscope", SLOW)[0].read_text())
    assert counts == Counter(frames)
    assert sum(memory.values()) == 4096 * sum(map(pages, rows))


def test_stacks_of_an_aggregate(tmp_path: Path) -> None:
    """It has no tasks; counts are calls, not rows."""
    path = aggregate(tmp_path / "t.arrows", ({"order": 0}, 5), ({"order": 0, "migratetype": 0}, 2), ({"order": 2}, 1))
    found = folded(export(tmp_path, "folded", path)[0].read_text())
    assert {stack[-1]: count for stack, count in found.items()} == {"order 0": 7, "order 2": 1}
    assert {len(stack) for stack in found} == {2}


@pytest.mark.parametrize("name", ["a;b", "a b 7", "new\nline", "", "näme"])
def test_any_name_is_one_frame(tmp_path: Path, name: str) -> None:
    """Whatever the task's name, its line has its frames and its count, and no control character."""
    path = stream(tmp_path / "t.arrows", {"comm": name, "stack": "entry"})
    (stack,) = folded(export(tmp_path, "folded", path)[0].read_text())
    assert (len(stack), stack[1]) == (2, "entry")
    (stack,) = speedscope(export(tmp_path, "speedscope", path)[0].read_text())[0]
    assert stack == (printable(name), "entry")
