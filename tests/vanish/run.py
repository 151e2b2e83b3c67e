# SPDX-License-Identifier: MIT
"""Does each of the ways many times to `kalloctrace live`, and counts how often it did not end as it must.

python -m tests.vanish.run --times 100                a replay, on this machine
python -m tests.vanish.run --times 3 --seconds 10 --capture       in a guest, as root
"""

import argparse
import importlib
import sys
from pathlib import Path

from tests.vanish.ways import WAYS, kalloctrace, suffer

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
_TRACEFS = Path("/sys/kernel/tracing")
_MODULES = ("kalloctrace.cli", "kalloctrace.commands.live", "kalloctrace.live.tui", "kalloctrace.live.plain", "psutil")
CPU_SECONDS = 1.0
"""Of this machine; a guest has a limit of real time instead."""


def attached() -> str:
    """Return what is attached to the kernel."""
    files = [_TRACEFS / "enabled_functions", _TRACEFS / "kprobe_events", Path("/sys/kernel/debug/kprobes/list")]
    return "".join(path.read_text() for path in files if path.exists())


def main() -> int:
    """Return 1 if the program once did not end as it must."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="the limit of real time for one end")
    parser.add_argument("--capture", action="store_true", help="trace this kernel instead of a replay")
    parser.add_argument("--only", default="", metavar="WAY", help="one way")
    wanted = parser.parse_args()
    words = ["live", "-i", "0.2", *(() if wanted.capture else ("--replay", str(TRACE)))]
    # The processes are forked: what they share is imported once.
    for name in _MODULES:
        importlib.import_module(name)
    failures = 0
    for name, way in WAYS.items():
        if wanted.only not in {"", name}:
            continue
        worst_cpu = worst = 0.0
        bad: list[str] = []
        for _ in range(wanted.times):
            before = attached() if wanted.capture else ""
            outcome = suffer(way, kalloctrace(words), wanted.seconds, ready=120)
            worst_cpu, worst = max(worst_cpu, outcome.cpu), max(worst, outcome.seconds)
            late = not wanted.capture and way.ready and outcome.cpu > CPU_SECONDS
            left = wanted.capture and attached() != before
            if outcome.status != 0 or late or left:
                bad.append(f"{outcome}{' probes left' if left else ''}")
        failures += len(bad)
        print(f"{wanted.times - len(bad)}/{wanted.times} {name}: at most {worst_cpu:.2f} s CPU, {worst:.1f} s", *bad)
        sys.stdout.flush()
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
