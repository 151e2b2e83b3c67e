# SPDX-License-Identifier: MIT
"""Runs the script of a guest in the matrix, line by line: `python session.py FILE`.

A shell runs each line, except that lines starting with `kalloctrace` call the program's main function in a fork of this
process: a recorder gives its privileges up for good. Imports are done once, because on an emulated machine a second
import takes longer than a hundred thousand requests.
"""

import os
import shlex
import subprocess
import sys
import traceback
from importlib import import_module
from pathlib import Path

from kalloctrace.__main__ import main
from kalloctrace.probe.attach.bcc_import import import_bcc
from kalloctrace.probe.privileges.threads import import_libraries_without_threads


def run(line: str) -> int:
    """Run a line of the script; return its exit code."""
    program, *words = shlex.split(line)
    if program != "kalloctrace":
        return subprocess.run(["sh", "-c", line], check=False).returncode
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = main(words)
            sys.stdout.flush()
        except BaseException:  # noqa: BLE001 - the process ends here, and what ended it must be seen
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# A thread would keep its privileges.
import_libraries_without_threads()
import_bcc()
for name in ("kalloctrace.commands.record", "kalloctrace.probe.recorder"):
    import_module(name)
for each in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    if done := run(each):
        sys.exit(f"{each} ended with exit code {done}")
