# SPDX-License-Identifier: MIT
"""The recorded command: it waits until it is resumed, and its exit status is returned."""

import select
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.child import Child


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
