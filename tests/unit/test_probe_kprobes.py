# SPDX-License-Identifier: MIT
"""Kprobes of tracefs: their definitions, and what is read from them."""

import os
import signal
import traceback
from collections import Counter
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach import kprobes
from kalloctrace.probe.attach.calibration import agreed_distance, check_task_context
from kalloctrace.probe.attach.kprobes import GROUP, Hook, Kprobes, detach_all, left_behind, profile_misses
from kalloctrace.probe.attach.optprobe import is_jump, past_ftrace
from kalloctrace.signals import Ending, Interrupted

IN_TASK_6_1 = 0x00FF0100
NMI_AND_HARDIRQ = 0x00110000


def test_definitions() -> None:
    """A return has the largest maxactive that the kernel allows; the process id is in the name."""
    assert Hook("f", "on_f").definition(12) == "p:kalloctrace/on_f_12 f\n"
    assert Hook("f", "on_f_return", at_return=True).definition(12) == "r4096:kalloctrace/on_f_return_12 f\n"


def test_only_definitions_of_dead_recordings_are_left_behind() -> None:
    """Definitions of other tools, and of running recordings, stay."""
    definitions = (
        "p:kalloctrace/on_entry_12 __alloc_pages\n"
        "r4096:kalloctrace/on_entry_return_12 __alloc_pages\n"
        "p:kalloctrace/on_entry_13 __alloc_pages\n"
        "p:kprobes/on_entry_12 __alloc_pages\n"
    )
    assert left_behind(definitions, iter((1, 13))) == ["kalloctrace/on_entry_12", "kalloctrace/on_entry_return_12"]
    assert left_behind(definitions, iter((12, 13))) == []


def test_misses_are_the_last_column() -> None:
    """kprobe_profile: name, hits, misses."""
    profile = (
        "  on_freelist_12                                            34000               7\n"
        "  on_entry_return_12                                        33991               0\n"
    )
    assert profile_misses(profile) == {"on_freelist_12": 7, "on_entry_return_12": 0}
    assert profile_misses("") == {}


def test_breakpoints_are_refused() -> None:
    """Breakpoints raise the NMI count in every call; interrupts do so in a few."""
    check_task_context(Counter({0: 95, 1: 400, 0x80000001: 10, 0x10001: 5}), IN_TASK_6_1)
    with pytest.raises(KalloctraceError) as caught:
        check_task_context(Counter({NMI_AND_HARDIRQ: 300, NMI_AND_HARDIRQ + 1: 200}), IN_TASK_6_1)
    assert "500 of 500" in caught.value.why


def test_distance_needs_agreement() -> None:
    """A few measurements may be an interrupt's. No measurement, or many different ones, give no distance."""
    assert agreed_distance(Counter({0x58: 500, 0x1000: 3})) == 0x58
    for seen in (Counter[int](), Counter({0x58: 300, 0x60: 200}), Counter({-8: 500}), Counter({4096: 500})):
        with pytest.raises(KalloctraceError):
            agreed_distance(seen)


def test_definition_behind_the_function_start() -> None:
    """The offset is in bytes."""
    assert Hook("f", "on_f", offset=9).definition(12) == "p:kalloctrace/on_f_12 f+9\n"


@pytest.mark.parametrize(
    ("code", "offset"),
    [
        ("0f1f440000 41574156", 5),
        ("6666666690 41574156", 5),
        ("e8fb12b3e1 41574156", 5),
        ("f30f1efa 0f1f440000", 9),
        ("660f1f00 0f1f440000", 9),
        ("0f1f40d6 e8fb12b3e1", 9),
        ("4157415641554154 55", 0),
        ("f30f1efa 4157415641", 0),
        ("cc1f440000 41574156", 0),
    ],
)
def test_place_behind_what_ftrace_uses(code: str, offset: int) -> None:
    """With and without endbr64; other code has no such offset."""
    assert past_ftrace(bytes.fromhex(code)) == offset


def test_jump_is_no_breakpoint() -> None:
    """A kprobe is a breakpoint before it becomes a jump."""
    assert is_jump(b"\xe9")
    assert not is_jump(b"\xcc")


class _Tracefs:
    """A folder that looks like tracefs, and a kernel that opens an event for each definition."""

    def __init__(self, folder: Path, signalled_in: str) -> None:
        self.folder = folder
        self.events = folder / "kprobe_events"
        self.opened: list[int] = []
        self._signalled_in = signalled_in
        self.events.touch()
        (folder / "kprobe_profile").touch()
        for program in ("on_f", "on_g"):
            event = folder / "events" / GROUP / f"{program}_{os.getpid()}"
            event.mkdir(parents=True)
            (event / "id").write_text("7\n")

    def open(self, *_: object, **__: object) -> int:
        """Stand in for perf_event_open(2)."""
        self.opened.append(os.open(os.devnull, os.O_RDONLY))
        self._signal("open")
        return self.opened[-1]

    def ioctl(self, *_: object) -> int:
        """Stand in for the system call of this name."""
        self._signal("ioctl")
        return 0

    def _signal(self, here: str) -> None:
        if self._signalled_in == here and len(self.opened) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    def defined(self) -> list[str]:
        """Return the definitions, each line of the file being one or the end of one."""
        found: list[str] = []
        for line in self.events.read_text().splitlines():
            if line.startswith("-:"):
                found.remove(line.removeprefix("-:"))
            else:
                found.append(line.partition(":")[2].split()[0])
        return found


@pytest.fixture
def tracefs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Tracefs:
    """Return a tracefs of this process's own."""
    made = _Tracefs(tmp_path, request.param)
    monkeypatch.setattr(kprobes, "TRACEFS", (tmp_path,))
    monkeypatch.setattr(kprobes, "perf_event_open", made.open)
    monkeypatch.setattr(kprobes, "ioctl", made.ioctl)
    return made


TWO = {Hook("f", "on_f"): 3, Hook("g", "on_g"): 4}


@pytest.mark.parametrize("tracefs", ["open", "ioctl"], indirect=True)
def test_signal_while_attaching_leaves_nothing(tracefs: _Tracefs) -> None:
    """Wherever it comes, all definitions are removed and all events closed."""
    # In a process of its own, as one that was interrupted is ended.
    if (pid := os.fork()) == 0:
        try:
            _interrupted(tracefs)
        except BaseException:  # noqa: BLE001 a failed assertion too
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def _interrupted(tracefs: _Tracefs) -> None:
    for event in (tracefs.folder / "events" / GROUP).iterdir():
        event.rename(event.with_name(f"{event.name.rpartition('_')[0]}_{os.getpid()}"))
    with Ending():
        with pytest.raises(Interrupted, match="SIGINT"):
            Kprobes(TWO, lambda _: b"")
        assert len(tracefs.opened) == 2
        assert tracefs.events.read_text().count("p:") == 2
        assert tracefs.defined() == []
        for file in tracefs.opened:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(file)


@pytest.mark.parametrize("tracefs", [""], indirect=True)
def test_end_of_the_process_detaches_what_nobody_closed(tracefs: _Tracefs) -> None:
    """A signal may come while a context is entered; then nothing else would."""
    attached = Kprobes(TWO, lambda _: b"")
    assert len(tracefs.defined()) == 2
    detach_all()
    assert tracefs.defined() == []
    written = tracefs.events.read_text()
    attached.close()
    detach_all()
    assert tracefs.events.read_text() == written
