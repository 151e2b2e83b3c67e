# SPDX-License-Identifier: MIT
"""Signals that end the program.

A recorder (`record`, `live`, `monitor`, `serve-metrics`) ends in order: it detaches, completes its trace and exits with
0. Python runs a signal's handler only in the main thread and only between two bytecodes, so a thread watches that a
signal has an effect even if the main thread is inside a long call, such as the compiler, or a write that nobody reads.
"""

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from kalloctrace.errors import KalloctraceError
from kalloctrace.recorders import ENDING_SIGNALS
from kalloctrace.text import file_name

GRACE = 5.0
"""Seconds in which the main thread must notice that the recording was ended, before the program is aborted; more if
the thread does not get a processor in this time."""
_GRACE_CPU = 1.0
"""Seconds of processor time that the thread gets all the same."""
_LONGEST_GRACE = 60.0
"""Seconds, however busy the machine is."""
LAST_WORDS = 2.0
"""Seconds for the messages after a recording that was ended, before the program exits without them."""
_ABORT = 2.0
"""Seconds to detach in an abort; the kernel detaches what is left when the process exits."""
_WAKE, _WORK = 0, 255
"""No signal has these numbers."""

Handler = Callable[[int, Any], object]


class Terminated(BaseException):
    """SIGTERM or SIGHUP; raised in the main thread so that half-written files and children are cleaned up.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupted(KeyboardInterrupt):
    """A recording was ended before it began, or while it was writing to a reader that does not read."""


class _Held:
    """Whether signals must not raise now, and one that came meanwhile."""

    now = False
    interruption: Interrupted | None = None


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let `Interrupted` be raised at the end of the block, not inside it; the block must be short."""
    _Held.now = True
    try:
        yield
    finally:
        _Held.now = False
        held, _Held.interruption = _Held.interruption, None
        if held is not None:
            raise held


class Ending:
    """Notices what ends a recording: a signal, or `end`.

    On entry a signal raises `Interrupted` in the main thread; after `running` it only makes `fileno` readable. If the
    main thread does not call `noticed` within `GRACE` seconds, or does not exit within `LAST_WORDS` seconds after the
    context's end, the process exits.

    Attributes:
        reason: why the recording ended; empty while it runs.
        code: the exit code if the process must be ended here.

    Args:
        aborts: what to call, in another thread, if the process must be ended here; the last one first.
    """

    def __init__(self, *aborts: Callable[[], object]) -> None:
        self.reason = ""
        self.code = 0
        self._loss: KalloctraceError | None = None
        self._raising = True
        self._aborts = aborts
        self._work: Callable[[], None] = lambda: None
        self._noticed, self._over = threading.Event(), threading.Event()
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watched, self._signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)

    def __enter__(self) -> Self:
        """Install the handlers."""
        self._watcher.start()
        self._fd_before = signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        # People and service managers end a recorder that a shell started with SIGINT ignored; so do perf and tcpdump.
        numbers = [n for n in ENDING_SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the handlers; if the recording was ended, ignore further signals until the process exits."""
        self._raising = False
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if self.reason else handler)
        self._noticed.set()
        self._over.set()
        if not self.reason:
            self._wake()
            self._watcher.join()
            for fd in (self._read_end, self._write_end, self._watched, self._signalled):
                os.close(fd)

    def fileno(self) -> int:
        """Return a file that is readable once the recording was ended."""
        return self._read_end

    def wait(self, seconds: float | None = 0.0) -> str:
        """Wait for the end; return the reason, or an empty text after that time (None: no limit)."""
        if not self.reason:
            select.select([self], [], [], seconds)
        return self.reason

    def running(self, trace: Path | None = None) -> None:
        """From now on a signal is only noticed.

        Args:
            trace: it is being written: if the process must be ended here, it is not complete, and the exit code is 1.
        """
        self._raising = False
        if trace is not None:
            self._loss = KalloctraceError(
                f"{file_name(trace)} is not complete",
                f"the program was told to end, and did not react within {GRACE:g} s",
                "what is in the file can be read; record again for the rest",
            )

    def noticed(self) -> None:
        """The main thread ends the recording now, which takes as long as it takes."""
        self._noticed.set()

    def end(self, reason: str) -> None:
        """End the recording from any thread, as a signal does."""
        self._note(reason)
        self._wake()

    def in_watcher(self, what: Callable[[], None]) -> None:
        """Run a function in the watching thread, for what the kernel does for one thread only; raise what it raises.

        Raises:
            TimeoutError: that thread is ending the process.
        """
        done, failures = threading.Event(), list[Exception]()

        def work() -> None:
            try:
                what()
            except Exception as error:  # noqa: BLE001 raised in the thread that waits
                failures.append(error)
            done.set()

        self._work = work
        os.write(self._signalled, bytes([_WORK]))
        if not done.wait(GRACE):
            raise TimeoutError(errno.ETIMEDOUT, "the program is being ended")
        if failures:
            raise failures[0]

    @contextmanager
    def blocking(self) -> Iterator[None]:
        """Let a signal raise `Interrupted` in a call that may wait for ever, such as writing to a pipe."""
        self._raising = True
        try:
            if self.reason and not self._noticed.is_set():
                self.noticed()
                raise Interrupted(self.reason)
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, _: object) -> None:
        first = not self.reason
        self._note(f"signal {signal.Signals(number).name}")
        if first and self._raising:
            self.noticed()
            interruption = Interrupted(self.reason)
            if not _Held.now:
                raise interruption
            _Held.interruption = interruption

    def _note(self, reason: str) -> None:
        self.reason = self.reason or reason
        with suppress(OSError):
            os.write(self._write_end, b"\0")

    def _wake(self) -> None:
        with suppress(OSError):
            os.write(self._signalled, bytes([_WAKE]))

    def _watch(self) -> None:
        """End the process if the main thread does not."""
        expected = {_WAKE, *ENDING_SIGNALS}
        while not expected & (found := set(_read(self._watched))):
            if _WORK in found:
                self._work()
        if self._stuck():
            self._abort()
        self._over.wait()
        if self.reason:
            time.sleep(LAST_WORDS)
            os._exit(self.code)

    def _stuck(self) -> bool:
        """Wait until the main thread notices, and return False, or until it will not."""
        begin, used = time.monotonic(), _main_thread_cpu()
        while not self._noticed.wait(GRACE / 10):
            waited = time.monotonic() - begin
            starved = _main_thread_runnable() and _main_thread_cpu() - used < _GRACE_CPU
            if waited > (_LONGEST_GRACE if starved else GRACE):
                return True
        return False

    def _abort(self) -> None:
        loss = self._loss

        def clean_up() -> None:
            for function in reversed(self._aborts):
                with suppress(Exception):
                    function()
            if loss is not None:
                with suppress(OSError):
                    os.write(2, f"{loss}\n".encode())

        cleaning = threading.Thread(target=clean_up, daemon=True)
        cleaning.start()
        cleaning.join(_ABORT)
        os._exit(self.code if loss is None else loss.code)


def _main_thread_cpu() -> float:
    """Return the seconds that the main thread has run."""
    return time.clock_gettime(time.pthread_getcpuclockid(threading.main_thread().ident or 0))


def _main_thread_runnable() -> bool:
    """Return whether the main thread runs or waits for a processor, rather than for anything else."""
    try:
        stat = Path(f"/proc/self/task/{os.getpid()}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "R"


def _read(fd: int) -> bytes:
    select.select([fd], [], [])
    try:
        return os.read(fd, 1024)
    except BlockingIOError:
        return b""
