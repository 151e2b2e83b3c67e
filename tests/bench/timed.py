# SPDX-License-Identifier: MIT
"""Runs `kalloctrace`, and writes the CPU time (ns) of bcc's compiler to a file.

usage: python timed.py FILE WORD...
"""

import sys
import time
from pathlib import Path

from kalloctrace.__main__ import main
from kalloctrace.probe.attach.bcc_import import import_bcc


def timed(file: Path, words: list[str]) -> int:
    """Run the program; return its exit code."""
    bcc = import_bcc()
    spent = 0

    class Timed(bcc.BPF):  # type: ignore[misc, name-defined]
        """A BPF object; its constructor compiles and creates maps, and loads no program."""

        def __init__(self, *args: object, **kwargs: object) -> None:
            nonlocal spent
            start = time.process_time_ns()
            super().__init__(*args, **kwargs)
            spent += time.process_time_ns() - start

    bcc.BPF = Timed  # type: ignore[attr-defined]
    # Opened first: once it is attached, a recorder may open no other file for writing.
    with file.open("w", encoding="ascii") as output:
        code = main(words)
        output.write(str(spent))
    return code


if __name__ == "__main__":
    sys.exit(timed(Path(sys.argv[1]), sys.argv[2:]))
