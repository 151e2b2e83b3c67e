# SPDX-License-Identifier: MIT
"""The state of the service, of which its metrics are made."""

from collections.abc import Mapping
from dataclasses import dataclass

from kalloctrace.monitor.recording import Cost


@dataclass(frozen=True)
class ServiceState:
    """The state of the service.

    Attributes:
        attached: something is attached to the kernel.
        starts: how often a recording was attached since the service started.
        detached: how often it was detached, by reason.
        cost: of the recording.
        bounds: the most percent of the processors and the most bytes resident that it may take.
        segments: how many are kept, the one that is being written included.
        segment_bytes: their size.
        removed: how many were removed, by reason.
        dropped: calls that found no room on the disk.
        waiting: bytes that wait for room on the disk.
    """

    attached: bool
    starts: int
    detached: Mapping[str, int]
    cost: Cost
    bounds: tuple[float, int]
    segments: int
    segment_bytes: int
    removed: Mapping[str, int]
    dropped: int
    waiting: int
