# SPDX-License-Identifier: MIT
"""Reads a distribution's kernel image: as an ELF file with the symbols that the kernel itself carries."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from struct import iter_unpack

from elftools.elf.elffile import ELFFile

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.kernels import Kernel, cache_directory
from tests.compiled.image import KERNEL_BASE, Image, Segment, Symbols


def load(kernel: Kernel) -> Image:
    """Read the image of a kernel.

    Args:
        kernel: from `kalloctrace.lab.kernels.obtain`.
    """
    with _symbolized(kernel).open("rb") as file:
        elf = ELFFile(file)
        segments = tuple(
            Segment(segment["p_vaddr"], segment.data())
            for segment in elf.iter_segments()
            if segment["p_type"] == "PT_LOAD" and segment["p_vaddr"] >= KERNEL_BASE
        )
        table, names = (elf.get_section_by_name(name).data() for name in (".symtab", ".strtab"))
    return Image(kernel.name, kernel.version, segments, Symbols.of(_named(table, names)))


def _named(table: bytes, names: bytes) -> Iterator[tuple[str, int]]:
    """Yield the names and addresses of a symbol table: `Elf64_Sym`, some 200,000."""
    for name, _info, _other, _section, value, _size in iter_unpack("<IBBHQQ", table):
        if name:
            yield names[name : names.index(b"\0", name)].decode(), value


def _symbolized(kernel: Kernel) -> Path:
    """Return the image as an ELF file with the kernel's own symbol table, which takes most of a minute to make."""
    path = cache_directory() / "elf" / f"{kernel.release}_{kernel.version}.elf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".make-") as directory:
            made = Path(directory) / path.name
            command = [sys.executable, "-m", "vmlinux_to_elf.scripts.vmlinux_to_elf", str(kernel.image), str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not made.exists():
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
                raise KalloctraceError(
                    f"cannot find the symbols of {kernel.image}", f"vmlinux-to-elf: {last}", "try another kernel"
                )
            made.rename(path)
    return path
