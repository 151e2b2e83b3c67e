# SPDX-License-Identifier: MIT
"""The service: keeps a worker recording, until it is ended.

It never touches the kernel itself. A worker that is killed, or that has detached, is followed by another one.
"""

import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from kalloctrace.console import stderr
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.monitor.config import DEFAULT_PATH, UNIX, Config, load
from kalloctrace.monitor.lock import lock_folder
from kalloctrace.monitor.notify import ServiceManager
from kalloctrace.monitor.start import MOST_MESSAGE, Log, Start
from kalloctrace.report.metrics.server import listen, listen_unix

_STARTING = 120.0
"""Seconds in which a worker must have attached; it compiles first."""
_SILENT = 30.0
"""Seconds after which a worker that says nothing does no work."""
_ENDING = 30.0
"""Seconds for a worker to complete its segment."""
_LONGEST_BACKOFF = 60.0


class _Worker:
    """A running worker.

    Attributes:
        pid: of the process.
        channel: to it.
        attached: it has attached.
        heard: when it last said something.
    """

    def __init__(self, run: Callable[[Start, Log], None], start: Start, ours: socket.socket, log: Log) -> None:
        self.channel = ours
        self.attached = False
        self.heard = time.monotonic()
        self.pid = os.fork()
        if not self.pid:
            os._exit(_in_worker(run, start, ours, log))
        start.channel.close()

    @property
    def silent(self) -> bool:
        """Return whether it should have said something."""
        return time.monotonic() - self.heard > (_SILENT if self.attached else _STARTING)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        os.kill(self.pid, number)

    def exit_code(self) -> int | None:
        """Return its exit code, negative for a signal; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None


def _in_worker(run: Callable[[Start, Log], None], start: Start, ours: socket.socket, log: Log) -> int:
    ours.close()
    signal.set_wakeup_fd(-1)
    # Until something must be cleaned up.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(Exit.OK))
    # A terminal sends it to both; the service alone reads its configuration again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(start, log)
    except KalloctraceError as error:
        stderr().error(error)
        return error.code
    except KeyboardInterrupt:
        return Exit.OK
    except BaseException as error:  # noqa: BLE001 (the process ends)
        sys.excepthook(type(error), error, error.__traceback__)
        return Exit.FAILED
    return Exit.OK


def _work(start: Start, log: Log) -> None:
    """Record, in the worker, which alone imports what that needs."""
    from kalloctrace.probe.privileges.threads import import_libraries_without_threads  # noqa: PLC0415

    import_libraries_without_threads()
    from kalloctrace.monitor.worker import work  # noqa: PLC0415

    work(start, log)


class Service:
    """The service.

    Args:
        path: the configuration; None for the default one.
        run: what a worker does.

    Raises:
        KalloctraceError: the configuration is not valid, the folder is in use, or metrics cannot be served.
    """

    def __init__(self, path: Path | None, run: Callable[[Start, Log], None] = _work) -> None:
        self._manager = ServiceManager()
        self._path = path
        self._run = run
        self._config, self._text = load(path)
        self._folder = lock_folder(self._config.folder)
        self._listening = _listening(self._config)
        self._woken, self._wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ending = self._reload = self._restart = False
        self._worker: _Worker | None = None
        self._starts = 0
        self._detached: dict[str, int] = {}
        self._backoff, self._start_at = 0.0, time.monotonic()
        self._told_at = 0.0

    def run(self) -> Exit:
        """Record until SIGTERM or SIGINT; SIGHUP reads the configuration again.

        Returns:
            The exit code of the first worker if that could not attach; it has printed why.
        """
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)
        # Ends the wait when a worker ends; a handler that does nothing.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while not self._ending:
            code = self._step()
            if code is not None:
                return code
        self._manager.stopping()
        self._end_worker()
        return Exit.OK

    def _signalled(self, number: int, _: object) -> None:
        self._reload |= number == signal.SIGHUP
        self._ending |= number != signal.SIGHUP

    def _step(self) -> Exit | None:
        """Wait for something to happen, and act; return the exit code if the service cannot start."""
        now = time.monotonic()
        if self._worker is None and now >= self._start_at:
            self._start_worker()
        watched: list[int | socket.socket] = [self._woken]
        if self._worker is not None:
            watched.append(self._worker.channel)
        interval = min(1.0, (self._manager.watchdog or 2.0) / 4)
        ready, _, _ = select.select(watched, [], [], interval)
        if self._woken in ready:
            with suppress(BlockingIOError):
                os.read(self._woken, 1024)
        if self._worker is not None and (code := self._watch(self._worker, heard=self._worker.channel in ready)):
            return code
        if self._reload and not self._ending:
            self._reload = False
            self._read_again()
        if self._manager.watchdog is not None and time.monotonic() - self._told_at >= interval:
            self._told_at = time.monotonic()
            self._manager.alive()
        return None

    def _watch(self, worker: _Worker, *, heard: bool) -> Exit | None:
        """Look after the worker; return the exit code if the first one has failed."""
        if heard:
            self._hear(worker)
        if (code := worker.exit_code()) is not None:
            # What it said last.
            self._hear(worker)
            worker.channel.close()
            self._worker = None
            if not self._starts and not self._ending:
                return Exit(code) if code in set(Exit) and code else Exit.FAILED
            self._worker_ended(code)
        elif worker.silent:
            _log("the worker does not answer, and is killed")
            worker.signal(signal.SIGKILL)
        return None

    def _start_worker(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        path = self._path or DEFAULT_PATH
        start = Start(self._config, path, theirs, self._listening, self._starts, self._detached)
        self._worker = _Worker(self._run, start, ours, _log)

    def _hear(self, worker: _Worker) -> None:
        with suppress(BlockingIOError, ConnectionResetError):
            while message := worker.channel.recv(MOST_MESSAGE):
                worker.heard = time.monotonic()
                told = json.loads(message)
                if told["event"] == "attached":
                    worker.attached = True
                    self._starts += 1
                    self._backoff = 0.0
                    self._manager.ready()
                elif told["event"] == "detached":
                    self._detached[told["reason"]] = self._detached.get(told["reason"], 0) + 1
                if "status" in told:
                    self._manager.status(told["status"])

    def _worker_ended(self, code: int) -> None:
        if code == 0 or self._restart:
            self._backoff = 0.0
        else:
            how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            self._backoff = min(max(1.0, 2 * self._backoff), _LONGEST_BACKOFF)
            _log(f"the worker was ended {how}; another one starts in {self._backoff:.0f} s")
        self._restart = False
        self._start_at = time.monotonic() + self._backoff

    def _read_again(self) -> None:
        self._manager.reloading()
        try:
            config, text = load(self._path)
            self._use(config, text)
        except KalloctraceError as error:
            stderr().error(error)
            _log("the configuration stays as it was")
        else:
            _log("the configuration was read again")
        self._manager.ready()

    def _use(self, config: Config, text: str) -> None:
        """Put a configuration into force: in the recording that runs, or by a new worker.

        Raises:
            KalloctraceError: the new folder is in use, or metrics cannot be served at the new address.
        """
        if self._config.goes_on(config):
            if self._worker is not None and config != self._config:
                self._worker.channel.send(text.encode() or b"\n")
        else:
            folder = self._folder if config.folder == self._config.folder else lock_folder(config.folder)
            if config.listen != self._config.listen:
                try:
                    listening = _listening(config)
                except KalloctraceError:
                    if folder != self._folder:
                        os.close(folder)
                    raise
                if self._listening is not None:
                    self._listening.close()
                self._listening = listening
            if folder != self._folder:
                os.close(self._folder)
                self._folder = folder
            if self._worker is not None:
                self._restart = True
                self._worker.signal(signal.SIGTERM)
        self._config, self._text = config, text

    def _end_worker(self) -> None:
        worker = self._worker
        if worker is None:
            return
        worker.signal(signal.SIGTERM)
        until = time.monotonic() + _ENDING
        while worker.exit_code() is None:
            if time.monotonic() >= until:
                _log("the worker does not end, and is killed")
                worker.signal(signal.SIGKILL)
                until += _ENDING
            time.sleep(0.05)


def _listening(config: Config) -> socket.socket | None:
    """Return the socket of the metrics; None if none are served.

    Raises:
        KalloctraceError: it cannot listen there.
    """
    if not config.listen:
        return None
    try:
        if config.listen.startswith(UNIX):
            return listen_unix(Path(config.listen.removeprefix(UNIX)))
        host, _, port = config.listen.rpartition(":")
        return listen(host.removeprefix("[").removesuffix("]"), int(port))
    except OSError as error:
        why = error.strerror or str(error)
        raise KalloctraceError(f"cannot serve metrics at {config.listen}", why, "choose another place") from error


def _log(text: str) -> None:
    stderr().line(text)
