# SPDX-License-Identifier: MIT
"""Which kernel printed which part of a log: machines are started again, often with another kernel."""

from dataclasses import dataclass

from kalloctrace.flags.logforms import ReleaseText
from kalloctrace.logs.messages import Message

_BACK = 10.0
"""Seconds since boot that no order of lines explains: the clock began anew."""
_AT_START = 1.0
_SINCE_BOOT = 1e8
"""Seconds: no machine runs for so long, and the time of day has more."""
_MOST_HOSTS = 64
_BOOT_LINE = "Linux version "


@dataclass(eq=False, slots=True)
class Boot:
    """A machine from one start to the next, as far as the log shows it.

    Attributes:
        release: its kernel; None if no line has named it yet.
        line: the number of the line that named it first.
        time: seconds since boot of its latest line; None if none are printed.
        over: the machine was started again.
    """

    release: ReleaseText | None = None
    line: int = 0
    time: float | None = None
    over: bool = False


class Boots:
    """The boots of a log, by host."""

    def __init__(self) -> None:
        """Begin a log."""
        self._boots = {"": Boot()}
        self._unnamed = True

    def of(self, message: Message) -> Boot:
        """Return the boot that a message is of."""
        host = _short(message.host)
        boot = self._boots.get(host)
        if boot is None:
            boot = self._begin(host)
        time = message.time
        if time is not None and time < _SINCE_BOOT:
            if boot.time is not None and time < boot.time - _BACK:
                boot = self._again(message, boot)
            boot.time = time
        return boot

    def named(self, message: Message, release: ReleaseText) -> bool:
        """Note that a message names the kernel; return whether the machine was started there.

        The kernel's first line has the time 0 since boot; one with a later time is a person's, such as the output of
        `cat /proc/version` below a log.
        """
        boot = self.of(message)
        late = message.time is not None and _AT_START < message.time < _SINCE_BOOT
        started = release.comm is None and not late and _BOOT_LINE in message.text
        other = boot.release is not None and boot.release.release != release.release
        if started or other:
            boot = self._again(message, boot)
            boot.time = message.time
        if boot.release is None:
            boot.line = message.line
        boot.release = release
        return started

    def another(self, message: Message) -> None:
        """Note that a line of the log's own says that another boot or machine begins."""
        self._again(message, self.of(message))

    def _begin(self, host: str) -> Boot:
        """Return the boot of a host that was not named before.

        What stands above the log, such as the output of `uname -a`, is about the first host.
        """
        if len(self._boots) >= _MOST_HOSTS:
            self._boots = {"": self._boots[""]}
        boot = self._boots[""] if self._unnamed else Boot()
        self._boots[host] = boot
        self._unnamed = False
        return boot

    def _again(self, message: Message, before: Boot) -> Boot:
        before.over = True
        boot = Boot()
        for host, other in self._boots.items():
            if other is before:
                self._boots[host] = boot
        self._boots[_short(message.host)] = boot
        return boot


def _short(host: str) -> str:
    """Return a host's name without its domain, which not every program prints."""
    return host if host[:1].isdecimal() else host.partition(".")[0]
