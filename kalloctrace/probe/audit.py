# SPDX-License-Identifier: MIT
"""Runs the pair beside one probe for a while, and compares what both saw.

Without being asked, right before and right after the recording: nothing is captured then, so that the audit adds
nothing to its cost. Calls of this process make sure that there are some to compare. `--audit` compares while the
recording runs.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.calibration import touch
from kalloctrace.probe.attach.loader import Probe
from kalloctrace.probe.attach.plan import Plan
from kalloctrace.probe.decode.audited import Comparison
from kalloctrace.trace.audited import Audited

SHORT = 0.1
"""Seconds of the audit before and after a recording."""
FEW, MANY = 4096, 65536
"""How many different calls can be counted by an audit before and after a recording, and by one meanwhile."""


@dataclass(frozen=True)
class Times:
    """When to audit while a recording runs.

    Attributes:
        seconds: how long, from the beginning on.
        every: seconds from one beginning to the next; None to audit once.
    """

    seconds: float
    every: float | None = None


class Audit:
    """The audit of one recording.

    Args:
        probe: one probe, which was loaded with the pair.
        kernel: the running kernel.
        plan: what is attached to.
        times: when to audit; None for before and after the recording.
    """

    def __init__(self, probe: Probe, kernel: LiveKernel, plan: Plan, times: Times | None) -> None:
        self._probe, self._times = probe, times
        self._comparison = Comparison(
            "scope_bits" not in plan.inferred,
            dict(kernel.tables.gfp_bits)["__GFP_HARDWALL"],
            kernel.features.interrupt_mask,
        )
        self._windows, self._missed, self._failure = 0, 0, probe.no_audit
        self._seconds = 0.0
        self._opened: float | None = None
        self._missed_before = 0
        self._next: float | None = None

    def before(self) -> None:
        """Attach the pair, before anything is captured; without `times`, audit and detach it again.

        Raises:
            KalloctraceError: it cannot be attached, although the user asked for it.
        """
        if self._times is None:
            self._at_rest()
        else:
            self._probe.attach_audit()

    def begun(self) -> None:
        """Capture has begun."""
        if self._times is not None:
            self._open()

    def step(self) -> None:
        """Begin or end an audit whose time has come."""
        now = time.monotonic()
        if self._times is None or self._failure:
            return
        if self._opened is not None and now >= self._opened + self._times.seconds:
            self._next = None if self._times.every is None else self._opened + self._times.every
            self._close()
        elif self._opened is None and self._next is not None and now >= self._next:
            with self._noting():
                self._probe.attach_audit()
                self._open()

    def after(self) -> None:
        """Nothing is captured any more."""
        if self._opened is not None:
            self._close()
        if self._times is None and not self._failure:
            self._at_rest()

    def result(self) -> Audited:
        """Return what was found, after `after`."""
        found = self._comparison.compare(*self._probe.audited())
        unpaired, full = self._probe.audit_alone()
        return Audited(
            windows=self._windows,
            seconds=round(self._seconds, 6),
            one=found.one,
            pair=found.pair,
            differing=found.differing,
            edges=2 * self._windows * (os.cpu_count() or 1),
            missed=self._missed,
            unpaired=unpaired,
            full=full,
            fields=found.fields,
            failure=self._failure,
        )

    def _at_rest(self) -> None:
        with self._noting():
            self._probe.attach_audit()
            self._open()
            touch()
            time.sleep(SHORT)
            self._close()

    def _open(self) -> None:
        self._missed_before = self._probe.audit_missed()
        self._probe.open_audit()
        self._opened = time.monotonic()

    def _close(self) -> None:
        if self._opened is None:
            return
        self._seconds += time.monotonic() - self._opened
        self._probe.close_audit()
        self._missed += self._probe.audit_missed() - self._missed_before
        self._probe.detach_audit()
        self._windows += 1
        self._opened = None

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Keep why an audit that was not asked for, or a later one, could not be made."""
        try:
            yield
        except KalloctraceError as error:
            self._failure = error.why
            self._probe.detach_audit()
