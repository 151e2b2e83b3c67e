# SPDX-License-Identifier: MIT
"""Runs the script of a guest in the matrix, line by line, in one process: `python session.py FILE`.

A shell runs each line, except that lines starting with `kalloctrace` call the program's main function. On an emulated
machine a second import takes longer than a hundred thousand requests.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from kalloctrace.__main__ import main

for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    program, *words = shlex.split(line)
    code = main(words) if program == "kalloctrace" else subprocess.run(["sh", "-c", line], check=False).returncode
    if code:
        sys.exit(f"{line} ended with exit code {code}")
