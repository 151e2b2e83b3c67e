# SPDX-License-Identifier: MIT
"""A command that is started, and stopped until capture has begun."""

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
    """The process of a command; it is stopped until `resume`.

    Args:
        command: the program and its arguments.

    Raises:
        KalloctraceError: there is no such program.
    """

    def __init__(self, command: Sequence[str]) -> None:
        if shutil.which(command[0]) is None:
            raise KalloctraceError(f"cannot run {command[0]}", "there is no such program", "check the command after --")
        # The shell stops itself before it execs the command, so that the process id is known before anything runs.
        self._process = subprocess.Popen(["sh", "-c", 'kill -STOP $$; exec "$@"', "sh", *command])
        try:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            self.pidfd = os.pidfd_open(self._process.pid)
        except BaseException:
            self.kill()
            raise

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the command if it is still running or was never resumed."""
        self.end()

    def resume(self) -> None:
        """Let the command run."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill the command at once, stopped or not."""
        self._process.kill()

    def end(self) -> int:
        """End the command if it is still running; return its exit status, or 128 + n after signal n."""
        if self._process.returncode is None:
            if not select.select([self.pidfd], [], [], 0)[0]:
                self._process.terminate()
                # A stopped process must be continued before it can act on SIGTERM.
                self.resume()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self.pidfd)
        code = self._process.returncode
        return code if code >= 0 else 128 - code
