# SPDX-License-Identifier: MIT
"""A capture under way as metrics, without a kernel: what it would have counted is given here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from prometheus_client.core import Metric

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.report.metrics.prometheus import RecordingCollector
from kalloctrace.report.metrics.source import CaptureSource
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.totals import MissedBy, Totals
from tests.traces import source


@dataclass
class CaptureCounts:
    """What was counted at one state."""

    seconds: float
    rows: RowBatch
    totals: Totals


class Capture:
    """Counts one more call at each observation, and requires that observations do not overlap."""

    def __init__(self, lock: Lock) -> None:
        self.snapshot: Snapshot = source()[0]
        self.recording: Mapping[str, Any] = {"attach": "one:multi", "inferred": ["preferred_nid"]}
        self._lock = lock
        self._calls = 0

    def observe(self) -> CaptureCounts:
        """Return two rows of the same allocation."""
        assert self._lock.locked()
        _, totals, row = source()
        self._calls += 1
        allocations = pa.array([{field.name: row[field.name] for field in ALLOCATION}], ALLOCATION)
        counts = np.array([self._calls, 10], np.uint64)
        rows = RowBatch(allocations, np.zeros(2, np.int32), counts, {})
        opened = self._calls + 10
        return CaptureCounts(
            1.5 * self._calls,
            rows,
            replace(
                totals,
                opened=opened,
                submitted=opened,
                dropped=0,
                no_room=3,
                missed_by=MissedBy(kprobe=1, program=20, memory=300),
                bpf_calls=4_000,
            ),
        )


def values(metrics: list[Metric]) -> dict[str, float]:
    """Return the sum of each metric's samples."""
    return {metric.name: sum(sample.value for sample in metric.samples) for metric in metrics}


def test_capture_is_followed() -> None:
    """Each time the numbers are those of that state; the end is to come, and losses are known all the same."""
    lock = Lock()
    collector = RecordingCollector(CaptureSource(Capture(lock), lock, "live").now)
    first, second = values(list(collector.collect())), values(list(collector.collect()))
    assert (first["kalloctrace_allocations"], second["kalloctrace_allocations"]) == (11, 12)
    assert (first["kalloctrace_recording_seconds"], second["kalloctrace_recording_seconds"]) == (1.5, 3.0)
    assert second["kalloctrace_verdict_allocations"] == 12
    assert second["kalloctrace_not_judged_allocations"] == 12
    assert (second["kalloctrace_recording_complete"], second["kalloctrace_up"]) == (0, 1)
    assert second["kalloctrace_lost"] == 3
    assert (second["kalloctrace_missed_by"], second["kalloctrace_bpf_calls"]) == (321, 4_000)
    assert not {"kalloctrace_own", "kalloctrace_filtered"} & second.keys(), "they were not counted"
    assert not lock.locked()
