# SPDX-License-Identifier: MIT
"""The ways of attaching on real kernels: every allocation matches, and a killed recorder leaves nothing attached."""

import json
import os
import sys
from typing import Any

import pytest

from kalloctrace.lab.needs import lab_available
from kalloctrace.lab.run import run_in_guest

pytestmark = pytest.mark.live

WAYS = (("7.3", "pair:multi"), ("5.10", "pair:fentry"))


@pytest.fixture(scope="module", params=WAYS, ids=":".join)
def seen(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Record in a guest; return what attaching.py saw there, and the word that it was given."""
    missing = lab_available()
    if missing and os.environ.get("KALLOCTRACE_REQUIRE_LIVE") == "1":
        pytest.fail(f"no guest can be booted: {missing}")
    if missing:
        pytest.skip(f"NOT TESTED LIVE: no guest can be booted: {missing}")
    kernel, word = request.param
    # Beside the guest of test_guests.py.
    done = run_in_guest([sys.executable, "-m", "tests.live.attaching", word], kernel=kernel, timeout=1200)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return {"word": word, **json.loads(done.stdout)}


def test_every_allocation_matches(seen: dict[str, Any]) -> None:
    """None is lost, missed or unknown."""
    found = seen["verification"]
    assert seen["recording"]["attach"] == seen["word"]
    assert found["allocations"] > 1000
    assert found["matched"] == found["allocations"]
    assert (found["lost"], found["missed"]) == (0, 0)


def test_totals_add_up(seen: dict[str, Any]) -> None:
    """The recorder's own calls are left out and counted; nobody, so not the recorder either, made a bpf(2) call."""
    totals = seen["totals"]
    known = sum(totals[name] for name in ("submitted", "dropped", "no_room", "replaced", "running"))
    assert totals["opened"] == known
    assert totals["own"] > 0
    assert (totals["filtered"], totals["bpf_calls"]) == (0, 0)
    assert totals["missed_by"] == {"kprobe": 0, "program": 0, "memory": 0}


def test_a_killed_recorder_leaves_nothing_attached(seen: dict[str, Any]) -> None:
    """What it had attached is gone, and so are its files; kprobe.multi never has a definition in tracefs."""
    attached, left = seen["killed"]["attached"], seen["killed"]["left"]
    assert "get_page_from_freelist" in attached["functions"]
    assert "get_page_from_freelist" not in left["functions"]
    assert left["files"] == 0
    if seen["word"] == "pair:multi":
        assert attached["kprobe_events"] == left["kprobe_events"] == ""
