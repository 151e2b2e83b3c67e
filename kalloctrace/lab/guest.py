# SPDX-License-Identifier: MIT
"""What starts a guest: the command lines of virtme and QEMU, and the job files that `guest.sh` reads."""

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import Exit, KalloctraceError

SCRIPT = Path(__file__).with_name("guest.sh")

_ROOT_TAG = "kalloctrace.root"
_PASSED_ON = ("CI", "LANG", "LC_ALL", "NO_COLOR", "PYTHONPATH", "VIRTUAL_ENV")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A processor that could exist: none of these features without the one that it builds on.
# - QEMU 7.2 emulates AVX wrongly (Arrow's vectorised group-by mixes up keys), so AVX and what extends it are off.
# - QEMU emulates `rep stosb` bytewise, so ERMS is off, and with it FSRM, which QEMU has since 8.1: before 6.5 (commit
#   14e4ec9c3e91) the kernel takes FSRM to imply ERMS, and with FSRM only its memmove() below 32 bytes never ends.
_CPU = "max,avx=off,avx2=off,f16c=off,fma=off,vaes=off,erms=off,fsrm=off"
# An old processor that every kernel knows, and the least that Arrow runs on.
_SAFE_CPU = "Nehalem"
_MANY_THREADS = ("-accel", "tcg,thread=multi,tb-size=512")
_ONE_THREAD = ("-accel", "tcg,thread=single,tb-size=512")
# One instruction takes one nanosecond of guest time, and an idle guest skips ahead.
_INSTRUCTION_CLOCK = ("-icount", "shift=0,sleep=off")
# A booting kernel says what it does, so that one that hangs falls silent; common.sh limits the slow console to warnings
# when the command starts. On a busy machine emulated interrupts are late, and without no_timer_check the kernel takes
# its timer for broken.
_KERNEL_ARGUMENTS = ("loglevel=7", "no_timer_check")
_UNITS = {"": 1, "M": 1, "G": 1024}
_NUMA = re.compile(r"(\d+)([MG]?)(?:,.*)?")
_DISTANCE = re.compile(r"(\d+),(\d+)=(\d+)")
# The guest mounts its own file systems here, so host directories cannot be shared here.
_GUEST_MOUNTS = ("/proc", "/sys", "/dev", "/run")


@dataclass(frozen=True)
class Machine:
    """The virtual machine.

    Attributes:
        memory: in QEMU's syntax, such as `3G`; None for the sum of the nodes, or 3G without nodes.
        cpus: the number of processors; None for 2, or 1 with the instruction clock.
        numa: one entry per node: its size and options, such as `1G,cpus=0`.
        numa_distance: entries of `SRC,DST=VALUE`.
        append: further kernel arguments.
        qemu_options: further arguments for QEMU.
        kvm: use the host's KVM instead of emulation.
        icount: the guest's clock counts instructions, one per nanosecond, so that times are reproducible.
        safe: emulate an old processor in one thread, for a kernel that does not boot otherwise.
    """

    memory: str | None = None
    cpus: int | None = None
    numa: Sequence[str] = ()
    numa_distance: Sequence[str] = ()
    append: Sequence[str] = ()
    qemu_options: Sequence[str] = ()
    kvm: bool = False
    icount: bool = False
    safe: bool = False

    def __post_init__(self) -> None:
        """Raise a `KalloctraceError` if the options contradict each other."""
        if self.icount and (self.kvm or self.processors() != 1):
            raise KalloctraceError(
                "this machine cannot have the instruction clock",
                "only the emulator counts instructions, and only with one processor",
                "drop --kvm and --cpus, or drop --icount",
                Exit.USAGE,
            )

    def processors(self) -> int:
        """Return the number of processors."""
        if self.cpus is not None:
            return self.cpus
        return 1 if self.icount else 2

    def emulation(self) -> tuple[str, ...]:
        """Return QEMU's arguments for the emulated processors."""
        threads = _ONE_THREAD if self.icount or self.safe else _MANY_THREADS
        clock = _INSTRUCTION_CLOCK if self.icount else ()
        return (*threads, *clock, "-cpu", _SAFE_CPU if self.safe else _CPU)

    def total_memory(self) -> str:
        """Return the memory size for QEMU; the sizes of the nodes must add up to it."""
        if self.memory is not None:
            return self.memory
        if not self.numa:
            return "3G"
        return f"{sum(_node_size(node) for node in self.numa)}M"

    def distances(self) -> list[str]:
        """Return the distances in QEMU's syntax."""
        words = []
        for text in self.numa_distance:
            match = _DISTANCE.fullmatch(text)
            if match is None:
                raise KalloctraceError(
                    f"{text!r} is not a distance between nodes",
                    "a distance has the form SRC,DST=VALUE",
                    "write, for example, 0,1=20",
                    Exit.USAGE,
                )
            words.append(f"src={match[1]},dst={match[2]},val={match[3]}")
        return words


def _node_size(node: str) -> int:
    """Return a node's size in MiB."""
    match = _NUMA.fullmatch(node)
    if match is None:
        raise KalloctraceError(
            f"{node!r} is not a NUMA node",
            "a node has the form SIZE[M|G][,OPTION=VALUE…]",
            "write, for example, 1G,cpus=0",
            Exit.USAGE,
        )
    return int(match[1]) * _UNITS[match[2]]


def writable_directories(directories: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the directories to share read-write, outer ones first, so that no mount hides another.

    Raises:
        KalloctraceError: a directory cannot be shared.
    """
    paths = {Path(directory).resolve() for directory in directories}
    for path in paths:
        if why := why_not_shared(path):
            raise KalloctraceError(
                f"{path} cannot be shared with the guest",
                why,
                "change to another directory, or give another with --out: these are shared read-write",
                Exit.USAGE,
            )
    return sorted(paths)


def why_not_shared(path: Path) -> str:
    """Return why a directory, by its real path, cannot be shared read-write; empty if it can."""
    if not path.is_dir():
        return "it is not a directory"
    if path == Path("/"):
        return "it is the guest's root file system"
    if any(path.is_relative_to(own) for own in _GUEST_MOUNTS):
        return "the guest has its own file system there"
    return "its name contains a line break" if "\n" in str(path) else ""


def virtme_command(image: Path, job_dir: Path, shares: Sequence[Path], machine: Machine) -> list[str]:
    """Return the command that boots a kernel with 9p and runs a job in it.

    Args:
        image: the kernel image.
        job_dir: the job's directory.
        shares: the directories to share read-write, the job's directory first.
        machine: the virtual machine.
    """
    command = ["virtme-run", "--kimg", str(image), "--mods", "auto", "--force-9p", "--show-boot-console"]
    # A writable overlay of the host's /tmp, for the guest only. It also loads overlayfs, which guest.sh requires.
    command += ["--overlay-rwdir", "/tmp"]  # noqa: S108  (the guest's)
    command += ["--cpus", str(machine.processors()), "--memory", machine.total_memory()]
    for node in machine.numa:
        command += ["--numa", node]
    for distance in machine.distances():
        command += ["--numa-distance", distance]
    for argument in (*_KERNEL_ARGUMENTS, *machine.append):
        command.append(f"--kopt={argument}")
    options = _share_options(0, _ROOT_TAG, Path("/"), "readonly=on")
    for number, path in enumerate(shares, 1):
        options += _share_options(number, _share_tag(number), path, "readonly=off")
    if not machine.kvm:
        command.append("--disable-kvm")
        options += machine.emulation()
    command += [f"--qemu-opt={option}" for option in (*options, *machine.qemu_options)]
    # Busybox's shell has built-in tools. The host's tools, read over 9p, double the boot time.
    return [*command, "--script-sh", shlex.join(["busybox", "sh", str(SCRIPT), str(job_dir)])]


def initramfs_command(image: Path, archive: Path, shared: Path, size: int, machine: Machine) -> list[str]:
    """Return the command that boots a kernel with all its files in memory.

    Args:
        image: the kernel image.
        archive: the archive of its root file system.
        shared: the file that backs the shared memory.
        size: the size of the shared memory in bytes.
        machine: the virtual machine.
    """
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-m", machine.total_memory()]
    command += ["-smp", str(machine.processors()), "-display", "none", "-no-reboot"]
    command += ["-chardev", "file,id=console,path=/proc/self/fd/2", "-serial", "chardev:console"]
    for number, node in enumerate(machine.numa):
        node_size, _, options = node.partition(",")
        words = ["node", *([options] if options else [])]
        # A node of size 0 has no memory.
        if _node_size(node):
            command += ["-object", f"memory-backend-ram,id=node{number},size={node_size}{_default_unit(node_size)}"]
            words.insert(1, f"memdev=node{number}")
        command += ["-numa", ",".join(words)]
    for distance in machine.distances():
        command += ["-numa", f"dist,{distance}"]
    command += ["-object", f"memory-backend-file,id=shared,share=on,size={size},mem-path={_quoted(shared)}"]
    command += ["-device", "ivshmem-plain,memdev=shared"]
    command += ["-accel", "kvm", "-cpu", "host"] if machine.kvm else machine.emulation()
    # A tmpfs root could use only half of the memory that the archive leaves.
    arguments = ("console=ttyS0", "panic=-1", "rootfstype=ramfs", *_KERNEL_ARGUMENTS, *machine.append)
    command += ["-kernel", str(image), "-initrd", str(archive), "-append", " ".join(arguments)]
    return [*command, *machine.qemu_options]


def _default_unit(size: str) -> str:
    return "M" if size.isdecimal() else ""


def _quoted(path: Path) -> str:
    # QEMU requires commas in values to be doubled.
    return str(path).replace(",", ",,")


def _share_tag(number: int) -> str:
    return f"kalloctrace.{number}"


def _share_options(number: int, tag: str, path: Path, access: str) -> list[str]:
    return [
        "-fsdev",
        f"local,id=kalloctrace{number},path={_quoted(path)},security_model=none,multidevs=remap,{access}",
        "-device",
        f"virtio-9p-pci,fsdev=kalloctrace{number},mount_tag={tag}",
    ]


def write_job(job_dir: Path, argv: Sequence[str], shares: Sequence[Path], env: Mapping[str, str], cwd: Path) -> None:
    """Write the files that `guest.sh` reads.

    Args:
        job_dir: the job's directory.
        argv: the command.
        shares: see `virtme_command`.
        env: the command's complete environment.
        cwd: its working directory.
    """
    tags = "".join(f"{_share_tag(number)} {path}\n" for number, path in enumerate(shares, 1))
    (job_dir / "shares").write_bytes(os.fsencode(tags))
    prefix = Path(sys.prefix).resolve()
    # Writable directories are mounted uncached; an interpreter below one, as in a checkout's .venv, is mounted cached.
    cached = f"{prefix}\n" if any(prefix.is_relative_to(share) for share in shares) else ""
    (job_dir / "cached").write_bytes(os.fsencode(cached))
    (job_dir / "command").write_bytes(command_script(argv, env, cwd))


def command_script(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> bytes:
    """Return a shell script that runs a command with exactly these arguments and variables in this directory."""
    variables = [f"{name}={value}" for name, value in env.items()]
    # env would take a command with `=` in its name for a variable, hence the inner shell.
    words = ["env", "-i", *variables, "sh", "-c", 'exec "$@"', "sh", *argv]
    return os.fsencode(f"cd {shlex.quote(str(cwd))} && exec {shlex.join(words)}\n")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the command's environment; it takes few variables of the host, so that runs are reproducible.

    Args:
        extra: variables to add.
    """
    programs = Path(sys.executable).parent
    passed_on = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith("KALLOCTRACE_")
    }
    return {
        "HOME": "/run/kalloctrace/home",
        "LANG": "C.UTF-8",
        "LOGNAME": "root",
        "PATH": f"{programs}:{os.environ.get('PATH', '')}:{_SYSTEM_PATH}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "USER": "root",
        **passed_on,
        **extra,
    }
