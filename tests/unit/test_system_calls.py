# SPDX-License-Identifier: MIT
"""System calls by their numbers, on the running kernel."""

import errno
import os

import pytest

from kalloctrace.system_calls import PERF_TYPE_SOFTWARE, perf_event_open, system_call

TASK_CLOCK = 1
"""PERF_COUNT_SW_TASK_CLOCK: every kernel with perf events has it, whatever the processor counts."""
GETPID, CLOSE = 39, 3


def test_a_perf_event_is_opened() -> None:
    """The kernel takes the structure: it may forbid the event, or have none, but the size and the members are right."""
    refused = None
    try:
        file = perf_event_open(PERF_TYPE_SOFTWARE, TASK_CLOCK, pid=0, cpu=-1)
    except OSError as error:
        refused = error.errno
    else:
        with os.fdopen(file, "rb", buffering=0) as event:
            assert len(event.read(8)) == 8
    assert refused in {None, errno.EACCES, errno.EPERM, errno.ENOSYS}


def test_a_result_is_returned() -> None:
    """That of the call."""
    assert system_call("getpid", GETPID) == os.getpid()


def test_a_refusal_names_the_call() -> None:
    """With the kernel's reason."""
    with pytest.raises(OSError, match="close of nothing: Bad file descriptor") as caught:
        system_call("close of nothing", CLOSE, -1)
    assert caught.value.errno == errno.EBADF
