# SPDX-License-Identifier: MIT
"""A snapshot is checked before it is used: types, ranges, and what its values have in common."""

import json
from functools import cache
from typing import Any

import pytest

from kalloctrace.kernel.shapes import ShapeError, parse_json
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.metadata import recording_of, snapshot_of, totals_of
from tests import traces


@cache
def source() -> str:
    """Return the JSON of a real machine with two nodes."""
    snapshot, _, _ = traces.source()
    return json.dumps(snapshot.to_json())


def changed(path: str, value: Any) -> Any:  # noqa: ANN401
    """Return the JSON value of that machine with another value at a path such as "machine.nodes.0.nid"."""
    data = json.loads(source())
    *parents, last = path.split(".")
    place = data
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    place[int(last) if isinstance(place, list) else last] = value
    return data


def without(table: str, flag: str) -> Any:  # noqa: ANN401
    """Return the JSON value of that machine without a flag."""
    return changed(f"tables.{table}", [entry for entry in json.loads(source())["tables"][table] if entry[0] != flag])


def test_snapshot_survives() -> None:
    """What is written is read back, also with keys of a newer writer."""
    snapshot, _, _ = traces.source()
    assert snapshot_of(source().encode()) == snapshot
    assert Snapshot.from_json({**json.loads(source()), "later": 1}) == snapshot


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("release", 5, "release is no text"),
        ("release", "x" * 257, "release is no text of at most 256"),
        ("version", "\ud800", "version holds half of a surrogate pair"),
        ("features", [], "features is no object"),
        ("features.max_order", 1 << 31, "features.max_order is not from 0 to 30"),
        ("features.max_order", True, "features.max_order is no integer"),
        ("features.nolock", "x", "features.nolock is none of"),
        ("features.config_cma", 1, "neither true nor false"),
        ("tables.alloc", [["ALLOC_OOM", "8"]], r"tables.alloc\[0\]\[1\] is no integer"),
        ("tables.pf", [["x", 1 << 32]], "is not from 0 to 4294967295"),
        ("tables.gfp_bits", [["a", 1]] * 257, "has 257 items, more than 256"),
        ("tables.zone_type", [["ZONE_NORMAL", 9]], "is not from 0 to 8"),
        ("tables.zone_type", [["ZONE_DMA", 0]], "has no ZONE_NORMAL"),
        ("machine.nodes.0.nid", -1, r"machine.nodes\[0\].nid is not from 0 to 1023"),
        ("machine.nodes.1.nid", 1024, "is not from 0 to 1023"),
        ("machine.nodes.1.nid", 0, "machine.nodes is not in ascending order"),
        ("machine.nodes.0.zones.0.index", -1, "is not from 0 to 7"),
        ("machine.nodes.0.zones.0.index", 1, "the zones of node 0 is not in ascending order"),
        ("machine.nodes.0.zones.0.present_pages", 1 << 63, "is not from 0"),
        ("machine.fallback", {"-1": []}, "a key of machine.fallback is no number from 0 to 1023"),
        ("machine.fallback", {"01": []}, "a key of machine.fallback is no number from 0 to 1023"),
        ("machine.fallback", {"0": [[0, 1, 2]]}, "is no list of 2"),
        ("machine.fallback", {"0": [[0, 7]]}, "names a zone twice, or one that no node has"),
        ("machine.nofallback", {"0": [[0, 1], [0, 1]]}, "names a zone twice, or one that no node has"),
        ("machine.gfp_allowed_mask", 1.5, "is no integer"),
        ("machine.topology", {"possible": [0]}, "machine.topology.distances is missing"),
        ("evidence", {"entry": None}, "evidence.entry is no text"),
    ],
)
def test_damaged_snapshot_names_the_value(path: str, value: Any, why: str) -> None:  # noqa: ANN401
    """The error names the place and what is wrong with it."""
    with pytest.raises(ShapeError, match=why):
        Snapshot.from_json(changed(path, value))


@pytest.mark.parametrize(
    ("table", "flag"), [("alloc", "ALLOC_OOM"), ("gfp_bits", "__GFP_NOFAIL"), ("pf", "PF_MEMALLOC")]
)
def test_snapshot_needs_each_flag_of_every_kernel(table: str, flag: str) -> None:
    """A flag that the model needs is missed when the trace is opened."""
    with pytest.raises(ShapeError, match=f"lack {flag}"):
        Snapshot.from_json(without(table, flag))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"NaN", b'{"a": Infinity}', b"1" * 5000, b"[" * 100_000, b'"' + b"x" * 2000 + b'"'],
    ids=["empty", "cut", "not UTF-8", "NaN", "Infinity", "long", "deep", "large"],
)
def test_json_that_is_none(data: bytes) -> None:
    """Each is a ValueError, also where Python's reader would raise another."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(data, 1000 if data.startswith(b'"') else 1 << 20)


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 1e300},
        {"seconds": -1},
        {"opened": 1 << 63},
        {"missed": None},
        {"slow_lost": []},
        {"reason": 1},
        {"own": -1},
        {"bpf_calls": "1"},
        {"missed_by": 1},
        {"missed_by": {"kprobe": 1, "program": 1}},
        {"missed_by": {"kprobe": 1, "program": -1, "memory": 0}},
    ],
    ids=str,
)
def test_damaged_totals(change: dict[str, Any]) -> None:
    """A number that no recording counts is damage."""
    _, totals, _ = traces.source()
    assert totals_of(json.dumps(totals.to_json()).encode()) == totals
    with pytest.raises(ShapeError, match=next(iter(change))):
        totals_of(json.dumps({**totals.to_json(), **change}).encode())


@pytest.mark.parametrize(
    "recording",
    [
        [],
        {"mode": 1},
        {"filters": 1},
        {"filters": {"sample": "x"}},
        {"filters": {"gfp_any": -1}},
        {"attach": 1},
        {"inferred": None},
        {"inferred": "hardwall"},
        {"inferred": ["what nobody infers"]},
        {"inferred": [[]]},
        {"x": {"y": "\ud800"}},
    ],
    ids=str,
)
def test_damaged_description_of_a_recording(recording: Any) -> None:  # noqa: ANN401
    """The description of the recording is checked as well."""
    assert recording_of(b'{"mode": "stream", "later": [1]}') == {"mode": "stream", "later": [1]}
    with pytest.raises(ShapeError):
        recording_of(json.dumps(recording).encode())
