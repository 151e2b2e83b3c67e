# SPDX-License-Identifier: MIT
"""The replay of a long recording, which `make long` measures, in short."""

import io
from typing import Any

import pytest

from kalloctrace.probe.decode.comm import KEPT
from tests.bench.long import replay
from tests.bench.long_guests import judge


def test_names_stay_right_when_others_are_discarded() -> None:
    """Every call is written, with the name of its own thread, in more forks than names are kept."""
    forks = 40_000
    assert forks > 2 * KEPT
    measured = replay(forks, io.BytesIO())
    assert (measured.calls, measured.unnamed, measured.wrong) == (2 * forks, 0, 0)


def test_counts_of_aggregate_mode_are_whole() -> None:
    """Every call is counted, though the counters are read many times."""
    assert replay(40_000, io.BytesIO(), "aggregate").calls == 80_000


@pytest.mark.parametrize(
    ("changes", "good"),
    [
        ({}, True),
        ({"samples": [[50, 1000, 900], [1000, 1060, 900]]}, False),
        ({"samples": [[50, 1000, 900], [1000, 1000, 950]]}, False),
        ({"named": 992}, False),
        ({"named": None}, True),
        ({"calls": 4999}, False),
        ({"status": 1}, False),
    ],
)
def test_a_recording_in_a_guest_is_judged(changes: dict[str, Any], good: bool) -> None:
    """Memory may grow by a twentieth, and no more calls and children may be missing than are counted as lost."""
    totals = {
        "opened": 5004,
        "running": 2,
        "dropped": 1,
        "no_room": 1,
        "missed": 2,
        "replaced": 0,
        "names_dropped": 3,
        "seconds": 9.0,
    }
    measured = {"forks": 1000, "totals": totals, "named": 993, "calls": 5000, "status": 0, "bytes": 1}
    measured["samples"] = [[50, 1000, 900], [1000, 1050, 945]]
    assert judge(measured | changes)[1] is good
