# SPDX-License-Identifier: MIT
"""Each way is done to a program on its own terminal; the program must end by itself."""

import fcntl
import os
import pty
import random
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

READY = b"verdict"
"""A text of the first screen."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Victim:
    """A program on its own terminal.

    Attributes:
        pid: its process.
        end: our end of the terminal; -1 when it is closed.
        name: the path of the program's end.
        theirs: the program's end, held open by some ways; -1 otherwise.
        printed: what it has printed.
    """

    pid: int
    end: int
    name: str
    theirs: int = -1
    printed: bytes = b""

    def read(self, seconds: float) -> bool:
        """Read what the program prints within a time; return whether there was something."""
        if not select.select([self.end], [], [], seconds)[0]:
            return False
        try:
            self.printed += os.read(self.end, 1 << 16)
        except OSError:
            return False
        return True

    def wait_for(self, text: bytes, seconds: float) -> None:
        """Read until the program has printed a text."""
        deadline = time.monotonic() + seconds
        while text not in self.printed:
            assert self.read(0.1) or time.monotonic() < deadline, f"{text!r} is not in {self.printed[-2000:]!r}"
            assert not self.ended, f"it has ended: {self.printed[-2000:]!r}"

    def kill(self, *numbers: signal.Signals) -> None:
        """Send signals."""
        for number in numbers:
            os.kill(self.pid, number)

    def close(self) -> None:
        """Close our end: the terminal disappears."""
        os.close(self.end)
        self.end = -1

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the terminal."""
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def stop_output(self) -> None:
        """Stop the output, as Ctrl-S does."""
        self.theirs = os.open(self.name, os.O_RDWR | os.O_NOCTTY)
        termios.tcflow(self.theirs, termios.TCOOFF)

    def wait_until_stopped(self, *, read: bool = True) -> None:
        """Wait until the program has stopped, while its output is read."""
        deadline = time.monotonic() + 30
        while self._stat()[0] != "T":
            assert time.monotonic() < deadline, "it did not stop"
            _ = read and self.read(0.05)

    @property
    def ended(self) -> bool:
        """Return whether the program has ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    @property
    def cpu(self) -> float:
        """Return the CPU seconds of the program so far."""
        try:
            words = self._stat()
        except OSError:
            return 0.0
        return (int(words[11]) + int(words[12])) / _TICKS

    def _stat(self) -> list[str]:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()


@dataclass(frozen=True)
class Way:
    """What happens to the program.

    Attributes:
        act: does it; the program must end then.
        ready: wait for the first screen before.
        controlling: the terminal is that of the program's session, so that its end sends SIGHUP.
        ignored: signals that the program's parent ignored.
        term: `TERM`.
        size: rows and columns.
    """

    act: Callable[[Victim], object]
    ready: bool = True
    controlling: bool = True
    ignored: tuple[signal.Signals, ...] = ()
    term: str = "xterm-256color"
    size: tuple[int, int] = (24, 80)


def _unread(*numbers: signal.Signals) -> Callable[[Victim], None]:
    """Return a way in which nobody reads, until the terminal's buffer is full, and then signals come."""

    def act(victim: Victim) -> None:
        for rows in range(60, 40, -1):
            victim.resize(rows, 200)
            time.sleep(0.05)
        victim.kill(*numbers)

    return act


def _unread_and_closed(victim: Victim) -> None:
    _unread()(victim)
    victim.close()


def _stopped(victim: Victim) -> None:
    victim.stop_output()
    _unread(signal.SIGTERM)(victim)


def _storm(victim: Victim) -> None:
    for _ in range(300):
        victim.resize(random.randrange(1, 80), random.randrange(1, 250))  # noqa: S311 - no secret
        victim.read(0.0)
    victim.kill(signal.SIGTERM)


def _storm_and_closed(victim: Victim) -> None:
    for _ in range(300):
        victim.resize(random.randrange(80), random.randrange(250))  # noqa: S311 - no secret
    victim.close()


def _any_moment(act: Callable[[Victim], object]) -> Callable[[Victim], None]:
    """Return a way that comes at a random moment of the start or the first second."""

    def later(victim: Victim) -> None:
        deadline = time.monotonic() + random.random() * 2  # noqa: S311 - no secret
        while time.monotonic() < deadline:
            victim.read(0.01)
        act(victim)

    return later


def _suspended(*, closed: bool) -> Callable[[Victim], None]:
    """Return a way in which the program is suspended, and then its terminal or its job is ended."""

    def act(victim: Victim) -> None:
        victim.kill(signal.SIGTSTP)
        victim.wait_until_stopped()
        if closed:
            victim.close()
            victim.kill(signal.SIGHUP)
        else:
            victim.kill(signal.SIGTERM)
        victim.kill(signal.SIGCONT)

    return act


def _kill(*numbers: signal.Signals) -> Callable[[Victim], None]:
    return lambda victim: victim.kill(*numbers)


def _in_turn(*acts: Callable[[Victim], object]) -> Callable[[Victim], None]:
    def both(victim: Victim) -> None:
        for act in acts:
            act(victim)

    return both


WAYS: Mapping[str, Way] = {
    "closed": Way(Victim.close),
    "closed, not the session's": Way(Victim.close, controlling=False),
    "closed, SIGHUP ignored": Way(Victim.close, ignored=(signal.SIGHUP,)),
    "closed at any moment": Way(_any_moment(Victim.close), ready=False),
    "closed and SIGTERM": Way(_in_turn(Victim.close, _kill(signal.SIGTERM))),
    "SIGTERM at any moment": Way(_any_moment(_kill(signal.SIGTERM)), ready=False),
    "SIGINT at any moment, thrice": Way(_any_moment(_kill(*[signal.SIGINT] * 3)), ready=False),
    "SIGHUP": Way(_kill(signal.SIGHUP)),
    "SIGTERM twice": Way(_kill(signal.SIGTERM, signal.SIGTERM)),
    "nobody reads, SIGTERM": Way(_unread(signal.SIGTERM)),
    "nobody reads, SIGINT twice": Way(_unread(signal.SIGINT, signal.SIGINT)),
    "nobody has ever read, SIGTERM": Way(
        _in_turn(lambda _: time.sleep(2), _unread(signal.SIGTERM)),
        ready=False,
    ),
    "nobody reads, closed": Way(_unread_and_closed),
    "nobody reads, closed, not the session's": Way(_unread_and_closed, controlling=False),
    "output stopped, SIGTERM": Way(_stopped),
    "resized 300 times, SIGTERM": Way(_storm),
    "resized 300 times unread, closed": Way(_storm_and_closed),
    "size 0, SIGTERM": Way(_kill(signal.SIGTERM), size=(0, 0)),
    "size 1, closed": Way(_in_turn(lambda _: time.sleep(0.5), Victim.close), ready=False, size=(1, 1)),
    "TERM unknown, SIGTERM": Way(_kill(signal.SIGTERM), term="no-such-terminal"),
    "TERM empty, closed": Way(Victim.close, term=""),
    "suspended, SIGTERM": Way(_suspended(closed=False)),
    "suspended, closed": Way(_suspended(closed=True)),
}


def start(way: Way, program: Callable[[], object]) -> Victim:
    """Fork a process that runs a program on its own terminal.

    Args:
        way: what will happen.
        program: runs in the new process, and does not return.
    """
    end, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *way.size, 0, 0))
    pid = os.fork()
    if pid:
        name = os.ttyname(theirs)
        os.close(theirs)
        return Victim(pid, end, name)
    os.setsid()
    if way.controlling:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    for number in way.ignored:
        signal.signal(number, signal.SIG_IGN)
    for fd in range(3):
        os.dup2(theirs, fd)
    os.closerange(3, 64)
    # The objects of the parent know what kind of file these were.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout, sys.stderr = (open(fd, "w", encoding="utf-8", closefd=False) for fd in (1, 2))  # noqa: SIM115 - likewise
    os.environ.update(TERM=way.term, COLUMNS="", LINES="")
    program()
    raise AssertionError


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes:
        status: its exit status; a negative signal; None if it had to be killed.
        cpu: CPU seconds from the event to the end.
        seconds: seconds from the event to the end.
    """

    status: int | None
    cpu: float
    seconds: float


def suffer(way: Way, program: Callable[[], object], seconds: float, ready: float = 60) -> Outcome:
    """Run a program and do something to it.

    Args:
        way: what to do.
        program: see `start`.
        seconds: the program is killed so many seconds after that.
        ready: the first screen must be there within this many seconds.
    """
    victim = start(way, program)
    killed = False
    try:
        if way.ready:
            victim.wait_for(READY, ready)
        way.act(victim)
        cpu, begin = victim.cpu, time.monotonic()
        while not victim.ended:
            if time.monotonic() > begin + seconds:
                killed = True
                os.kill(victim.pid, signal.SIGKILL)
            time.sleep(0.01)
    except BaseException:
        os.kill(victim.pid, signal.SIGKILL)
        raise
    finally:
        lasted = time.monotonic() - begin if "begin" in locals() else 0.0
        _, status, usage = os.wait4(victim.pid, 0)
        for fd in (victim.end, victim.theirs):
            if fd >= 0:
                os.close(fd)
    code = None if killed else os.waitstatus_to_exitcode(status)
    return Outcome(code, max(0.0, usage.ru_utime + usage.ru_stime - cpu), lasted)


def kalloctrace(words: Sequence[str]) -> Callable[[], None]:
    """Return what runs the program with these arguments in a forked process."""

    def program() -> None:
        from kalloctrace.__main__ import run  # noqa: PLC0415 - a module of its own in each process

        sys.argv = ["kalloctrace", *words]
        run()

    return program
