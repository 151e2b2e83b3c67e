# SPDX-License-Identifier: MIT
"""Datasets of traces, for the tests of the fleet."""

import json
import os
import signal
from pathlib import Path
from typing import NoReturn

from pyarrow import parquet

from kalloctrace.fleet.add import Adding
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.trace.reader import TraceReader


def add(path: Path | str, *traces: Path) -> Adding:
    """Add traces to a dataset."""
    with Dataset.opened(path, create=True) as dataset:
        adding = Adding(dataset)
        for trace in traces:
            with TraceReader(trace) as reader:
                adding.add(adding.read(reader))
        adding.commit()
    return adding


def drop_column(path: Path, table: str, column: str) -> None:
    """Make the files of a table those of a version that did not write a column."""
    sizes = {}
    for file in (path / table).rglob("*.parquet"):
        parquet.write_table(parquet.ParquetFile(file).read().drop_columns(column), file)
        sizes[file.relative_to(path).as_posix()] = file.stat().st_size
    for commit in (path / "_commits").iterdir():
        data = json.loads(commit.read_bytes())
        files = [{**file, "bytes": sizes.get(file["path"], file["bytes"])} for file in data["files"]]
        commit.write_text(json.dumps({**data, "files": files}), encoding="ascii")


def killed(_: object) -> NoReturn:
    """End the process as the kernel does where memory is out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
