# SPDX-License-Identifier: MIT
"""A command that waits, already started, until capture has begun."""

import os
import select
import shutil
import signal
import subprocess
from collections.abc import Sequence
from typing import Self

from kalloctrace.errors import KalloctraceError

_GRACE = 5.0


class Child:
    """The process of a command; it does nothing before `resume`.

    Args:
        command: the program and its arguments.

    Raises:
        KalloctraceError: there is no such program.
    """

    def __init__(self, command: Sequence[str]) -> None:
        if shutil.which(command[0]) is None:
            raise KalloctraceError(f"cannot run {command[0]}", "there is no such program", "check the command after --")
        # The shell stops itself before it becomes the command: the process, and its id, are there already.
        self._process = subprocess.Popen(["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *command])
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.pidfd = os.pidfd_open(self._process.pid)

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the command if it still runs or never began."""
        self.end()

    def resume(self) -> None:
        """Let the command run."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Wait for the command, ending it if it still runs; return its exit status, 128 + n after signal n."""
        if self._process.returncode is None:
            if not select.select([self.pidfd], [], [], 0)[0]:
                self._process.terminate()
                # One that was never let go would take no signal.
                self.resume()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self.pidfd)
        code = self._process.returncode
        return code if code >= 0 else 128 - code
