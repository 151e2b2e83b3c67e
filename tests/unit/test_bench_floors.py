# SPDX-License-Identifier: MIT
"""The empty programs of `make bench`: what the kernel is asked for. Guests run them."""

from pathlib import Path

import pytest

from tests.bench import floors


def test_a_program_must_run_for_each_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that ran least counts; statistics cost something, and are off afterwards."""
    counts = iter([10, 20, 10 + floors.PAGES, 20 + floors.PAGES - 1])
    statistics = tmp_path / "bpf_stats_enabled"

    def runs(_: int) -> int:
        assert statistics.read_text() == "1"
        return next(counts)

    monkeypatch.setattr(floors, "runs", runs)
    monkeypatch.setattr(floors, "_STATISTICS", statistics)
    assert floors.seen([1, 2]) == floors.PAGES - 1
    assert statistics.read_text() == "0"
