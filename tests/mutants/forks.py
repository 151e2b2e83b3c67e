# SPDX-License-Identifier: MIT
"""Calls functions in forked processes, some at a time, each with a limit of CPU time."""

import ctypes
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

_PR_SET_PDEATHSIG = 1

PATIENCE = 10
"""A busy machine gives a process a part of a CPU. One that has waited this many times its limit hangs."""


@dataclass(frozen=True)
class Call:
    """A function to call in a process of its own.

    Attributes:
        key: what the result is returned with.
        function: returns what JSON can carry.
        seconds: the limit of its CPU time, without that of the processes that it starts.
    """

    key: Any
    function: Callable[[], Any]
    seconds: float


@dataclass
class _Running:
    call: Call
    pid: int
    deadline: float
    said: bytes = field(default=b"")


def in_forks(calls: Iterable[Call], jobs: int) -> Iterator[tuple[Any, Any]]:
    """Call each function in a process of its own, and yield each key with its result as it comes.

    The result is "timeout" where the time limit was reached, and "crash" where the process ended without a result.
    When the caller stops, every process ends.

    Args:
        calls: the functions; read as processes become free.
        jobs: how many run at a time.
    """
    pending = iter(calls)
    running: dict[int, _Running] = {}
    with selectors.DefaultSelector() as selector:
        try:
            while True:
                while len(running) < jobs and (call := next(pending, None)) is not None:
                    reader, child = _start(call)
                    running[reader] = child
                    selector.register(reader, selectors.EVENT_READ)
                if not running:
                    return
                wait = max(0.0, min(child.deadline for child in running.values()) - time.monotonic())
                for key, _ in selector.select(wait):
                    data = os.read(key.fd, 1 << 16)
                    running[key.fd].said += data
                    if not data:
                        selector.unregister(key.fd)
                        yield _end(key.fd, running.pop(key.fd), "crash")
                for reader, child in list(running.items()):
                    if time.monotonic() > child.deadline:
                        selector.unregister(reader)
                        del running[reader]
                        yield _end(reader, child, "timeout")
        finally:
            for reader, child in running.items():
                _end(reader, child, "stopped")


def _start(call: Call) -> tuple[int, _Running]:
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(call, writer)
    os.close(writer)
    return reader, _Running(call, pid, time.monotonic() + PATIENCE * call.seconds)


def _child(call: Call, writer: int) -> None:
    """Call the function, write its result, and end this process without any cleanup of the parent's."""
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPROF):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, call.seconds)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        sys.stdout = sys.stderr = os.fdopen(nowhere, "w", encoding="utf-8")
        with os.fdopen(writer, "w", encoding="utf-8") as out:
            json.dump(call.function(), out)
    finally:
        os._exit(0)


def _end(reader: int, child: _Running, otherwise: str) -> tuple[Any, Any]:
    """End the process, and all that it has started; return its key and its result."""
    os.close(reader)
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(child.pid, signal.SIGKILL)
    _, status = os.waitpid(child.pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF:
        return child.call.key, "timeout"
    if otherwise != "crash" or not child.said:
        return child.call.key, otherwise
    return child.call.key, json.loads(child.said)
