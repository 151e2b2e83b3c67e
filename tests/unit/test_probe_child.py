# SPDX-License-Identifier: MIT
"""The recorded command: it waits until it is resumed, and its exit status is returned."""

import grp
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.child import Child, find_user


def test_command_waits_for_the_word(tmp_path: Path) -> None:
    """The command does nothing before capture has begun."""
    made = tmp_path / "made"
    child = Child(["touch", str(made)])
    assert not select.select([child.pidfd], [], [], 0.2)[0]
    assert not made.exists()
    child.resume()
    select.select([child.pidfd], [], [], 10)
    assert child.end() == 0
    assert made.exists()


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_status_is_that_of_a_shell(script: str, status: int) -> None:
    """128 and the signal's number where a signal ended it."""
    child = Child(["sh", "-c", script])
    child.resume()
    select.select([child.pidfd], [], [], 10)
    assert child.end() == status


def test_running_command_is_ended() -> None:
    """When the recording ends first, by time or by signal."""
    child = Child(["sleep", "60"])
    child.resume()
    assert child.end() == 128 + 15


def test_command_that_was_never_resumed_is_ended() -> None:
    """As when the recording fails before it begins."""
    assert Child(["sleep", "60"]).end() == 128 + 15


def test_command_that_is_not_there_is_named() -> None:
    """Before anything is attached."""
    with pytest.raises(KalloctraceError, match=r"cannot run /no/such/command\n  why: there is no such program"):
        Child(["/no/such/command"])


def ran(child: Child) -> int:
    """Let a command run to its end; return its exit status."""
    child.resume()
    select.select([child.pidfd], [], [], 10)
    return child.end()


ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@ROOT
def test_user_s_command_has_that_identity_and_no_capabilities(capfd: pytest.CaptureFixture[str]) -> None:
    """Ids, groups and variables are the user's; no capability set but the bounding one has anything."""
    assert ran(Child(["sh", "-c", "id; env; cat /proc/self/status"], find_user("nobody"))) == 0
    seen = capfd.readouterr().out.splitlines()
    nobody = pwd.getpwnam("nobody")
    groups = ",".join(
        f"{number}({grp.getgrgid(number).gr_name})" for number in os.getgrouplist("nobody", nobody.pw_gid)
    )
    assert seen[0] == f"uid={nobody.pw_uid}(nobody) gid={groups.split(',')[0]} groups={groups}"
    assert {"USER=nobody", "LOGNAME=nobody", f"HOME={nobody.pw_dir}", f"SHELL={nobody.pw_shell}"} <= set(seen)
    empty = f"{0:016x}"
    assert {f"{name}:\t{empty}" for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} <= set(seen)
    bounding = next(line for line in seen if line.startswith("CapBnd"))
    assert bounding in Path("/proc/self/status").read_text().splitlines()


@pytest.mark.parametrize("user", [None, pytest.param("nobody", marks=ROOT)])
def test_command_inherits_nothing_of_the_recorder(user: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    """No descriptor, blocked or ignored signal, no_new_privs, seccomp, and the caller's working directory."""
    inherited, other = os.pipe()
    os.set_inheritable(inherited, True)
    script = "ls -U /proc/self/fd | tr '\\n' ' '; echo; cat /proc/self/status; pwd"
    child = Child(["sh", "-c", script], None if user is None else find_user(user))
    assert ran(child) == 0
    os.close(inherited)
    os.close(other)
    descriptors, *status, folder = capfd.readouterr().out.splitlines()
    # The last one is the folder that ls reads.
    assert descriptors == "0 1 2 3 "
    assert folder == str(Path.cwd())
    own = Path("/proc/self/status").read_text().splitlines()
    same = ("NoNewPrivs", "Seccomp", "SigBlk", "CapBnd", *(("Uid", "Groups", "CapEff") if user is None else ()))
    assert [line for line in status if line.startswith(same)] == [line for line in own if line.startswith(same)]
    ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    assert not ignored & 1 << signal.SIGPIPE - 1


def test_script_without_an_interpreter_runs_as_in_a_shell(tmp_path: Path) -> None:
    """As execvp(3) does."""
    script = tmp_path / "script"
    script.write_text(f"printf '%s|' \"$@\" > {tmp_path}/seen; exit 3\n")
    script.chmod(0o755)
    assert ran(Child([str(script), "a b", ""])) == 3
    assert (tmp_path / "seen").read_text() == "a b||"


def test_program_that_cannot_be_executed_has_a_shell_s_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The interpreter of a script does not exist: found too late for an error before the recording."""
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    assert ran(Child([str(script)])) == 127
    assert "cannot run" in capfd.readouterr().err


def test_held_command_ends_with_the_recorder(tmp_path: Path) -> None:
    """After kill -9 a command that was not resumed does not stay, and does not run."""
    script = (
        "import os, sys; from kalloctrace.probe.child import Child\n"
        f"child = Child(['touch', '{tmp_path}/made'])\n"
        "fdinfo = open(f'/proc/self/fdinfo/{child.pidfd}').read().split()\n"
        "print(fdinfo[fdinfo.index('Pid:') + 1], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    held = Path(f"/proc/{int(done.stdout)}")
    deadline = time.monotonic() + 10
    while held.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not held.exists()
    assert not (tmp_path / "made").exists()


@ROOT
def test_user_s_running_command_is_ended_without_privileges(tmp_path: Path) -> None:
    """The helper still may, once the recorder has given up its capabilities."""
    tmp_path.chmod(0o777)
    script = (
        "from kalloctrace.probe.child import Child, find_user\n"
        "from kalloctrace.probe.privileges.confine import confine\n"
        "child = Child(['sh', '-c', 'trap \"\" TERM; echo started; exec sleep 60'], find_user('nobody'))\n"
        "confine()\n"
        "import kalloctrace.probe.child as module; module._GRACE = 0.2\n"
        "child.resume()\n"
        "import time; time.sleep(0.5)\n"
        "print(child.end())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.split() == ["started", str(128 + 9)], done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-user", "there is no such user"),
        ("", "there is no such user"),
        ("a\x1bb", "there is no such user"),
        ("nobody\0", "there is no such user"),
        ("65534", "a name, not a number"),
        ("99999999999999999999", "a name, not a number"),
        ("root", "gives root all of them"),
    ],
)
def test_user_who_cannot_run_it_is_explained(name: str, why: str) -> None:
    """As wrong usage, with the reason; a number is answered with the name."""
    with pytest.raises(KalloctraceError) as caught:
        find_user(name)
    assert why in caught.value.why
    assert caught.value.code == 2
    assert "\x1b" not in str(caught.value)
    assert (name != "65534") or "--user nobody" in caught.value.fix


@ROOT
def test_caller_without_the_capability_is_told(tmp_path: Path) -> None:
    """It names what is missing."""
    done = subprocess.run(
        [
            *("setpriv", "--inh-caps=-all", "--bounding-set=-setuid"),
            *(sys.executable, "-m", "kalloctrace", "record", "--user", "nobody", "--", "true"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert "without cap_setuid cannot become another user" in done.stderr


@ROOT
def test_program_that_the_user_may_not_run_is_named(tmp_path: Path) -> None:
    """Root could run it, the user cannot: known before anything is attached."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    with pytest.raises(KalloctraceError, match="or nobody may not run it"):
        Child([str(program)], find_user("nobody"))
