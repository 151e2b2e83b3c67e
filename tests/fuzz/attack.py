# SPDX-License-Identifier: MIT
"""Attacks one surface with libFuzzer, through atheris: `python -m tests.fuzz.attack MODULE NAME RUNS SECONDS`.

It ends by itself after so many inputs or seconds (0 for no limit), or dies with an input that kills the process.
`tests.fuzz.run` starts it again and counts. libFuzzer keeps an input that ends in a signal which it can handle; for the
others, such as SIGKILL, the input that is being run is in the file `running`.
"""

import hashlib
import json
import mmap
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kalloctrace"]):
    from tests.fuzz import surface

_TIMEOUT = 20
"""Seconds until libFuzzer ends a process that hangs in one input."""
_MEMORY = 1024
"""MiB, what the program may use."""
_REPORT = 1000
"""Inputs between two updates of the counts on disk."""


class Attack:
    """Counts inputs, keeps what breaks the contract, and ends the process at its limit.

    Args:
        target: the surface.
        runs: the number of inputs to end after; 0 for no limit.
        seconds: the time to end after; 0 for no limit.
    """

    def __init__(self, target: surface.Surface, runs: int, seconds: float) -> None:
        self._target = target
        self._folder = surface.FOUND / target.name
        self._runs = runs
        self._end = time.monotonic() + seconds if seconds else float("inf")
        self._done = 0
        with (self._folder / surface.RUNNING).open("wb+") as file:
            file.truncate(surface.LENGTH + target.max_len)
            self._running = mmap.mmap(file.fileno(), 0)

    def one(self, data: bytes) -> None:
        """Run one input."""
        self._running[: surface.LENGTH + len(data)] = (1 + len(data)).to_bytes(surface.LENGTH, "little") + data
        try:
            self._target.check(data)
        except Exception as error:  # noqa: BLE001  (that is what a fuzzer looks for)
            self._keep(data, error)
        self._done += 1
        over = self._done == self._runs or time.monotonic() > self._end
        if over or self._done % _REPORT == 0:
            (self._folder / "done.json").write_text(json.dumps({"executions": self._done, "over": over}))
        if over:
            # libFuzzer would call this the crash of its process.
            sys.stderr.flush()
            os._exit(0)

    def _keep(self, data: bytes, error: Exception) -> None:
        """Keep the shortest input of each kind: an exception and where it was raised."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "kalloctrace/" in frame.filename] or frames
        kind = f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"
        file = self._folder / f"finding-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"
        if not file.exists() or len(data) < file.stat().st_size:
            file.write_bytes(data)
            file.with_suffix(".txt").write_text(f"{kind}\n{''.join(traceback.format_exception(error))}")


def main() -> None:
    """Attack the surface that the command line names."""
    module, name, runs, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    with atheris.instrument_imports(include=["kalloctrace"]):
        import_module(module)
    target = surface.SURFACES[name]
    folder = surface.FOUND / name
    attack = Attack(target, runs, seconds)
    atheris.Setup(
        [
            *(sys.argv[0], str(folder / "new"), *({str(seed.parent) for seed in target.seeds()})),
            # libFuzzer ends at an empty dictionary.
            *([f"-dict={folder / 'words'}"] if target.words else []),
            *(f"-artifact_prefix={folder}/", f"-max_len={target.max_len}"),
            *(f"-timeout={_TIMEOUT}", f"-rss_limit_mb={_MEMORY}", "-detect_leaks=0", "-reload=0", "-len_control=20"),
        ],
        attack.one,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
