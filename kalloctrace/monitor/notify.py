# SPDX-License-Identifier: MIT
"""What a service manager wants to hear: sd_notify(3), a datagram to the socket that the environment names."""

import os
import socket
import time
from contextlib import suppress

_WAIT = 1.0
"""Seconds that a change of state waits for a manager that is behind; a lost sign of life is followed by another."""


class ServiceManager:
    """Tells the service manager the state of the service; does nothing without one.

    Attributes:
        watchdog: seconds within which it must hear from the service; None if it does not watch.

    The variables are removed from the environment, so that no other process answers in place of this one.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds, pid = (os.environ.pop(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID"))
        ours = microseconds.isdecimal() and pid in {"", str(os.getpid())}
        self.watchdog = int(microseconds) / 1e6 if ours else None

    def ready(self) -> None:
        """The service has started, or has read its configuration again."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """Show a line for people."""
        self._send(f"STATUS={text.splitlines()[0]}")

    def alive(self) -> None:
        """The service does its work."""
        self._send("WATCHDOG=1", wait=0.0)

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def _send(self, text: str, wait: float = _WAIT) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        # A manager that does not listen must not end the service.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(wait)
            to.sendto(text.encode(), address)
