# SPDX-License-Identifier: MIT
"""A trace as the source of a kernel's tables and machine, for every command that takes one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"


def answer(*words: str) -> dict[str, Any]:
    """Run the program and return the object that it prints."""
    command = [sys.executable, "-m", "kalloctrace", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_decode_takes_a_traces_own_tables() -> None:
    """GFP_ATOMIC is 0xa20 on the recorded kernel, whatever it is on this one."""
    found = answer("decode", "--json", "--kernel", str(TRACE), "0xa20")
    assert found["text"] == "GFP_ATOMIC"
    assert found["kernel"].startswith("5.10.0-")
    assert "tracefs" in found["source"]


def test_explain_takes_a_traces_kernel_and_machine() -> None:
    """Node 1 of the recorded machine has no DMA32, so that ALLOC_NOFRAGMENT does not apply to it."""
    request = ("explain", "--json", "--kernel", str(TRACE), "--gfp", "GFP_KERNEL", "--order", "0")
    assert answer(*request, "--nid", "0")["alloc_flags"] == 0x901
    assert answer(*request, "--nid", "1")["alloc_flags"] == 0x801


def test_explain_takes_another_kernel_on_a_traces_machine() -> None:
    """What would a newer kernel do on the same machine?"""
    found = answer("explain", "--json", "--kernel", "7.3", "--machine", str(TRACE), "--gfp", "0x820", "--order", "1")
    assert found["alloc_flags"] == 0xB01
    assert found["preferred_zone"] == {"node": 0, "zone": "Normal"}
