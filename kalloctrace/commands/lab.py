# SPDX-License-Identifier: MIT
"""`kalloctrace lab`: runs any command on a real kernel in a virtual machine."""

import logging
import os
import shlex

import click

from kalloctrace.console import stderr, stderr_bytes, stdout, stdout_bytes
from kalloctrace.errors import KalloctraceError
from kalloctrace.lab import kernels, needs, run
from kalloctrace.lab.guest import Machine
from kalloctrace.lab.guest_console import LogOnConsole
from kalloctrace.lab.series import SUITES, KernelName

_KERNEL = click.option(
    "--kernel",
    "-k",
    required=True,
    metavar="NAME|PATH",
    help="A name such as 5.10 or 6.12-rt, or an image's path.",
)
_REFRESH = click.option("--refresh", is_flag=True, help="Look for a newer kernel even if that was done today.")


@click.group(name="lab")
def command() -> None:
    """Boot a real kernel in a virtual machine and run a command in it.

    It needs neither KVM nor root. The kernels are Debian's; apt fetches and verifies them, and the user's cache
    keeps them.

    \b
      kalloctrace lab run --kernel 5.10 -- uname -r
      kalloctrace lab run --kernel 6.12 --numa 1G,cpus=0 --numa 2G,cpus=1 -- kalloctrace doctor
    """
    log = logging.getLogger("kalloctrace.lab")
    if not log.handlers:
        log.addHandler(LogOnConsole())
        log.setLevel(logging.INFO)


@command.command(name="run")
@_KERNEL
@_REFRESH
@click.option("--memory", metavar="SIZE", help="Memory, such as 3G. Default: the sum of the nodes, or 3G.")
@click.option("--cpus", type=click.IntRange(min=1), help="Processors. Default: 2, or 1 with --icount.")
@click.option("--numa", multiple=True, metavar="SIZE[,cpus=N]", help="A NUMA node, such as 1G,cpus=0.")
@click.option("--numa-distance", multiple=True, metavar="SRC,DST=VALUE", help="The distance between two nodes.")
@click.option("--append", multiple=True, metavar="ARG", help="A kernel argument.")
@click.option("--qemu-opt", multiple=True, metavar="WORD", help="A further argument for QEMU.")
@click.option("--kvm", is_flag=True, help="Use the host's KVM. Default: emulation, which works anywhere.")
@click.option("--icount", is_flag=True, help="The guest's clock counts instructions: 1 ns each, on one processor.")
@click.option("--out", multiple=True, metavar="DIR", help="Share DIR read-write, like the current directory.")
@click.option("--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable, or pass on the value here.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    metavar="S",
    help="End the guest after S seconds.",
)
@click.option("--dry-run", is_flag=True, help="Print the command that boots the guest, and do not run it.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
def run_command(
    *,
    kernel: str,
    refresh: bool,
    memory: str | None,
    cpus: int | None,
    numa: tuple[str, ...],
    numa_distance: tuple[str, ...],
    append: tuple[str, ...],
    qemu_opt: tuple[str, ...],
    kvm: bool,
    icount: bool,
    out: tuple[str, ...],
    env: tuple[str, ...],
    timeout: float,
    dry_run: bool,
    argv: tuple[str, ...],
) -> int:
    """Run COMMAND on a kernel, with its output and exit code.

    COMMAND runs as root. It sees this machine's files read-only, and the current directory and those given with
    --out read-write.

    \b
    A kernel without 9p (the cloud flavour) or without modules (see lab kernels)
    boots with copies in memory of the files that a recording needs:
      modules and other programs of this machine are not available;
      the read-write directories are copied, without repositories, caches and
      virtual environments, and files that COMMAND creates or changes are copied
      back at the end; links and devices are not.

    \b
    Examples:
      kalloctrace lab run --kernel 5.10 -- uname -r
      kalloctrace lab run --kernel 7.3 --memory 2G -- kalloctrace record -o my.arrows -- ls
    """
    needs.require_lab()
    bootable = _obtain(kernel, refresh=refresh)
    if dry_run:
        machine = Machine(memory, cpus, numa, numa_distance, append, qemu_opt, kvm, icount)
        stdout().line(shlex.join(run.dry_run(argv, bootable, machine, out)))
        return 0
    result = run.run_in_guest(
        argv,
        kernel=bootable,
        memory=memory,
        cpus=cpus,
        numa=numa,
        numa_distance=numa_distance,
        append=append,
        qemu_options=qemu_opt,
        kvm=kvm,
        icount=icount,
        writable=out,
        env=_variables(env),
        timeout=timeout,
        stdout=stdout_bytes(),
        stderr=stderr_bytes(),
        progress=stderr(),
    )
    return result.returncode


@command.command()
@_KERNEL
@_REFRESH
def fetch(*, kernel: str, refresh: bool) -> None:
    """Download and unpack a kernel, and print the path of its image.

    \b
    Examples:
      kalloctrace lab fetch --kernel 6.12
    """
    stdout().line(str(_obtain(kernel, refresh=refresh).image))


@command.command(name="kernels")
@_REFRESH
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
def list_kernels(*, refresh: bool, as_json: bool) -> None:
    """List the available kernels: the release of each name, and whether the cache holds it.

    \b
    Examples:
      kalloctrace lab kernels
      kalloctrace lab kernels --json | jq -r 'select(.cached).release'
    """
    needs.require_fetch()
    for series in SUITES:
        name = KernelName.parse(series)
        found, why = None, ""
        try:
            found = kernels.resolve(name, refresh=refresh)
        except KalloctraceError as error:
            why = error.why
        cached = found is not None and kernels.is_unpacked(found)
        if as_json:
            record = {
                "type": "kernel",
                "name": series,
                "release": found.release if found else None,
                "version": found.image.version if found else None,
                "suites": list(name.suites),
                "modules": found.has_modules if found else None,
                "cached": cached,
                "reason": why or None,
            }
            stdout().json(record)
        elif found is None:
            stdout().line(f"{series:6} -  ({why})")
        else:
            state = ["cached"] if cached else []
            if not found.has_modules:
                state.append("without modules")
            stdout().line(f"{series:6} {found.release:32} {found.image.version:24} {', '.join(state)}".rstrip())


def _obtain(kernel: str, *, refresh: bool) -> kernels.Kernel:
    if "/" not in kernel:
        needs.require_fetch()
    return kernels.obtain(kernel, refresh=refresh)


def _variables(settings: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for setting in settings:
        name, given, value = setting.partition("=")
        if given:
            variables[name] = value
        elif name in os.environ:
            variables[name] = os.environ[name]
    return variables
