# SPDX-License-Identifier: MIT
"""Runs in a guest that mounts no files of the host: reads its job from shared memory and writes the results there.

`init.sh` starts it as root. It imports the standard library and `channel` only: the rest of this package arrives with
the job.
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

from kalloctrace.lab.channel import Channel, Ring, find_shared_memory, map_channel

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

COMMAND = Path("/kalloctrace-lab/job/command")
"""The command, as a script."""
FOLDERS = Path("/kalloctrace-lab/job/folders")
"""The directories whose files are sent back, each terminated by a zero byte."""

_POLL = 0.002
_OUTPUT_GRACE = 2.0
_CHUNK = 1 << 16

State = dict[str, tuple[int, int, int]]
"""Modification time (ns), size (bytes) and mode by path."""


def main() -> int:
    """Run the job; return the exit code for `init.sh`."""
    channel = map_channel(find_shared_memory())
    try:
        _send_state(channel, f"release {os.uname().release}")
        code = _work(channel)
    except (OSError, subprocess.CalledProcessError, tarfile.TarError) as error:
        _send_state(channel, f"failed {error}".replace("\n", " "))
        return 1
    _send_state(channel, f"exit {code}")
    return 0


def _work(channel: Channel) -> int:
    unpack(channel.job)
    folders = [os.fsdecode(name) for name in FOLDERS.read_bytes().split(b"\0") if name]
    before = file_states(folders)
    code = run(channel)
    for path in send_changed(channel.files, before, file_states(folders)):
        _send_state(channel, f"left-out {path}".replace("\n", " "))
    return code


def _send_state(channel: Channel, line: str) -> None:
    write_all(channel.state, f"{line}\n".encode(errors="surrogateescape"))


def write_all(ring: Ring, chunk: bytes) -> None:
    """Write a chunk completely; wait while the ring is full."""
    while chunk:
        count = ring.write(chunk)
        chunk = chunk[count:]
        if not count:
            time.sleep(_POLL)


def unpack(ring: Ring, target: str = "/") -> None:
    """Unpack a cpio archive while it arrives.

    Args:
        ring: the stream to read.
        target: the directory to unpack into.

    Raises:
        OSError: the archive cannot be unpacked.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(["busybox", "cpio", "-idmu", "--quiet"], stdin=pipe, stderr=pipe, cwd=target) as process:
        assert process.stdin is not None  # noqa: S101 (it is a pipe)
        assert process.stderr is not None  # noqa: S101 (likewise)
        # On an error busybox prints one line and exits.
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
    """Run the command and forward its output; return its exit code as a shell does (128 + signal)."""
    from_stdout, stdout = os.pipe()
    from_stderr, stderr = os.pipe()
    process = subprocess.Popen(["/bin/sh", str(command)], stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
    os.close(stdout)
    os.close(stderr)
    streams = ((from_stdout, channel.stdout), (from_stderr, channel.stderr))
    # Processes that the command leaves behind keep the pipes open, so do not wait for end of file without a limit.
    threads = [threading.Thread(target=_copy, args=stream, daemon=True) for stream in streams]
    for thread in threads:
        thread.start()
    code = process.wait()
    deadline = time.monotonic() + _OUTPUT_GRACE
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return code if code >= 0 else 128 - code


def _copy(source: int, ring: Ring) -> None:
    while chunk := os.read(source, _CHUNK):
        write_all(ring, chunk)
    os.close(source)


def file_states(folders: Iterable[str]) -> State:
    """Return the state of all files, links and directories below the given directories."""
    state = {}
    for folder in folders:
        for entry in _entries(folder):
            with suppress(FileNotFoundError):
                state[entry.path] = _status(entry)
    return state


def _status(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    status = entry.stat(follow_symlinks=False)
    # A directory's time and size change with its entries.
    if entry.is_dir(follow_symlinks=False):
        return 0, 0, status.st_mode
    return status.st_mtime_ns, status.st_size, status.st_mode


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:  # removed meanwhile by a process of the command
        return
    for entry in entries:
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path)


class _Writer(io.RawIOBase):
    """A ring as a writable file."""

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
