# SPDX-License-Identifier: MIT
"""What the service and its worker have in common."""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kalloctrace.monitor.config import Config

Log = Callable[[str], None]
"""Takes lines for people."""

MOST_MESSAGE = 128 << 10
"""Bytes of one message between the service and its worker."""


@dataclass(frozen=True)
class Start:
    """What a worker gets from its service.

    Attributes:
        config: what to record.
        path: of the configuration, for messages.
        channel: to the service.
        listening: where to serve metrics; None for nowhere.
        starts: how often a recording was attached before.
        detached: how often it was detached before, by reason.
    """

    config: Config
    path: Path
    channel: socket.socket
    listening: socket.socket | None
    starts: int = 0
    detached: Mapping[str, int] = field(default_factory=dict)
