# SPDX-License-Identifier: MIT
"""Runs in a guest that shares no files with this machine: takes its job from shared memory and hands the results back.

Started by `init.sh` as root. It uses the standard library and `channel` only: the rest of this package, as any other
file of the job's, comes with the job.
"""

import io
import os
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kalloctrace.lab.channel import Channel, Ring, find_in_guest, lay_out

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

COMMAND = Path("/kalloctrace-lab/job/command")
"""The command, as a script."""
FOLDERS = Path("/kalloctrace-lab/job/folders")
"""The directories whose files go back, each ended by a zero byte."""

_POLL = 0.002
_LEFT_RUNNING = 2.0
_CHUNK = 1 << 16

State = dict[str, tuple[int, int, int]]
"""Time (ns), size (bytes) and mode of files by path."""


def main() -> int:
    """Do the job; return the exit code for `init.sh`."""
    channel = lay_out(find_in_guest())
    try:
        _tell(channel, f"release {os.uname().release}")
        code = _work(channel)
    except (OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
        _tell(channel, f"failed {error}".replace("\n", " "))
        return 1
    _tell(channel, f"exit {code}")
    return 0


def _work(channel: Channel) -> int:
    unpack(channel.job)
    folders = [os.fsdecode(name) for name in FOLDERS.read_bytes().split(b"\0") if name]
    before = state_of(folders)
    code = run(channel)
    for path in send_changed(channel.files, before, state_of(folders)):
        _tell(channel, f"left-out {path}".replace("\n", " "))
    return code


def _tell(channel: Channel, line: str) -> None:
    write_all(channel.state, f"{line}\n".encode(errors="surrogateescape"))


def write_all(ring: Ring, chunk: bytes) -> None:
    """Write all of it, as fast as the other end reads."""
    while chunk:
        count = ring.write(chunk)
        chunk = chunk[count:]
        if not count:
            time.sleep(_POLL)


def unpack(ring: Ring, target: str = "/") -> None:
    """Unpack an archive as it comes.

    Args:
        ring: where it comes from.
        target: the directory to unpack it in.

    Raises:
        OSError: it could not be unpacked.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(["busybox", "cpio", "-idmu", "--quiet"], stdin=pipe, stderr=pipe, cwd=target) as process:
        assert process.stdin is not None  # noqa: S101 it was asked for
        assert process.stderr is not None  # noqa: S101 likewise
        # It writes no more than one line, and ends with that.
        with suppress(BrokenPipeError):
            while not ring.ended():
                chunk = ring.read()
                process.stdin.write(chunk)
                if not chunk:
                    time.sleep(_POLL)
            process.stdin.close()
        message = process.stderr.read().decode("utf-8", "replace").strip()
    if process.returncode:
        raise OSError(f"the job could not be unpacked: {message}")


def run(channel: Channel, command: Path = COMMAND) -> int:
    """Run the command and pass on its output; return its exit code as a shell has it."""
    from_stdout, stdout = os.pipe()
    from_stderr, stderr = os.pipe()
    process = subprocess.Popen(["/bin/sh", str(command)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    os.close(stdout)
    os.close(stderr)
    streams = ((from_stdout, channel.stdout), (from_stderr, channel.stderr))
    # What the command leaves running keeps the pipes open: their ends are not waited for.
    threads = [threading.Thread(target=_copy, args=stream, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    code = process.wait()
    deadline = time.monotonic() + _LEFT_RUNNING
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return code if code >= 0 else 128 - code


def _copy(source: int, ring: Ring) -> None:
    while chunk := os.read(source, _CHUNK):
        write_all(ring, chunk)
    os.close(source)


def state_of(folders: Iterable[str]) -> State:
    """Return time, size and mode of all files and links below directories, and of the directories in them."""
    state = {}
    for folder in folders:
        for entry in _entries(folder):
            with suppress(FileNotFoundError):
                state[entry.path] = _facts(entry)
    return state


def _facts(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    facts = entry.stat(follow_symlinks=False)
    # A directory's own time changes with what is in it.
    if entry.is_dir(follow_symlinks=False):
        return 0, 0, facts.st_mode
    return facts.st_mtime_ns, facts.st_size, facts.st_mode


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:  # what the command left running may remove files meanwhile
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)


class _Writer(io.RawIOBase):
    """A ring as a file to write to."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring

    def writable(self) -> bool:
        return True

    def write(self, chunk: "ReadableBuffer") -> int:
        data = bytes(chunk)
        write_all(self._ring, data)
        return len(data)


def send_changed(ring: Ring, before: State, after: State) -> list[str]:
    """Send created and changed files and directories as a tar archive, and end the stream.

    The host accepts regular files and directories only, so nothing else is sent.

    Args:
        ring: where the archive goes.
        before: the state before the command ran.
        after: the state now.

    Returns:
        The paths of created and changed links, devices, pipes and sockets.
    """
    left_out = []
    with (
        io.BufferedWriter(_Writer(ring), _CHUNK) as stream,
        # Without `dereference` the second name of a file would be sent as a hard link.
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, dereference=True) as archive,
    ):
        for path in sorted(after):
            mode = after[path][2]
            if after[path] == before.get(path):
                continue
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                left_out.append(path)
                continue
            with suppress(FileNotFoundError):
                archive.add(path, recursive=False, filter=_regular)
    ring.close()
    return left_out


def _regular(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out a path that was replaced since its state was read."""
    return member if member.isfile() or member.isdir() else None


if __name__ == "__main__":
    sys.exit(main())
