# SPDX-License-Identifier: MIT
"""The process that records: it attaches, gives up its privileges, and ends when it is detached."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.monitor.config import parse
from kalloctrace.monitor.recording import SegmentedRecording
from kalloctrace.monitor.segments import SegmentFolder
from kalloctrace.monitor.start import MOST_MESSAGE, Log, Start
from kalloctrace.monitor.state import ServiceState
from kalloctrace.probe.attach.kprobes import detach_all
from kalloctrace.probe.checks import require_live
from kalloctrace.signals import Ending

_CHECK_SECONDS = 1.0
_STATUS_SECONDS = 10.0
_AT_ONCE = frozenset({"machine"})
"""Reasons after which the next worker attaches without a pause."""


def work(start: Start, log: Log) -> None:
    """Record until the service ends the worker, or the recording is above its bounds.

    The caller has made sure that numpy and pyarrow start no threads; see `import_libraries_without_threads`.

    Raises:
        KalloctraceError: the machine cannot be traced.
    """
    kernel = LiveKernel()
    require_live(kernel)
    folder = SegmentFolder(start.config.folder, log)
    folder.recover()
    with Ending(detach_all) as ending, SegmentedRecording(kernel, start.config, folder, log) as recording:
        for thread in recording.confine(start.config.folder, ending.in_watcher):
            log(f"the thread {thread} keeps its capabilities")
        ending.running()
        worker = Worker(start, recording, folder, log)
        with worker.served():
            _tell(start.channel, event="attached")
            log(f"recording on {kernel.snapshot.release}")
            worker.run(ending)
            ending.noticed()


class Worker:
    """The loop of a worker.

    Args:
        start: what it got from its service.
        recording: which is attached.
        folder: of the segments.
        log: takes lines for people.
    """

    def __init__(self, start: Start, recording: SegmentedRecording, folder: SegmentFolder, log: Log) -> None:
        self._start = start
        self._recording = recording
        self._folder = folder
        self._log = log
        self._lock = Lock()
        self._checked_at = self._status_at = time.monotonic()
        self._detached = dict(start.detached)

    def run(self, ending: Ending) -> None:
        """Record until a signal or the service ends it, or until it must be detached and the pause is over."""
        recording, until = self._recording, None
        while until is None or time.monotonic() < until:
            pause = recording.pause if until is None else min(_CHECK_SECONDS, max(0.0, until - time.monotonic()))
            watched: list[Ending | socket.socket] = [ending, self._start.channel]
            ready, _, _ = select.select(watched, [], [], pause)
            if ending.reason:
                return
            if self._start.channel in ready and not self._receive():
                return
            with self._lock:
                recording.drain()
                reason = self._check()
                if reason:
                    until = time.monotonic() + self._detach(reason)

    def _check(self) -> str:
        """Do what is done once a second; return why the recording must be detached, if it must."""
        now = time.monotonic()
        if now - self._checked_at < _CHECK_SECONDS:
            return ""
        self._checked_at = now
        attached = not self._recording.ended
        reason = self._recording.check() if attached else ""
        if now - self._status_at >= _STATUS_SECONDS:
            self._status_at = now
            kept = f"{self._folder.count} segments, {self._folder.bytes >> 20} MiB"
            state = "recording" if attached else f"detached ({self._recording.ended})"
            _tell(self._start.channel, event="alive", status=f"{state}; {kept}")
        else:
            _tell(self._start.channel, event="alive")
        return reason

    def _detach(self, reason: str) -> float:
        """Detach; return the seconds until the next worker may attach."""
        pause = 0.0 if reason in _AT_ONCE else self._recording.config.pause
        self._recording.finish(f"detached: {reason}")
        self._detached[reason] = self._detached.get(reason, 0) + 1
        _tell(self._start.channel, event="detached", reason=reason)
        self._log(f"detached ({reason}); attaches again {f'in {pause:.0f} s' if pause else 'now'}")
        return pause

    def _receive(self) -> bool:
        """Take a new configuration; return whether the service is still there."""
        try:
            message = self._start.channel.recv(MOST_MESSAGE)
        except ConnectionResetError:
            message = b""
        if not message:
            self._log("the service has ended")
            return False
        with self._lock:
            self._recording.config = parse(message.decode(), self._start.path)
        return True

    @contextmanager
    def served(self) -> Iterator[None]:
        """Serve metrics in other threads, if that is configured."""
        if self._start.listening is None:
            yield
            return
        from prometheus_client import CollectorRegistry, make_wsgi_app  # noqa: PLC0415 (an extra)

        from kalloctrace.monitor.metrics import ServiceCollector  # noqa: PLC0415 (likewise)
        from kalloctrace.report.metrics.prometheus import RecordingCollector  # noqa: PLC0415 (likewise)
        from kalloctrace.report.metrics.server import MetricsServer  # noqa: PLC0415 (likewise)
        from kalloctrace.report.metrics.source import CaptureSource  # noqa: PLC0415 (likewise)

        registry = CollectorRegistry()
        registry.register(RecordingCollector(CaptureSource(self._recording, self._lock, "monitor").now))
        registry.register(ServiceCollector(self.state))
        with MetricsServer(make_wsgi_app(registry), self._start.listening):
            yield

    def state(self) -> ServiceState:
        """Return the present state for metrics."""
        recording, folder = self._recording, self._folder
        with self._lock:
            writing = 0 if recording.ended else recording.segments.size
            return ServiceState(
                attached=not recording.ended,
                starts=self._start.starts + 1,
                detached=self._detached,
                cost=recording.cost,
                bounds=(recording.config.cpu, recording.config.memory),
                segments=folder.count + (not recording.ended),
                segment_bytes=folder.bytes + writing,
                removed=dict(folder.removed),
                dropped=recording.segments.dropped.calls,
                waiting=recording.segments.waiting,
            )


def _tell(channel: socket.socket, **message: str) -> None:
    """Send a message to the service, whose end is noticed elsewhere."""
    try:
        channel.send(json.dumps(message).encode())
    except OSError:
        return
