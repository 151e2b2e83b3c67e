# SPDX-License-Identifier: MIT
"""Every command that reads a trace, on traces that were made to break it: three lines, or what could be read."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.commands.export import command as export
from kalloctrace.kernel.machine import machine_of
from kalloctrace.trace.schema import ALLOCATION, FORMAT_KEY, RECORDING_KEY, SNAPSHOT_KEY, aggregate_schema
from tests import traces
from tests.cli.every_reader import EXPORTS, OTHERS, READERS, commands

# The first test waits for all the commands of the fixture below, on a busy machine for minutes.
pytestmark = pytest.mark.timeout(900)

FAULTS = Path(__file__).parent / "data" / "faults"
SECONDS = 20
"""For one command on a busy machine; without a fault it takes less than one."""
KILOBYTES = 1 << 20
Run = dict[str, Any]


def metadata(**change: bytes) -> dict[bytes, bytes]:
    """Return the metadata of a trace, some of it changed."""
    snapshot, _, _ = traces.source()
    parts = {
        "format": b"2",
        "snapshot": json.dumps(snapshot.to_json()).encode(),
        "recording": b'{"mode": "aggregate"}',
        **change,
    }
    keys = {"format": FORMAT_KEY, "snapshot": SNAPSHOT_KEY, "recording": RECORDING_KEY}
    return {keys[name]: value for name, value in parts.items()}


def aggregate(path: Path, *batches: tuple[list[int], pa.StructArray], **change: bytes) -> Path:
    """Write an aggregate of batches: indices, and the dictionary so far."""
    schema = aggregate_schema(None).with_metadata(metadata(**change))
    options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=True)
    with path.open("wb") as file, pa.ipc.new_stream(file, schema, options=options) as writer:
        for indices, dictionary in batches:
            allocation = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), dictionary)
            counts = pa.array(np.ones(len(indices), np.uint64))
            writer.write_batch(pa.RecordBatch.from_arrays([counts, allocation], schema=schema))
    return path


def allocations(number: int) -> pa.StructArray:
    """Return that many times the same allocation."""
    _, _, row = traces.source()
    one = pa.array([{field.name: row[field.name] for field in ALLOCATION}], ALLOCATION)
    return one.take(pa.array(np.zeros(number, np.int32)))


def rows_that_unpack(path: Path) -> Path:
    """Write 20 million rows in some kilobytes."""
    return aggregate(path, ([0] * 20_000_000, allocations(1)))


def dictionary_that_unpacks(path: Path) -> Path:
    """Write two million equal allocations, 300 MB."""
    return aggregate(path, ([0], allocations(2_000_000)))


def deltas_that_unpack(path: Path) -> Path:
    """Write a dictionary that grows by 140,000 allocations with each batch."""
    return aggregate(path, *(([0], allocations(140_000 * number)) for number in (1, 2)))


def thousand_nodes(path: Path) -> Path:
    """Write the snapshot of a machine whose zonelists take minutes to predict."""
    snapshot, _, _ = traces.source()
    nodes = range(1000)
    machine = machine_of({0: [2]}, gfp_allowed_mask=0xFFFFFF)
    data = replace(snapshot, machine=machine).to_json()
    data["machine"]["nodes"] = [{"nid": nid, "zones": [{"index": 2, "present_pages": 1}]} for nid in nodes]
    data["machine"]["topology"] = {
        "possible": list(nodes),
        "distances": [[10] * 1000] * 1000,
        "cpus": [],
        "max_numnodes": 1024,
        "zonelist_builds": 1,
    }
    return aggregate(path, ([0], allocations(1)), snapshot=json.dumps(data).encode())


def large_snapshot(path: Path) -> Path:
    """Write 40 MB of JSON."""
    return aggregate(path, ([0], allocations(1)), snapshot=b"[" + b"0," * 20_000_000 + b"0]")


def deep_recording(path: Path) -> Path:
    """Write JSON that is nested more deeply than Python's stack."""
    return aggregate(path, ([0], allocations(1)), recording=b'{"a":' * 100_000 + b"0" + b"}" * 100_000)


MADE: list[Callable[[Path], Path]] = [
    rows_that_unpack,
    dictionary_that_unpacks,
    deltas_that_unpack,
    thousand_nodes,
    large_snapshot,
    deep_recording,
]
REFUSED = {
    **dict.fromkeys(("rows_that_unpack", "dictionary_that_unpacks", "large_snapshot", "deep_recording"), "verify"),
    **dict.fromkeys(("craft-nodes-negative", "craft-order-2e31", "craft-count-2e63", "schema-ip000"), "verify"),
}
"""Files of which nothing can be read."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Run]]:
    """Return the runs of every command by file."""
    folder = tmp_path_factory.mktemp("hostile")
    files = [make(folder / f"{make.__name__}.arrows") for make in MADE]
    files += sorted(file for file in FAULTS.iterdir())
    found: dict[str, list[Run]] = {}
    # Two processes: one bomb would hide another in the largest size of a process.
    for part in (files[: len(MADE)], files[len(MADE) :]):
        words = [sys.executable, "-m", "tests.cli.every_reader", *map(str, part)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0, (lines[-1:], done.returncode, done.stderr)
        for line in lines:
            file = next(Path(word).stem for word in line["words"] if word in set(map(str, part)))
            found.setdefault(file, []).append(line)
    return found


def test_no_command_is_forgotten() -> None:
    """A new command reads traces, and is attacked, or is named as one that does not."""
    assert READERS.keys() | OTHERS == commands()
    assert not READERS.keys() & OTHERS
    (formats,) = (option for option in export.params if option.name == "form")
    assert isinstance(formats.type, click.Choice)
    assert {form for form, *_ in EXPORTS} == set(formats.type.choices)


@pytest.mark.parametrize("file", [*(make.__name__ for make in MADE), *sorted(file.stem for file in FAULTS.iterdir())])
def test_each_command_keeps_the_contract(runs: dict[str, list[Run]], file: str) -> None:
    """The exit code is one of the contract, an error has three lines, and neither memory nor time is lost."""
    assert len(runs[file]) == sum(map(len, READERS.values())) + 1
    for run in runs[file]:
        assert run["raised"] == "", run
        # Most of these traces lack what a question asks for, which is wrong usage.
        assert run["code"] in {0, 1, 3, 4} | ({2} if {"--by", "--slow"} & {*run["words"]} else set()), run
        assert "Traceback" not in run["stderr"], run
        assert "bug in kalloctrace" not in run["stderr"], run
        if run["code"] in {1, 2}:
            assert [line.split(":")[0].strip() for line in run["stderr"].splitlines()[-3:]] == [
                "error",
                "why",
                "fix",
            ], run
        assert run["seconds"] < SECONDS, run
        assert run["kilobytes"] < KILOBYTES, run


@pytest.mark.parametrize("file", sorted(REFUSED))
def test_file_without_anything_to_read_is_refused(runs: dict[str, list[Run]], file: str) -> None:
    """Damage from the start is an error, and no empty recording."""
    run = next(run for run in runs[file] if run["words"][0] == REFUSED[file])
    assert run["code"] == 1
    assert "cannot read" in run["stderr"]
