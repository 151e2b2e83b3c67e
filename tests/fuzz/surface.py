# SPDX-License-Identifier: MIT
"""What a fuzzer attacks: functions that read foreign bytes, each with its contract.

A surface is a function `fuzz_NAME(data: bytes) -> None` in a module of `tests/fuzz/targets`, marked by `@surface`. It
reads the input as the program does and returns. It swallows the errors that the program shows in three lines; every
other exception is a finding, and so is an input that takes too long. Its seeds are in `tests/fuzz/corpus/NAME`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from kalloctrace.errors import KalloctraceError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CORPUS = HERE / "corpus"
FOUND = ROOT / "build" / "fuzz"
"""Where a run keeps new inputs and findings, a folder for each surface."""

_LINES = 3
SURFACES: dict[str, "Surface"] = {}
"""The surfaces of the modules that are imported, by name."""
RUNNING, LENGTH = "running", 4
"""The file in the folder of a surface with the input that is being run, behind its length plus one in so many bytes."""


class TooSlowError(Exception):
    """An input took more CPU time than its surface allows."""


@dataclass(frozen=True)
class Surface:
    """A function under attack.

    Attributes:
        name: its name without `fuzz_`.
        run: the function.
        max_len: the longest input in bytes.
        covers: files below `kalloctrace/` whose coverage is reported; `*` is allowed.
        words: what the mutations insert: keywords of the format.
        seconds: CPU seconds that one input may take.
    """

    name: str
    run: Callable[[bytes], None]
    max_len: int
    covers: tuple[str, ...]
    words: tuple[str | bytes, ...]
    seconds: float

    def check(self, data: bytes) -> None:
        """Run one input.

        Raises:
            TooSlowError: it took longer than allowed.
            Exception: any other exception is a breach of the contract as well.
        """
        begin = time.process_time()
        self.run(data)
        took = time.process_time() - begin
        if took > self.seconds:
            raise TooSlowError(f"{len(data)} bytes took {took:.1f} s")

    def seeds(self) -> list[Path]:
        """Return the files of its corpus."""
        return sorted((CORPUS / self.name).glob("*"))


def surface(
    *, max_len: int, covers: tuple[str, ...], words: tuple[str | bytes, ...] = (), seconds: float = 1.0
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register a function as a surface; the arguments are attributes of `Surface`."""

    def register(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
        name = function.__name__.removeprefix("fuzz_")
        SURFACES[name] = Surface(name, function, max_len, covers, words, seconds)
        return function

    return register


def all_surfaces() -> dict[str, Surface]:
    """Return the surfaces of all modules in `targets`, by name."""
    for file in sorted((HERE / "targets").glob("[!_]*.py")):
        import_module(f"tests.fuzz.targets.{file.stem}")
    return dict(sorted(SURFACES.items()))


@contextmanager
def answers() -> Iterator[None]:
    """Allow the program's own error, if it has three lines."""
    try:
        yield
    except KalloctraceError as error:
        text = str(error)
        if len(text.splitlines()) != _LINES:
            raise AssertionError(text) from error


class MemoryFile:
    """A file in memory, for readers that take a path."""

    def __init__(self) -> None:
        """Create it, empty."""
        self._fd = os.memfd_create("fuzz")
        self.path = Path(f"/proc/self/fd/{self._fd}")

    def fill(self, data: bytes) -> Path:
        """Replace the content, and return the path."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, data, 0)
        return self.path
