# SPDX-License-Identifier: MIT
"""The two ways to boot a kernel with a job: on this machine's files, where it can mount them, or in memory."""

import io
import logging
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.channel import MAGIC, SIZE, Channel, lay_out
from kalloctrace.lab.guest import Machine, initramfs_command, virtme_command, write_job
from kalloctrace.lab.image import has_9p
from kalloctrace.lab.initramfs import archive_path, build_archive, require_memory
from kalloctrace.lab.job import unpack_results, write_job_archive

_LOG = logging.getLogger(__name__)

_SHARED = "shared"
_FILES = "files.tar"


@dataclass(frozen=True)
class Work:
    """What a guest is to do.

    Attributes:
        argv: the command.
        folders: the directories whose files are its own to change.
        env: the command's whole environment.
        cwd: its working directory.
    """

    argv: Sequence[str]
    folders: Sequence[Path]
    env: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True)
class Way:
    """How a guest is started, and its job moved there and its results back.

    Attributes:
        command: what starts it.
        move: moves what has come since the last time, both ways. In the job's directory `release`, `stdout`, `stderr`
            and `exit` come of it, the last when all the rest is there.
    """

    command: list[str]
    move: Callable[[], None]


def command_of(
    image: Path, machine: Machine, job: Path, folders: Sequence[Path], *, in_memory: bool = False
) -> list[str]:
    """Return the command that starts a guest.

    Args:
        image: the kernel image.
        machine: the virtual machine.
        job: the job's directory.
        folders: the directories that are shared read-write.
        in_memory: mount nothing of this machine, even if the kernel could.
    """
    if not in_memory and has_9p(image):
        return virtme_command(image, job, [job, *folders], machine)
    return initramfs_command(image, archive_path(), job / _SHARED, SIZE, machine)


@contextmanager
def opened(image: Path, machine: Machine, job: Path, work: Work, *, in_memory: bool = False) -> Iterator[Way]:
    """Prepare a job in the way that a kernel allows.

    Args:
        image: the kernel image.
        machine: the virtual machine.
        job: the job's directory.
        work: what to do.
        in_memory: as of `command_of`.

    Raises:
        KalloctraceError: the machine is too small, or the job holds too much.
    """
    command = command_of(image, machine, job, work.folders, in_memory=in_memory)
    if not in_memory and has_9p(image):
        write_job(job, work.argv, [job, *work.folders], work.env, work.cwd)
        # The guest writes into the job's directory itself.
        yield Way(command, lambda: None)
        return
    require_memory(build_archive(), machine.total_memory())
    packed = io.BytesIO()
    write_job_archive(packed, work.argv, work.folders, work.env, work.cwd)
    with _shared_memory(job / _SHARED) as channel, ExitStack() as stack:
        yield Way(command, Carrier(job, work.folders, packed.getvalue(), channel, stack).move)


@contextmanager
def _shared_memory(path: Path) -> Iterator[Channel]:
    """Make the file that a guest sees as memory, and remove it in the end."""
    with path.open("w+b") as file:
        file.truncate(SIZE)
        shared = mmap.mmap(file.fileno(), SIZE)
    with closing(shared), memoryview(shared) as memory:
        memory[: len(MAGIC)] = MAGIC
        channel = lay_out(memory)
        try:
            yield channel
        finally:
            channel.release()
            path.unlink()


class Carrier:
    """Carries a job into shared memory, and what comes back from there into the job's directory."""

    def __init__(self, job: Path, folders: Sequence[Path], packed: bytes, channel: Channel, stack: ExitStack) -> None:
        """Take over a job.

        Args:
            job: its directory.
            folders: the directories that the guest may change.
            packed: the archive of the job.
            channel: the guest's streams.
            stack: closes the files when the guest has ended.
        """
        self._job = job
        self._folders = folders
        self._to_send = memoryview(packed)
        self._channel = channel
        self._state = b""
        self._outputs = [
            (channel.stdout, stack.enter_context((job / "stdout").open("wb", buffering=0))),
            (channel.stderr, stack.enter_context((job / "stderr").open("wb", buffering=0))),
            (channel.files, stack.enter_context((job / _FILES).open("wb", buffering=0))),
        ]
        stack.callback((job / _FILES).unlink)

    def move(self) -> None:
        """Move what has come since the last time, both ways."""
        if self._to_send:
            self._to_send = self._to_send[self._channel.job.write(self._to_send) :]
            if not self._to_send:
                self._channel.job.close()
        # Before the rest: of what it says is over, all is there.
        self._state += self._channel.state.read()
        for ring, file in self._outputs:
            file.write(ring.read())
        *lines, self._state = self._state.split(b"\n")
        for line in lines:
            self._take_note(*line.decode("utf-8", "replace").partition(" ")[::2])

    def _take_note(self, word: str, value: str) -> None:
        if word == "release":
            (self._job / "release").write_text(value + "\n", encoding="ascii")
        elif word == "exit":
            unpack_results(self._job / _FILES, self._folders)
            (self._job / "exit").write_text(value + "\n", encoding="ascii")
        elif word == "left-out":
            _LOG.warning(
                "warning: %r is not copied from the guest: it is neither a regular file nor a directory", value
            )
        elif word == "failed":
            raise KalloctraceError(
                "the guest could not do its work", value, f"read its console: {self._job}/console.log"
            )
