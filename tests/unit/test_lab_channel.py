# SPDX-License-Identifier: MIT
"""Streams through shared memory, and both sides of a guest without 9p."""

import itertools
import os
import random
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab import agent, boot
from kalloctrace.lab.channel import MAGIC, SIZE, Channel, Ring, find_shared_memory, map_channel

BUSYBOX = subprocess.run(["sh", "-c", "command -v busybox"], check=False, capture_output=True).returncode == 0


@pytest.fixture
def channel() -> Iterator[Channel]:
    """Return empty streams."""
    channel = map_channel(memoryview(bytearray(SIZE)))
    yield channel
    channel.release()


def drain(ring: Ring) -> bytes:
    """Read a stream until its end."""
    received = b""
    while not ring.ended():
        received += ring.read()
    return received


def test_bytes_arrive_in_order() -> None:
    """Writes of any size wrap around the end of the ring, and never exceed its free space."""
    ring = Ring(memoryview(bytearray(64 + 24)), 0, 64 + 24)
    source = random.Random(1).randbytes(10_000)  # noqa: S311 no secret
    sent, received, sizes = 0, b"", itertools.cycle((1, 63, 64, 65, 7, 200))
    while sent < len(source) or not ring.ended():
        sent += ring.write(source[sent : sent + next(sizes)])
        if sent == len(source):
            ring.close()
        received += ring.read()
    assert received == source


def test_full_ring_accepts_nothing() -> None:
    """Unread bytes are not overwritten."""
    ring = Ring(memoryview(bytearray(8 + 24)), 0, 8 + 24)
    assert ring.write(b"0123456789") == 8
    assert ring.write(b"x") == 0
    assert ring.read() == b"01234567"
    assert ring.write(b"89") == 2


def test_end_is_seen_after_the_last_byte() -> None:
    """A stream has not ended while it has unread bytes."""
    ring = Ring(memoryview(bytearray(32 + 24)), 0, 32 + 24)
    ring.write(b"last")
    ring.close()
    assert not ring.ended()
    ring.read()
    assert ring.ended()


def test_streams_do_not_overlap(channel: Channel) -> None:
    """Each stream is filled with its own bytes, and all are read back."""
    rings = (channel.job, channel.stdout, channel.stderr, channel.state, channel.files)
    counts = [ring.write(bytes([number]) * SIZE) for number, ring in enumerate(rings, 1)]
    assert min(counts) > 1 << 19
    for number, (ring, count) in enumerate(zip(rings, counts, strict=True), 1):
        assert ring.read() == bytes([number]) * count


def write_device(folder: Path, name: str, vendor: str, content: bytes) -> Path:
    """Write a PCI device in sysfs's format."""
    device = folder / name
    device.mkdir(parents=True)
    for fact, value in (("vendor", vendor), ("device", "0x1110"), ("enable", "0")):
        (device / fact).write_text(f"{value}\n", encoding="ascii")
    with (device / "resource2").open("wb") as file:
        file.write(content)
        file.truncate(SIZE)
    return device


def test_memory_is_found_among_other_devices(tmp_path: Path) -> None:
    """Devices of other vendors and other memory of the same kind are skipped; the device is enabled."""
    write_device(tmp_path, "0000:00:01.0", "0x8086", MAGIC)
    write_device(tmp_path, "0000:00:02.0", "0x1af4", b"someone else's")
    ours = write_device(tmp_path, "0000:00:03.0", "0x1af4", MAGIC + b"!")
    memory = find_shared_memory(tmp_path)
    assert bytes(memory[: len(MAGIC) + 1]) == MAGIC + b"!"
    assert (ours / "enable").read_text(encoding="ascii") == "1"


def test_missing_memory_is_an_error(tmp_path: Path) -> None:
    """The error names the directory."""
    with pytest.raises(OSError, match=str(tmp_path)):
        find_shared_memory(tmp_path)


def test_output_is_separate_and_complete(channel: Channel, tmp_path: Path) -> None:
    """Output larger than the ring arrives too, and the exit code is the shell's."""
    script = tmp_path / "command"
    script.write_text("head -c 6000000 /dev/zero; echo err >&2; kill -9 $$", encoding="ascii")
    received = bytearray()
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            received.extend(channel.stdout.read())

    reader = threading.Thread(target=read)
    reader.start()
    code = agent.run(channel, script)
    over.set()
    reader.join()
    received.extend(channel.stdout.read())
    assert (code, len(received), channel.stderr.read()) == (137, 6_000_000, b"err\n")


def test_changed_files_come_back_and_others_do_not(channel: Channel, tmp_path: Path) -> None:
    """Created, rewritten and chmodded files are sent. Unchanged files are not, and links and pipes are reported."""
    guest = tmp_path / "guest"
    (guest / "old").mkdir(parents=True)
    for name in ("same", "rewritten", "mode"):
        (guest / "old" / name).write_bytes(b"before")
    before = agent.file_states([str(guest)])
    (guest / "old/rewritten").write_bytes(b"afterwards")
    (guest / "old/mode").chmod(0o755)
    (guest / "new").mkdir()
    (guest / "new/file").write_bytes(b"x" * 100_000)
    (guest / "new/second-name").hardlink_to(guest / "new/file")
    (guest / "new/link").symlink_to("/etc/passwd")
    os.mkfifo(guest / "new/pipe")
    left_out = agent.send_changed(channel.files, before, agent.file_states([str(guest)]))
    assert left_out == [f"{guest}/new/link", f"{guest}/new/pipe"]
    archive = tmp_path / "files.tar"
    archive.write_bytes(drain(channel.files))
    with tarfile.open(archive) as files:
        members = {f"/{member.name}": member for member in files}
    names = ("new", "new/file", "new/second-name", "old/rewritten", "old/mode")
    assert set(members) == {f"{guest}/{name}" for name in names}
    assert all(member.isfile() or member.isdir() for member in members.values())


@pytest.mark.skipif(not BUSYBOX, reason="there is no busybox")
def test_broken_job_is_an_error(channel: Channel, tmp_path: Path) -> None:
    """A job that is not an archive is an error, not an empty job."""
    channel.job.write(b"no archive at all" * 100)
    channel.job.close()
    with pytest.raises(OSError, match="could not be unpacked"):
        agent.unpack(channel.job, str(tmp_path))


def test_results_precede_the_exit_code(channel: Channel, tmp_path: Path) -> None:
    """The exit code is written after the files."""
    job, folder = tmp_path / "job", tmp_path / "folder"
    job.mkdir()
    folder.mkdir()
    (folder / "result").write_bytes(b"from the guest")
    agent.send_changed(channel.files, {}, agent.file_states([str(folder)]))
    (folder / "result").write_bytes(b"here")
    with ExitStack() as stack:
        transfer = boot.JobTransfer(job, [folder], b"the job", channel, stack)
        channel.stdout.write(b"out")
        channel.state.write(b"release 6.19\nex")
        transfer.poll()
        assert (job / "release").read_text(encoding="ascii") == "6.19\n"
        assert not (job / "exit").exists()
        channel.state.write(b"it 3\n")
        transfer.poll()
    assert (job / "exit").read_text(encoding="ascii") == "3\n"
    assert (job / "stdout").read_bytes() == b"out"
    assert (folder / "result").read_bytes() == b"from the guest"
    assert drain(channel.job) == b"the job"


def test_left_out_file_is_reported(channel: Channel, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link in the guest's results is named, with control characters escaped, and the guest goes on."""
    channel.state.write(b"left-out /out/li\x1bnk\xff\n")
    with ExitStack() as stack:
        boot.JobTransfer(tmp_path, [], b"", channel, stack).poll()
    assert "'/out/li\\x1bnk" in caplog.text
    assert "not copied" in caplog.text


def test_results_without_end_are_refused(channel: Channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that sends files for ever does not fill the disk."""
    monkeypatch.setattr(boot, "MAX_RESULTS", 1000)
    with ExitStack() as stack:
        transfer = boot.JobTransfer(tmp_path, [], b"", channel, stack)
        channel.files.write(bytes(1000))
        transfer.poll()
        channel.files.write(bytes(1))
        with pytest.raises(KalloctraceError, match="are not copied"):
            transfer.poll()
    assert not (tmp_path / "files.tar").exists()


def test_failure_of_the_agent_is_an_error(channel: Channel, tmp_path: Path) -> None:
    """The error has the reason and the console's path."""
    channel.state.write(b"failed no space left\n")
    with ExitStack() as stack, pytest.raises(KalloctraceError) as caught:
        boot.JobTransfer(tmp_path, [], b"", channel, stack).poll()
    assert caught.value.why == "no space left"
    assert "console.log" in caught.value.fix
