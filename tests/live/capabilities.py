# SPDX-License-Identifier: MIT
"""Finds out on the running kernel which capabilities suffice to record, by leaving out one after another.

In a guest, in about four minutes:

    kalloctrace lab run --kernel 6.12 -- python3 -m tests.live.capabilities [--paranoid 2] [--locked-memory KIB]
"""

import argparse
import ctypes
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.privileges.capabilities import Capability
from kalloctrace.probe.privileges.needed import sufficient_capabilities
from kalloctrace.system_calls import PR_CAP_AMBIENT, PR_CAPBSET_DROP, prctl

NOBODY = 65534
_KEEP_CAPABILITIES = 8
_AMBIENT_RAISE = 2
_LAST = 40
_MAPS_WITHOUT_BPF = (5, 19)
"""Linux kernel commit c8644cd0efe7 ("bpf: refine kernel.unprivileged_bpf_disabled behaviour") (in v5.19)."""

# Doctor's own check would refuse to try.
_RECORD = """
import sys
from kalloctrace.probe import checks
checks._privilege = lambda kernel: ("pass", "", "")
from kalloctrace.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def as_user(
    command: Sequence[str], capabilities: Collection[str], locked_memory: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as the user nobody with exactly these capabilities.

    Args:
        command: the program and its arguments.
        capabilities: their names, such as `cap_bpf`.
        locked_memory: RLIMIT_MEMLOCK in bytes; None leaves it.
    """
    numbers = [Capability[name.removeprefix("cap_").upper()] for name in capabilities]

    def become() -> None:
        if locked_memory is not None:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked_memory, locked_memory))
        prctl(_KEEP_CAPABILITIES, 1)
        for number in range(_LAST + 1):
            if number not in numbers:
                prctl(PR_CAPBSET_DROP, number)
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        mask = sum(1 << number for number in numbers)
        low, high = mask & 0xFFFFFFFF, mask >> 32
        libc = ctypes.CDLL(None)
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        libc.capset(header, (ctypes.c_uint32 * 6)(low, low, low, high, high, high))
        for number in numbers:
            libc.prctl(PR_CAP_AMBIENT, _AMBIENT_RAISE, ctypes.c_ulong(number), 0, 0)

    return subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=become)


def require_unprivileged(pid: int) -> None:
    """Require that no thread of a recorder has a capability, but for CAP_BPF where the kernel wants it to read maps."""
    old = tuple(map(int, os.uname().release.split(".")[:2])) < _MAPS_WITHOUT_BPF
    allowed = {0, 1 << Capability.BPF} if old else {0}
    for task in Path(f"/proc/{pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        pairs = (line.split(":\t") for line in lines if line.startswith(("Cap", "NoNewPrivs:", "Seccomp:")))
        found = {name: int(value, 16) for name, value in pairs}
        assert found["CapEff"] in allowed, found
        assert found["CapPrm"] == found["CapEff"], found
        assert (found["CapBnd"], found["CapInh"], found["CapAmb"]) == (0, 0, 0), found
        assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 2), found


def main() -> int:
    """Print what happens with the set that doctor names, and with each capability left out; return 1 on a surprise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--paranoid", type=int, help="set kernel.perf_event_paranoid first")
    parser.add_argument("--locked-memory", type=int, help="RLIMIT_MEMLOCK in KiB")
    parser.add_argument("--attach", default="auto", help="as for record")
    given = parser.parse_args()
    locked = None if given.locked_memory is None else given.locked_memory << 10
    if given.paranoid is not None:
        Path("/proc/sys/kernel/perf_event_paranoid").write_text(str(given.paranoid), encoding="ascii")
    if locked is not None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (locked, locked))
    needed = {str(capability) for capability in sufficient_capabilities(LiveKernel())}
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", _RECORD, "record", "-f", "-o", f"{folder}/x.arrows", "--attach", given.attach]
        for left_out in (None, *sorted(needed)):
            try:
                done = as_user([*command, "--", "true"], needed - {left_out}, locked)
            except PermissionError:
                sys.exit(
                    f"without {left_out} nobody cannot execute {sys.executable}: use a Python that anybody may read"
                )
            expected = (done.returncode == 0) == (left_out is None)
            wrong += not expected
            reason = "" if done.returncode == 0 else re.sub(r"\s*\n\s*", " | ", done.stderr.strip())
            name = f"with {' '.join(sorted(needed))}" if left_out is None else f"without {left_out}"
            print(f"{os.uname().release} {given.attach} {name}: {done.returncode} {reason}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
