# SPDX-License-Identifier: MIT
"""Signals, closed files and terminals that disappear, at any moment of a command."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.vanish.ways import READY, WAYS, Victim, start, suffer

PROGRAM = [sys.executable, "-m", "kalloctrace"]
TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
LIVE = ["live", "--interval", "0.2", "--replay", str(TRACE)]
_OFTEN = 10
_AGAIN = 3
_SOME_WAYS = (
    "closed",
    "closed, not the session's",
    "closed, SIGHUP ignored",
    "nobody reads, SIGTERM",
    "nobody reads, closed, not the session's",
    "output stopped, SIGTERM",
    "suspended, SIGTERM",
)


def execute(*words: str) -> None:
    """Replace this process by the program."""
    os.execv(sys.executable, [*PROGRAM, *words])


@pytest.mark.parametrize("name", _SOME_WAYS)
def test_live_ends_whatever_its_terminal_does(name: str) -> None:
    """It ends with exit code 0, with little work; `make vanish` does this a hundred times, in more ways."""
    outcome = suffer(WAYS[name], lambda: execute(*LIVE), 30)
    assert outcome.status == 0
    assert outcome.cpu < 1


def test_screen_that_was_not_read_is_drawn_again() -> None:
    """A terminal that did not read for a while shows the present state when it does, and keys still work."""
    victim = start(WAYS["SIGHUP"], lambda: execute(*LIVE))
    victim.wait_for(READY, 60)
    for rows in range(80, 50, -1):
        victim.resize(rows, 250)
        time.sleep(0.03)
    os.write(victim.end, b"?")
    time.sleep(1)
    victim.printed = b""
    victim.wait_for(b"legend", 60)
    victim.kill(signal.SIGTERM)
    deadline = time.monotonic() + 60
    while not victim.ended:
        assert time.monotonic() < deadline
        victim.read(0.1)
    os.close(victim.end)
    assert os.waitpid(victim.pid, 0) == (victim.pid, 0)


@pytest.mark.parametrize("words", [["verify", str(TRACE)], ["live", "--plain", *LIVE[1:]]], ids=lambda words: words[0])
def test_interrupt_at_any_moment_prints_no_traceback(words: list[str]) -> None:
    """While Python imports, too: 130 for a command, 0 for a recorder, and at most one line."""
    expected = 0 if words[0] == "live" else 130
    begin = time.monotonic()
    subprocess.run([*PROGRAM, "--version"], stdout=subprocess.DEVNULL, check=True)
    started = time.monotonic() - begin
    for moment in range(_OFTEN):
        # Before that only Python itself runs, which the signal kills; on a busy machine it may last longer.
        code, printed = _interrupted_after(words, started * (0.5 + moment / 4))
        for _ in range(_AGAIN):
            if code == -signal.SIGINT:
                code, printed = _interrupted_after(words, started * (1 + moment / 4))
        assert code in {expected, 0}, printed
        assert printed in {"", "interrupted\n"}


def _interrupted_after(words: list[str], seconds: float) -> tuple[int, str]:
    """Return the exit code of a command that is interrupted after some time, and what it printed."""
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as one:
        time.sleep(seconds)
        one.send_signal(signal.SIGINT)
        assert one.stderr is not None
        printed = one.stderr.read()
    return one.returncode, printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_commands_end_by_the_signal(number: signal.Signals) -> None:
    """The caller sees which signal ended the command."""
    with subprocess.Popen([*PROGRAM, "decode", "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        assert one.stdin is not None
        one.stdin.write(b"0xcc0\n")
        one.stdin.flush()
        time.sleep(1)
        one.send_signal(number)
        assert one.wait(30) == -number


def test_ignored_hang_up_stays_ignored() -> None:
    """`nohup` and `trap '' HUP` work as with other programs."""
    program = f"{' '.join(PROGRAM)} serve-metrics --port 0 {TRACE}"
    script = f"trap '' HUP; {program} & read -r _; kill -HUP $!; sleep 0.5; kill -TERM $!; wait $!"
    with subprocess.Popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as shell:
        assert shell.stderr is not None
        assert shell.stdin is not None
        assert shell.stderr.readline().startswith("serving")
        begin = time.monotonic()
        shell.stdin.write("\n")
        shell.stdin.flush()
        assert shell.wait(60) == 0
        assert time.monotonic() - begin > 0.4


@pytest.mark.parametrize("numbers", [[signal.SIGINT] * 3, [signal.SIGTERM] * 2, [signal.SIGTERM, signal.SIGINT]])
def test_second_signal_changes_nothing(numbers: list[signal.Signals]) -> None:
    """As sudo and impatient people send them."""
    with subprocess.Popen([*PROGRAM, "serve-metrics", "--port", "0", TRACE], stderr=subprocess.PIPE, text=True) as one:
        assert one.stderr is not None
        assert one.stderr.readline().startswith("serving")
        for number in numbers:
            one.send_signal(number)
        assert one.stderr.read() == ""
        assert one.wait(30) == 0


def test_replay_into_a_pipe_that_nobody_reads_ends() -> None:
    """A write that waits for ever does not keep a signal from its effect."""
    words = ["live", "--json", "--interval", "0.1", "--replay", str(TRACE)]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        time.sleep(3)
        assert one.poll() is None
        one.send_signal(signal.SIGTERM)
        assert one.wait(30) == 0
        assert one.stderr is not None
        assert one.stderr.read() == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "<&- 2>&-"])
def test_no_file_of_ours_gets_the_number_of_a_closed_one(tmp_path: Path, closed: str) -> None:
    """What libraries print to such a number must not land in an output."""
    output = tmp_path / "t.csv"
    script = (
        "import os, sys; from kalloctrace import __main__ as start; start._open_standard_files(); "
        "fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); "
        "[os.write(number, b'noise') for number in (1, 2)]; print('noise', file=sys.stderr); raise SystemExit(fd < 3)"
    )
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", script, output], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert output.read_bytes() == b""


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [["verify", str(TRACE)], ["decode", "0xcc0"]], ids=" ".join)
def test_closed_standard_files_are_no_failure(words: list[str], closed: str) -> None:
    """A closed input is an empty one; results still come out where they can."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" {closed}', "bash", *PROGRAM, *words], input=b"", capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (">&- " not in closed)


def test_messages_to_a_terminal_that_is_gone_are_dropped() -> None:
    """Only results must be written."""
    end, theirs = pty.openpty()
    os.close(end)
    done = subprocess.run([*PROGRAM, "verify", "missing.arrows"], stdout=subprocess.PIPE, stderr=theirs, check=False)
    results = subprocess.run([*PROGRAM, "decode", "0xcc0"], stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    assert (done.returncode, results.returncode, results.stderr) == (1, 0, b"")


def test_suspended_plain_output_continues() -> None:
    """SIGTSTP and SIGCONT have their usual effect."""
    words = ["live", "--plain", "--interval", "0.5", "--replay", str(TRACE)]
    # In a process group of its own: SIGTSTP stops nothing in an orphaned one, as that of the tests may be.
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as one:
        victim = Victim(one.pid, -1, "")
        victim.kill(signal.SIGTSTP)
        victim.wait_until_stopped(read=False)
        victim.kill(signal.SIGCONT)
        out, err = one.communicate(timeout=60)
    assert (one.returncode, err) == (0, b"")
    assert out.count(b"lost 0") > 10
