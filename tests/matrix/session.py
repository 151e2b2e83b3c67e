# SPDX-License-Identifier: MIT
"""Does what a guest of the matrix is to do, line by line, in one process: `python session.py FILE`.

Each line is a shell's, but for those that start with `kalloctrace`: the program's own main function gets their words.
To import it twice takes an emulated machine longer than to make a hundred thousand requests.
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
