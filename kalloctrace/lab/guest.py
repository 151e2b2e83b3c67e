# SPDX-License-Identifier: MIT
"""What is handed to the guest: virtme's command line, and the job's files that `guest.sh` reads."""

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
# QEMU 7.2 emulates AVX wrongly: Arrow's vectorised group-by then mixes up keys.
_CPU = "max,avx=off,avx2=off,f16c=off,fma=off,erms=off"
_EMULATION = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", _CPU)
# An instruction takes a nanosecond of the guest's time, and waiting takes none of ours. QEMU counts each step of a
# string instruction, so the kernel is kept from clearing and copying bytewise.
_INSTRUCTION_CLOCK = (
    *("-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=off"),
    *("-cpu", f"{_CPU},fsrm=off"),
)
# The console is slow and is what one reads after a crash: warnings and worse. On a busy machine an emulator's
# interrupts come late, and a kernel that waits for some while it boots takes its timer for broken.
_KERNEL_ARGUMENTS = ("loglevel=5", "no_timer_check")
_UNITS = {"": 1, "M": 1, "G": 1024}
_NUMA = re.compile(r"(\d+)([MG]?)(?:,.*)?")
_DISTANCE = re.compile(r"(\d+),(\d+)=(\d+)")
# Mounted by the guest itself: nothing of the host's can be shared there.
_GUEST_MOUNTS = ("/proc", "/sys", "/dev", "/run")


@dataclass(frozen=True)
class Machine:
    """The virtual machine.

    Attributes:
        memory: as QEMU takes it, such as `3G`; None for the sum of the nodes, or 3G.
        cpus: the number of processors; None for 2, or 1 with the instruction clock.
        numa: one entry a node: its size and options, such as `1G,cpus=0`.
        numa_distance: entries of `SRC,DST=VALUE`.
        append: arguments for the kernel.
        qemu_options: further words for QEMU.
        kvm: use the host's KVM instead of emulation.
        icount: have the guest's clock count its instructions, one a nanosecond, so that times repeat.
    """

    memory: str | None = None
    cpus: int | None = None
    numa: Sequence[str] = ()
    numa_distance: Sequence[str] = ()
    append: Sequence[str] = ()
    qemu_options: Sequence[str] = ()
    kvm: bool = False
    icount: bool = False

    def __post_init__(self) -> None:
        """Raise a `KalloctraceError` when the parts do not go together."""
        if self.icount and (self.kvm or self.processors() != 1):
            raise KalloctraceError(
                "this machine cannot have the instruction clock",
                "only the emulator counts instructions, and of one processor only",
                "leave out --kvm and --cpus, or --icount",
                Exit.USAGE,
            )

    def processors(self) -> int:
        """Return the number of processors."""
        if self.cpus is not None:
            return self.cpus
        return 1 if self.icount else 2

    def emulation(self) -> tuple[str, ...]:
        """Return QEMU's words for how it emulates the processors."""
        return _INSTRUCTION_CLOCK if self.icount else _EMULATION

    def total_memory(self) -> str:
        """Return the size that QEMU is told, in which the nodes must add up."""
        if self.memory is not None:
            return self.memory
        if not self.numa:
            return "3G"
        return f"{sum(_node_size(node) for node in self.numa)}M"

    def distances(self) -> list[str]:
        """Return the distances as QEMU takes them."""
        words = []
        for text in self.numa_distance:
            match = _DISTANCE.fullmatch(text)
            if match is None:
                raise KalloctraceError(
                    f"{text!r} is no distance between nodes",
                    "a distance is written SRC,DST=VALUE",
                    "write for example 0,1=20",
                    Exit.USAGE,
                )
            words.append(f"src={match[1]},dst={match[2]},val={match[3]}")
        return words


def _node_size(node: str) -> int:
    """Return a node's size in MiB."""
    match = _NUMA.fullmatch(node)
    if match is None:
        raise KalloctraceError(
            f"{node!r} is no NUMA node",
            "a node is its size in M or G and QEMU's options for it",
            "write for example 1G,cpus=0",
            Exit.USAGE,
        )
    return int(match[1]) * _UNITS[match[2]]


def writable_directories(directories: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the directories to share read-write, outer ones first so that none hides another.

    Raises:
        KalloctraceError: one cannot be shared.
    """
    paths = {Path(directory).resolve() for directory in directories}
    for path in paths:
        why = ""
        if not path.is_dir():
            why = "it is no directory"
        elif path == Path("/"):
            why = "the guest's own root file system lies there"
        elif any(path.is_relative_to(own) for own in _GUEST_MOUNTS):
            why = "the guest has its own files there"
        elif "\n" in str(path):
            why = "its name has a line break in it"
        if why:
            raise KalloctraceError(
                f"{path} cannot be shared with the guest",
                why,
                "work in another directory; the current one and those given with --out are shared read-write",
                Exit.USAGE,
            )
    return sorted(paths)


def virtme_command(image: Path, job_dir: Path, shares: Sequence[Path], machine: Machine) -> list[str]:
    """Return the command that boots a kernel and runs a job in it.

    Args:
        image: the kernel image.
        job_dir: the job's directory.
        shares: the directories to share read-write, the job's first.
        machine: the virtual machine.
    """
    command = ["virtme-run", "--kimg", str(image), "--mods", "auto", "--force-9p", "--show-boot-console"]
    # Writable, with the host's files in it, and not shared. It also has overlayfs loaded for guest.sh.
    command += ["--overlay-rwdir", "/tmp"]  # noqa: S108  (the guest's own)
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
    # Busybox' shell has its tools built in; with the host's, each one read over 9p, the boot takes twice as long.
    return [*command, "--script-sh", shlex.join(["busybox", "sh", str(SCRIPT), str(job_dir)])]


def initramfs_command(image: Path, archive: Path, shared: Path, size: int, machine: Machine) -> list[str]:
    """Return the command that boots a kernel whose files are all in memory.

    Args:
        image: the kernel image.
        archive: its root file system.
        shared: the file that is the memory shared with it.
        size: the bytes of that.
        machine: the virtual machine.
    """
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-m", machine.total_memory()]
    command += ["-smp", str(machine.processors()), "-display", "none", "-no-reboot"]
    command += ["-chardev", "file,id=console,path=/proc/self/fd/2", "-serial", "chardev:console"]
    for number, node in enumerate(machine.numa):
        node_size, _, options = node.partition(",")
        words = ["node", *([options] if options else [])]
        # Without a size the node has no memory.
        if _node_size(node):
            command += ["-object", f"memory-backend-ram,id=node{number},size={node_size}{_default_unit(node_size)}"]
            words.insert(1, f"memdev=node{number}")
        command += ["-numa", ",".join(words)]
    for distance in machine.distances():
        command += ["-numa", f"dist,{distance}"]
    command += ["-object", f"memory-backend-file,id=shared,share=on,size={size},mem-path={_quoted(shared)}"]
    command += ["-device", "ivshmem-plain,memdev=shared"]
    command += ["-accel", "kvm", "-cpu", "host"] if machine.kvm else machine.emulation()
    # A root file system in tmpfs would fill half of what memory the archive leaves, and no more.
    arguments = ("console=ttyS0", "panic=-1", "rootfstype=ramfs", *_KERNEL_ARGUMENTS, *machine.append)
    command += ["-kernel", str(image), "-initrd", str(archive), "-append", " ".join(arguments)]
    return [*command, *machine.qemu_options]


def _default_unit(size: str) -> str:
    return "M" if size.isdecimal() else ""


def _quoted(path: Path) -> str:
    # A comma in a value is doubled for QEMU.
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
        shares: as for `virtme_command`.
        env: the command's whole environment.
        cwd: its working directory.
    """
    tags = "".join(f"{_share_tag(number)} {path}\n" for number, path in enumerate(shares, 1))
    (job_dir / "shares").write_bytes(os.fsencode(tags))
    prefix = Path(sys.prefix).resolve()
    # An interpreter below a writable directory, as a checkout's .venv is, would lose its cache.
    cached = f"{prefix}\n" if any(prefix.is_relative_to(share) for share in shares) else ""
    (job_dir / "cached").write_bytes(os.fsencode(cached))
    (job_dir / "command").write_bytes(command_script(argv, env, cwd))


def command_script(argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> bytes:
    """Return a shell script that runs a command with exactly these words, variables and directory."""
    variables = [f"{name}={value}" for name, value in env.items()]
    # The inner shell keeps a command whose name has a `=` in it from being one more variable.
    words = ["env", "-i", *variables, "sh", "-c", 'exec "$@"', "sh", *argv]
    return os.fsencode(f"cd {shlex.quote(str(cwd))} && exec {shlex.join(words)}\n")


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the command's environment: little of the host's, so that a run is the same everywhere.

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
