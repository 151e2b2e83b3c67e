# SPDX-License-Identifier: MIT
"""Why the kernel skipped probe hits, in words: the counters that saw it, and the likely cause."""

from collections.abc import Iterator, Mapping
from typing import Any

from kalloctrace.trace.totals import Totals


def missed_causes(totals: Totals, recording: Mapping[str, Any]) -> Iterator[str]:
    """Yield a phrase for each counter that counted missed hits; none where they were not kept apart.

    Args:
        totals: of the recording, at its end or so far.
        recording: how it is made, as its trace describes it.
    """
    missed_by = totals.missed_by
    if missed_by is None:
        return
    if missed_by.program:
        yield _program(missed_by.program, totals.bpf_calls, str(recording.get("attach", "")))
    if missed_by.kprobe:
        yield f"{_hits(missed_by.kprobe, 'kprobe')} came in an interrupt, while a kprobe's handler was running there"
    if missed_by.memory:
        yield f"{_hits(missed_by.memory, 'probe')} found no memory for the probe"


def _program(hits: int, bpf_calls: int | None, attach: str) -> str:
    """Return what skipped the hits of a BPF program.

    A program on a trampoline is skipped while a preempted task is inside it. One of a kprobe runs with preemption off,
    but it is skipped while somebody's bpf(2) call holds bpf_prog_active of that CPU (bpf_disable_instrumentation() in
    include/linux/bpf.h), and while another program runs there.
    """
    if attach.endswith(":fentry"):
        return f"{_hits(hits, 'fentry')} came while the program was running on that CPU, mostly in a preempted task"
    seen = _hits(hits, "kprobe")
    if bpf_calls is None:
        return f"{seen} came while a BPF program or a bpf(2) call was running; such calls could not be counted"
    if bpf_calls:
        calls = f"{bpf_calls:,} such call{'s' * (bpf_calls != 1)} meanwhile"
        return f"{seen} {'was' if hits == 1 else 'were'} skipped while other programs used bpf(2); {calls}"
    return f"{seen} came in an interrupt, while a BPF program was running; nobody used bpf(2) meanwhile"


def _hits(count: int, probe: str) -> str:
    return f"{count:,} {probe} hit{'s' * (count != 1)}"
