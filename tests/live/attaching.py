# SPDX-License-Identifier: MIT
"""Records in a guest in one way of attaching, kills a recorder, and prints what was seen, as JSON.

usage: python -m tests.live.attaching WORD, which `record --attach` takes
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kalloctrace.trace.reader import TraceReader

_TRACING = Path("/sys/kernel/tracing")
_RECORD = (sys.executable, "-m", "kalloctrace", "record", "-f")
_WORK = (sys.executable, "-m", "kalloctrace.lab.workload", "mixed", "--pages", "1000")
_WAIT = 120
_SETTLE = 2
"""Seconds after which the kernel has detached what a killed process had attached."""


def functions() -> list[str]:
    """Return the functions for which ftrace calls something."""
    return [line.split()[0] for line in (_TRACING / "enabled_functions").read_text().splitlines() if line.strip()]


def bpf_files() -> int:
    """Return how many BPF programs, maps and links processes have open."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            found += "bpf" in os.readlink(file)  # noqa: PTH115  (the name of an anonymous file is no path)
        except OSError:
            continue
    return found


def killed(word: str, trace: str) -> dict[str, Any]:
    """Kill a recorder while it records; return what was attached, and what was left behind."""
    words = (*_RECORD, "-o", trace, "-d", "600", "--attach", word)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as recorder:
        assert recorder.stderr is not None
        while not recorder.stderr.readline().startswith("recording "):
            assert recorder.poll() is None
        attached = {"functions": functions(), "kprobe_events": (_TRACING / "kprobe_events").read_text()}
        recorder.send_signal(signal.SIGKILL)
        recorder.wait(_WAIT)
    time.sleep(_SETTLE)
    left = {"functions": functions(), "kprobe_events": (_TRACING / "kprobe_events").read_text(), "files": bpf_files()}
    return {"attached": attached, "left": left}


def main(word: str) -> int:
    """Record, verify, and kill; print the result."""
    with tempfile.TemporaryDirectory() as folder:
        trace = f"{folder}/x.arrows"
        subprocess.run((*_RECORD, "-o", trace, "--attach", word, "--", *_WORK), check=True)
        verified = subprocess.run(
            (sys.executable, "-m", "kalloctrace", "verify", "--json", trace), check=False, stdout=subprocess.PIPE
        )
        with TraceReader(Path(trace)) as reader:
            totals = reader.distinct()[1].totals
            assert totals is not None
            seen: dict[str, Any] = {"recording": dict(reader.recording), "totals": totals.to_json()}
        seen |= {"verification": json.loads(verified.stdout), "killed": killed(word, trace)}
    sys.stdout.write(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
