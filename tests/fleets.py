# SPDX-License-Identifier: MIT
"""Datasets of traces, for the tests of the fleet."""

import os
import signal
from pathlib import Path
from typing import NoReturn

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


def killed(_: object) -> NoReturn:
    """End the process as the kernel does where memory is out."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
