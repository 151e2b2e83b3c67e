# SPDX-License-Identifier: MIT
"""Two ways to boot a kernel with a job: on this machine's files, mounted over 9p, or on copies in memory."""

import io
import logging
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.channel import MAGIC, SIZE, Channel, map_channel
from kalloctrace.lab.guest import Machine, initramfs_command, virtme_command, write_job
from kalloctrace.lab.guest_job import unpack_results, write_job_archive
from kalloctrace.lab.image import has_9p
from kalloctrace.lab.initramfs import archive_path, build_archive, require_memory

_LOG = logging.getLogger(__name__)

_SHARED = "shared"
_FILES = "files.tar"
MAX_RESULTS = 1 << 30
"""The maximum size in bytes of the files that a guest sends back; they come from its memory."""


@dataclass(frozen=True)
class GuestJob:
    """What a guest does.

    Attributes:
        argv: the command.
        folders: the directories that it may write to.
        env: the command's whole environment.
        cwd: its working directory.
    """

    argv: Sequence[str]
    folders: Sequence[Path]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True)
class BootPlan:
    """How a guest is started and how data reaches it and comes back.

    Attributes:
        command: the command that starts it.
        poll: transfers new data in both directions. It writes `release`, `stdout`, `stderr` and `exit` into the job's
            directory, `exit` after everything else.
    """

    command: list[str]
    poll: Callable[[], None]


def boot_command(
    image: Path, machine: Machine, job_dir: Path, folders: Sequence[Path], *, in_memory: bool = False
) -> list[str]:
    """Return the command that starts a guest.

    Args:
        image: the kernel image.
        machine: the virtual machine.
        job_dir: the job's directory.
        folders: the directories that are shared read-write.
        in_memory: mount no files of this machine, even if the kernel could.
    """
    if not in_memory and has_9p(image):
        return virtme_command(image, job_dir, [job_dir, *folders], machine)
    return initramfs_command(image, archive_path(), job_dir / _SHARED, SIZE, machine)


@contextmanager
def prepared(
    image: Path, machine: Machine, job_dir: Path, job: GuestJob, *, in_memory: bool = False
) -> Iterator[BootPlan]:
    """Prepare a job for the way of booting that the kernel supports.

    Args:
        image: the kernel image.
        machine: the virtual machine.
        job_dir: the job's directory.
        job: what the guest does.
        in_memory: see `boot_command`.

    Raises:
        KalloctraceError: the machine has too little memory, or the job is too large.
    """
    command = boot_command(image, machine, job_dir, job.folders, in_memory=in_memory)
    if not in_memory and has_9p(image):
        write_job(job_dir, job.argv, [job_dir, *job.folders], job.env, job.cwd)
        # The guest writes into the job's directory itself.
        yield BootPlan(command, lambda: None)
        return
    require_memory(build_archive(), machine.total_memory())
    packed = io.BytesIO()
    write_job_archive(packed, job.argv, job.folders, job.env, job.cwd)
    with _shared_memory(job_dir / _SHARED) as channel, ExitStack() as stack:
        yield BootPlan(command, JobTransfer(job_dir, job.folders, packed.getvalue(), channel, stack).poll)


@contextmanager
def _shared_memory(path: Path) -> Iterator[Channel]:
    """Create the file that a guest sees as memory, and remove it at the end."""
    with path.open("w+b") as file:
        file.truncate(SIZE)
        shared = mmap.mmap(file.fileno(), SIZE)
    with closing(shared), memoryview(shared) as memory:
        memory[: len(MAGIC)] = MAGIC
        channel = map_channel(memory)
        try:
            yield channel
        finally:
            channel.release()
            path.unlink()


class JobTransfer:
    """Copies a job into shared memory, and the guest's output from there into the job's directory."""

    def __init__(
        self, job_dir: Path, folders: Sequence[Path], packed: bytes, channel: Channel, stack: ExitStack
    ) -> None:
        """Open the output files.

        Args:
            job_dir: its directory.
            folders: the directories that the guest may write to.
            packed: the job's archive.
            channel: the guest's streams.
            stack: closes the files when the guest has ended.
        """
        self._job_dir = job_dir
        self._folders = folders
        self._to_send = memoryview(packed)
        self._channel = channel
        self._state = b""
        self._outputs = [
            (channel.stdout, stack.enter_context((job_dir / "stdout").open("wb", buffering=0))),
            (channel.stderr, stack.enter_context((job_dir / "stderr").open("wb", buffering=0))),
            (channel.files, stack.enter_context((job_dir / _FILES).open("wb", buffering=0))),
        ]
        stack.callback((job_dir / _FILES).unlink)

    def poll(self) -> None:
        """Transfer new data in both directions."""
        if self._to_send:
            self._to_send = self._to_send[self._channel.job.write(self._to_send) :]
            if not self._to_send:
                self._channel.job.close()
        # Read the state first: the guest writes it after the data it announces.
        self._state += self._channel.state.read()
        for ring, file in self._outputs:
            file.write(ring.read())
        if self._outputs[-1][1].tell() > MAX_RESULTS:
            raise KalloctraceError(
                "the guest's results are not copied",
                f"they are more than {MAX_RESULTS >> 20:,} MiB",
                "let the command in the guest write less, or boot a kernel that can mount this machine's files",
            )
        *lines, self._state = self._state.split(b"\n")
        for line in lines:
            self._handle_state(*line.decode("utf-8", "replace").partition(" ")[::2])

    def _handle_state(self, word: str, value: str) -> None:
        if word == "release":
            (self._job_dir / "release").write_text(value + "\n", encoding="utf-8")
        elif word == "exit":
            unpack_results(self._job_dir / _FILES, self._folders)
            (self._job_dir / "exit").write_text(value + "\n", encoding="utf-8")
        elif word == "left-out":
            _LOG.warning(
                "warning: %r is not copied from the guest: it is neither a regular file nor a directory", value
            )
        elif word == "failed":
            raise KalloctraceError(
                "the guest could not run the command", value, f"read its console: {self._job_dir}/console.log"
            )
