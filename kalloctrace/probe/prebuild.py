# SPDX-License-Identifier: MIT
"""Compiles the programs of a kernel without attaching them: `python -m kalloctrace.probe.prebuild CPUS…`, as root.

They are kept where `program_cache` finds them. The programs with filters are not among them.
"""

import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

from kalloctrace.console import stdout
from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.choice import NOTHING_ASKED
from kalloctrace.probe.attach.filters import Filters
from kalloctrace.probe.attach.loader import given
from kalloctrace.probe.attach.plan import By, Mode
from kalloctrace.probe.attach.program_cache import compiler_input, kept_path, obtain
from kalloctrace.probe.attach.sizes import map_sizes, power
from kalloctrace.probe.audit import FEW
from kalloctrace.probe.recorder import plan_for

_AGGREGATE: Mode = "aggregate"
_STREAM: Mode = "stream"
_BY: Sequence[By | None] = (None, "comm", "cgroup")
_KINDS: Sequence[tuple[Mode, By | None, bool, int]] = (
    *((_AGGREGATE, by, False, audited) for by in _BY for audited in (0, FEW)),
    *((_STREAM, None, stacks, FEW) for stacks in (False, True)),
)
"""Mode, what calls are counted by, whether stacks are captured, and how many calls an audit can count: what `record`
has, and `monitor` and `live`, which are not audited."""


def prebuild(kernel: LiveKernel, cpus: Sequence[int]) -> Iterator[Path]:
    """Compile the programs of recordings without filters, and yield where each is kept.

    Args:
        kernel: the running kernel.
        cpus: how many CPUs the machines may have; one program serves all up to the next power of two.

    Raises:
        KalloctraceError: the machine cannot be traced, a program cannot be compiled, or it cannot be kept.
    """
    done: set[Path] = set()
    for (mode, by, stacks, audited), count in product(_KINDS, sorted({power(count) for count in cpus})):
        filters = Filters()
        plan = plan_for(kernel, filters, mode=mode, asked=NOTHING_ASKED, slow=True, by=by, audited=audited)
        sources, constants = given(kernel, plan, filters, count, stacks=stacks, own=False)
        text, flags = compiler_input(sources, constants, map_sizes(plan, count, stacks=stacks))
        obtain(text, flags)
        path = kept_path(text, flags)
        if path is None or not path.exists():
            raise KalloctraceError(
                "the program cannot be kept",
                "the folder of programs cannot be written to, or the kernel shows no build id",
                "name another folder",
            )
        if path not in done:
            done.add(path)
            yield path


def main() -> None:
    """Print where each program is kept."""
    for path in prebuild(LiveKernel(), [int(count) for count in sys.argv[1:]]):
        stdout().line(str(path))


if __name__ == "__main__":
    main()
