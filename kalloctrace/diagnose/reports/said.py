# SPDX-License-Identifier: MIT
"""What a message says by itself, whatever stands before it; alike reports have many lines in common."""

import re
from functools import lru_cache
from typing import NamedTuple

from kalloctrace.diagnose.reports.headers import may_begin
from kalloctrace.diagnose.reports.tasks import OOM_HINTS
from kalloctrace.diagnose.reports.zones import StateLine, state_line
from kalloctrace.flags.logforms import ReleaseText, release_in

_TASK_LINE = re.compile(
    r"(?:CPU: (?P<cpu>\d{1,5}) )?(?:UID: \d{1,10} )?(?:PID|Pid): (?P<pid>\d{1,10}),? [Cc]omm: (?P<comm>.{1,64}?) {1,8}"
    r"(?:Kdump: loaded {1,8})?(?:Not tainted|Tainted:)"
)
_CPUSET_LINE = re.compile(r"(?P<comm>.{1,64}?) cpuset=\S{0,255}? mems_allowed=[\d,-]*\d$")
_SUPPRESSED = re.compile(r"(?:.*\s)?(?P<function>\w+): (?P<number>\d{1,10}) (?:(?:\w+ )?callbacks|messages) suppressed")

# src/journal/journald-kmsg.c of systemd; kernel/printk/printk.c.
_LOST = re.compile(
    r".*?(?:\bMissed (?P<missed>\d{1,10}) kernel messages|\*\* ?(?P<dropped>\d{1,10}) printk messages dropped)"
)

# src/shared/logs-show.c of systemd; up to v246 it prints "-- Reboot --".
_ANOTHER = re.compile(r"-- (?:Boot [0-9a-f]{32}|Reboot) --$|Message-ID:(?:\s|$)", re.IGNORECASE)
ANOTHER_HINTS = ("-- Boot ", "-- Reboot", "Message-I")

_REMEMBERED = 1024
"""Texts whose reading is kept: some reports of a machine."""


class Said(NamedTuple):
    """What one text says; it is at most one of these, but a first line may be another line as well.

    Attributes:
        may_begin: it has words that begin a report.
        release: the kernel that it names.
        another: another boot, or another mail, begins.
        task: the task that it names, with its CPU.
        cpuset: the name of the task whose cpuset it shows.
        kill: it has words of a kill.
        suppressed: the function and the number of reports that the rate limit suppressed.
        lost: how many messages it says were lost.
        state: it is a line of the state of memory.
    """

    may_begin: bool = False
    release: ReleaseText | None = None
    another: bool = False
    task: re.Match[str] | None = None
    cpuset: str | None = None
    kill: bool = False
    suppressed: re.Match[str] | None = None
    lost: int = 0
    state: StateLine | None = None


@lru_cache(maxsize=_REMEMBERED)
def said_by(text: str) -> Said:
    """Read a message.

    Args:
        text: of the message.
    """
    state = state_line(text)
    if state is not None and state.alone:
        return Said(state=state)
    names_task = "omm:" in text
    task = _TASK_LINE.match(text, max(text.find("CPU: "), text.find("Pid: "), 0)) if names_task else None
    cpuset = _CPUSET_LINE.match(text) if "mems_allowed=" in text else None
    return Said(
        may_begin=may_begin(text),
        release=release_in(text),
        another=any(map(text.__contains__, ANOTHER_HINTS)) and _ANOTHER.match(text) is not None,
        task=task,
        cpuset=cpuset["comm"] if cpuset is not None else None,
        kill=any(map(text.__contains__, OOM_HINTS)),
        suppressed=_SUPPRESSED.match(text) if "suppressed" in text else None,
        lost=_lost(text) if " messages" in text else 0,
        state=state,
    )


def _lost(text: str) -> int:
    match = _LOST.match(text)
    return int(match["missed"] or match["dropped"]) if match is not None else 0
