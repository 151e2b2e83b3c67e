# SPDX-License-Identifier: MIT
"""The `prebuild` command."""

import sys
from pathlib import Path

import click

from kalloctrace.console import stderr, stderr_bytes, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name, many

_SECONDS = 1800.0
"""For one kernel: a program takes half a minute in emulation."""


@click.command()
@click.option(
    "--kernel",
    "-k",
    "kernels",
    multiple=True,
    required=True,
    metavar="NAME|PATH",
    help="A kernel of the lab such as 6.12, or an image's path; several are allowed.",
)
@click.option(
    "--cpus",
    type=click.IntRange(min=1, max=8192),
    multiple=True,
    default=(2, 4, 8),
    show_default=True,
    metavar="N",
    help="How many processors the machines may have; one program serves all up to the next power of two.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("programs"),
    show_default=True,
    help="The folder of programs, one folder for each kernel build.",
)
def command(kernels: tuple[str, ...], cpus: tuple[int, ...], output: Path) -> int:
    """Compile the programs of recordings, for machines that have no compiler.

    Each kernel boots in a virtual machine, where its programs are compiled. Copy the folder to /var/cache/kalloctrace
    of a machine with the same kernel build: recordings without filters need neither LLVM nor bcc there. A program for
    another build, of another version of this program, or a damaged one, is not used.

    \b
    Examples:
      kalloctrace prebuild --kernel 6.12 --kernel 7.3 --cpus 64
      rsync -a --chown=root:root programs/ HOST:/var/cache/kalloctrace/
    """
    from kalloctrace.lab.run import run_in_guest
    from kalloctrace.probe.attach.program_cache import CACHE_VARIABLE

    folder = output.resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KalloctraceError(
            f"cannot make the folder {file_name(output)}", error.strerror or str(error), "name another one with -o"
        ) from error
    words = [sys.executable, "-m", "kalloctrace.probe.prebuild", *map(str, cpus)]
    for kernel in kernels:
        made = run_in_guest(
            words,
            kernel=kernel,
            writable=[folder],
            env={CACHE_VARIABLE: str(folder)},
            timeout=_SECONDS,
            stderr=stderr_bytes(),
            progress=stderr(),
        )
        if made.returncode:
            return made.returncode
        first, *others = (Path(line) for line in made.stdout.decode().splitlines())
        made_there = file_name(output / first.parent.name)
        stdout().line(f"{kernel}: {many(1 + len(others), 'program')} in {made_there}")
    stderr().line(f"copy them to the machines, as root: rsync -a {file_name(output)}/ HOST:/var/cache/kalloctrace/")
    return Exit.OK
