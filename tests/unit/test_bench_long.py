# SPDX-License-Identifier: MIT
"""The replay of a long recording, which `make long` measures, in short."""

import io

from kalloctrace.probe.decode.comm import KEPT
from tests.bench.long import replay


def test_names_stay_right_when_others_are_discarded() -> None:
    """Every call is written, with the name of its own thread, in more forks than names are kept."""
    forks = 40_000
    assert forks > 2 * KEPT
    measured = replay(forks, io.BytesIO())
    assert (measured.calls, measured.unnamed, measured.wrong) == (2 * forks, 0, 0)


def test_counts_of_aggregate_mode_are_whole() -> None:
    """Every call is counted, though the counters are read many times."""
    assert replay(40_000, io.BytesIO(), "aggregate").calls == 80_000
