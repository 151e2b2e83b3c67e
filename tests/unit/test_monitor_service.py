# SPDX-License-Identifier: MIT
"""The service and its worker: a fake one in a process of its own, and the real one over a fake kernel."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from kalloctrace.monitor import recording, worker
from kalloctrace.monitor.config import Config
from kalloctrace.monitor.metrics import ServiceCollector
from kalloctrace.monitor.notify import ServiceManager
from kalloctrace.monitor.recording import CostMeter, SegmentedRecording
from kalloctrace.monitor.segments import SegmentFolder
from kalloctrace.monitor.start import Start
from kalloctrace.monitor.worker import Worker
from kalloctrace.signals import Ending
from kalloctrace.trace.reader import TraceReader
from kalloctrace.verify.verification import verify_trace
from tests.traces import source
from tests.unit.test_probe_observer import FakeSession, Machine

PROGRAM = textwrap.dedent("""
    import os, signal, socket, sys, time
    from pathlib import Path
    from kalloctrace.monitor.service import Service
    def work(start, log):
        start.channel.send(b'{"event": "attached"}')
        log(f"attached {start.starts} {dict(start.detached)} {start.config.age:.0f} {start.config.by}")
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while message := start.channel.recv(1 << 17):
            log(f"told {message.decode()!r}")
            if b"detach" in message:
                start.channel.send(b'{"event": "detached", "reason": "cpu"}')
                return
    code = Service(Path(sys.argv[1]), work).run()
    assert "pyarrow" not in sys.modules
    sys.exit(code)
""")


class Running:
    """The service with a fake worker.

    Args:
        folder: for everything.
        program: what to run.
    """

    def __init__(self, folder: Path, program: str = PROGRAM) -> None:
        self.config = folder / "monitor.toml"
        self._address = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self._address))
        self._socket.settimeout(60)
        self._segments = folder / "segments"
        self.configure()
        environment = {**os.environ, "NOTIFY_SOCKET": str(self._address), "WATCHDOG_USEC": "400000"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(self.config)], stderr=subprocess.PIPE, text=True, env=environment
        )

    def configure(self, *lines: str) -> None:
        """Write the configuration."""
        self.config.write_text("\n".join([f'segments.folder = "{self._segments}"', *lines]))

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the service."""
        self.process.kill()
        self.process.wait()
        self._socket.close()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def told(self, wanted: str) -> str:
        """Return the next message to the service manager that begins so."""
        while not (message := self._socket.recv(4096).decode()).startswith(wanted):
            pass
        return message

    def line(self, wanted: str) -> str:
        """Return the next line that has this text."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if wanted in line:
                return line.strip()
        raise AssertionError(wanted)

    def worker(self) -> int:
        """Return the worker's id."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children)


def test_life_of_the_service(tmp_path: Path) -> None:
    """It starts, reads its configuration again, follows a killed or detached worker by another, and ends with 0."""
    with Running(tmp_path) as service:
        service.told("READY=1")
        assert service.line("attached") == "attached 0 {} 600 None"
        service.told("WATCHDOG=1")
        service.configure('segments.age = "1 min"')
        service.process.send_signal(signal.SIGHUP)
        assert "MONOTONIC_USEC=" in service.told("RELOADING=1")
        service.told("READY=1")
        assert "1 min" in service.line("told")
        service.configure('segments.age = "1"')
        service.process.send_signal(signal.SIGHUP)
        assert service.line("error:") == f"error: cannot use {service.config}, line 2"
        service.line("the configuration stays as it was")
        service.configure('segments.age = "2 min"', 'capture.by = "comm"')
        service.process.send_signal(signal.SIGHUP)
        assert service.line("attached") == "attached 1 {} 120 comm"
        os.kill(service.worker(), signal.SIGKILL)
        service.line("ended by SIGKILL; another one starts in 1 s")
        assert service.line("attached") == "attached 2 {} 120 comm"
        service.configure('segments.age = "3 min"', 'capture.by = "comm"', "# detach")
        service.process.send_signal(signal.SIGHUP)
        assert service.line("attached") == "attached 3 {'cpu': 1} 180 comm"
        service.process.send_signal(signal.SIGTERM)
        service.told("STOPPING=1")
        assert service.process.wait(60) == 0


def test_service_that_cannot_start_says_so(tmp_path: Path) -> None:
    """With the three lines and the exit code of its worker; and it does not try again."""
    program = PROGRAM.replace(
        "def work(start, log):",
        """def work(start, log):
        from kalloctrace.errors import Exit, KalloctraceError
        raise KalloctraceError("cannot", "because", "do", Exit.USAGE)""".replace("        ", "    "),
    )
    with Running(tmp_path, program) as service:
        assert service.line("why:") == "why: because"
        assert service.process.wait(60) == 2


class Manager:
    """A service manager's socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)


def test_manager_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life fill its queue, and are lost; a change of state is not."""
    name = f"kalloctrace-behind-{os.getpid()}"
    manager = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    told = ServiceManager()
    for _ in range(1000):
        told.alive()
    reader = threading.Timer(0.2, manager.socket.recv, [100])
    reader.start()
    told.stopping()
    reader.join()
    manager.socket.setblocking(False)
    heard = []
    with suppress(BlockingIOError):
        while True:
            heard.append(manager.socket.recv(100))
    manager.socket.close()
    assert 1 < len(heard) < 1000
    assert heard[-1] == b"STOPPING=1"


def test_abstract_address_and_no_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of systemd may be abstract. Without one nothing is sent, and one that is gone does no harm."""
    name = f"kalloctrace-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    told = ServiceManager()
    assert told.watchdog is None
    assert "NOTIFY_SOCKET" not in os.environ
    told.status("fine\nREADY=1")
    assert manager.socket.recv(100) == b"STATUS=fine"
    manager.socket.close()
    told.ready()
    ServiceManager().ready()


class FakeMachine(Machine):
    """A fake kernel below the recording; a test sets what the session has counted."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel: Any = SimpleNamespace(snapshot=source()[0])

    @contextmanager
    def attached(self, *_: object, **__: object) -> Iterator[Any]:
        """Attach something that can be confined."""
        with super().attached() as capture:
            capture.description = {"mode": "aggregate", "id": "0" * 32, "cpus": 1}
            yield capture

    def make_session(self, capture: object, writer: Any, *, checkpoint: float = 0.0) -> FakeSession:  # noqa: ANN401
        """Return the session, which writes counts seldom."""
        assert checkpoint > 2
        return super().make_session(capture, writer)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Put a fake kernel below the recording."""
    made = FakeMachine()
    monkeypatch.setattr(recording, "attached", made.attached)
    monkeypatch.setattr(recording, "Session", made.make_session)
    monkeypatch.setattr(recording, "_MACHINE_SECONDS", 0.0)
    monkeypatch.setattr(recording, "_COST_SECONDS", 0.0)
    return made


class Recorded:
    """A recording over a fake kernel, and what it logs."""

    def __init__(self, machine: FakeMachine, folder: Path, **changes: Any) -> None:  # noqa: ANN401 (settings)
        self.log: list[str] = []
        self.folder = SegmentFolder(folder, self.log.append)
        self.folder.recover()
        # The process of the tests may have more memory than the default bound.
        self.config = Config(folder=folder, **{"keep_free": 0, "memory": 1 << 40, **changes})
        self.recording = SegmentedRecording(machine.kernel, self.config, self.folder, self.log.append)


def counted(folder: Path) -> list[int]:
    """Return how many calls each segment has; each must verify, and be complete."""
    found = []
    for path in sorted(folder.iterdir()):
        with TraceReader(path) as trace:
            assert not trace.ending().truncated
            found.append(verify_trace(trace).allocations)
    return found


def test_probes_stay_attached_over_segments(machine: FakeMachine, tmp_path: Path) -> None:
    """All calls are in one segment or another, and in the metrics' counts."""
    made = Recorded(machine, tmp_path, size=1)
    with made.recording as running:
        for calls in ([3, 0, 0], [5, 2, 0], [5, 9, 0]):
            machine.session.calls = calls
            running.drain()
            running.observe()
            assert running.check() == ""
        assert running.observe().totals.submitted == 14
    assert counted(tmp_path) == [3, 4, 7, 1]
    assert machine.log == ["attach", "begin", "drain", "drain", "drain", "stop", "detach"]
    assert running.observe().totals.submitted == 15


def test_hot_plug(machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processors begin a segment that says so; other memory takes a new snapshot, so a new worker."""
    made = Recorded(machine, tmp_path)
    with made.recording as running:
        machine.session.calls = [1, 0, 0]
        monkeypatch.setattr("psutil.cpu_count", lambda: 77)
        assert running.check() == ""
        assert running.check() == ""
        machine.changed = ("nodes",)
        assert running.check() == "machine"
        running.finish("detached: machine")
    assert counted(tmp_path) == [1, 1]
    first, second = sorted(tmp_path.iterdir())
    with TraceReader(second) as trace:
        assert trace.recording["cpus"] == 77
        ending = trace.ending().totals
        assert ending is not None
        assert ending.machine_changed == ("nodes",)
    with TraceReader(first) as trace:
        assert trace.recording["cpus"] == 1


def test_cost_is_judged_over_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all processors; both parts count."""
    clock, spent = [0.0], [5.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: spent[0])
    meter = CostMeter(2)
    calls = 0
    shares = []
    for _ in range(8):
        cost = meter.measure(calls)
        shares.append(None if cost.share is None else round(cost.share, 3))
        clock[0] += 10
        spent[0] += 0.1
        calls += 500_000
    assert shares == [None, None, None, *[1.0] * 5]
    assert cost.recorder == pytest.approx(0.7)
    assert cost.programs == pytest.approx(0.7)
    assert cost.memory > 1 << 20


@pytest.mark.parametrize(("bound", "reason"), [({"cpu": 1e-9}, "cpu"), ({"memory": 1}, "memory")])
def test_above_a_bound(
    machine: FakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: dict[str, Any], reason: str
) -> None:
    """The worker detaches, goes on serving what it knows, and ends when the next one may attach."""
    monkeypatch.setattr(recording, "_WINDOW", 0.001)
    monkeypatch.setattr(worker, "_CHECK_SECONDS", 0.01)
    made = Recorded(machine, tmp_path, pause=1.0, **bound)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start = Start(made.config, Path("monitor.toml"), theirs, None, starts=2, detached={reason: 4})
    began = time.monotonic()
    with ours, theirs, Ending() as ending, made.recording as running:
        ending.running()
        working = Worker(start, running, made.folder, made.log.append)
        working.run(ending)
        ours.settimeout(0)
        events = []
        while select.select([ours], [], [], 0)[0]:
            events.append(json.loads(ours.recv(4096)))
        values = {
            (sample.name.removeprefix("kalloctrace_monitor_"), *sample.labels.values()): sample.value
            for family in ServiceCollector(working.state).collect()
            for sample in family.samples
        }
    assert time.monotonic() - began >= 1.0
    assert [event for event in events if event["event"] != "alive"] == [{"event": "detached", "reason": reason}]
    assert machine.log[-2:] == ["stop", "detach"]
    assert values["attached",] == 0
    assert values["attachments_total",] == 3
    assert values["detachments_total", reason] == 5
    assert values["segments",] == 1
    assert values["segment_bytes",] == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert f"detached ({reason}); attaches again in 1 s" in made.log
    assert counted(tmp_path) == [1]


def test_new_limits_and_the_end_of_the_service(machine: FakeMachine, tmp_path: Path) -> None:
    """A worker takes a configuration while it records, and ends when its service is gone."""
    made = Recorded(machine, tmp_path)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, Ending() as ending, made.recording as running:
        ending.running()
        working = Worker(Start(made.config, Path("x"), theirs, None), running, made.folder, made.log.append)
        ours.send(b'[bounds]\npause = "7 s"\n')
        ours.close()
        working.run(ending)
        assert running.config.pause == 7
        assert running.segments.config.pause == 7
    assert "the service has ended" in made.log
    assert machine.log[-1] == "detach"
