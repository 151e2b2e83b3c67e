# SPDX-License-Identifier: MIT
"""A trace that is being recorded: exclusive, private, and readable up to its last whole batch, whatever ends it."""

import errno
import io
import os
import resource
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.output.files import complete_output
from kalloctrace.output.growing import GrowingOutput
from kalloctrace.output.opened import OutputFile
from kalloctrace.output.temporary import discard_unfinished, temporary_folder
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.schema import ALLOCATION
from kalloctrace.trace.writer import TraceWriter
from tests.traces import source

OLD = b"old"


@contextmanager
def recording(path: Path, *, overwrite: bool = False) -> Iterator[TraceWriter]:
    """Record one allocation; its first count is not written yet."""
    snapshot, _, row = source()
    with TraceWriter(path, snapshot, {"mode": "aggregate"}, overwrite=overwrite) as writer:
        writer.add(pa.array([{field.name: row[field.name] for field in ALLOCATION}], ALLOCATION))
        yield writer


def count(writer: TraceWriter, times: int = 1) -> None:
    """Write batches of one count."""
    for _ in range(times):
        writer.write_aggregate(np.ones(1, np.uint64), np.zeros(1, np.int32))


def counts(path: Path) -> int:
    """Return the number of calls in a trace."""
    with TraceReader(path) as trace:
        return sum(number for _, number in trace.counted())


def names(folder: Path) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in folder.iterdir())


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """Let every file of this process end at a size, as a full disk does, in the middle of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_recording_can_be_followed_from_its_first_batch(tmp_path: Path) -> None:
    """Each batch is in the file, under its name, as soon as it is written; only its owner may read it."""
    path = tmp_path / "t.arrows"
    with recording(path) as writer:
        assert names(tmp_path) == ["t.arrows"]
        for number in (1, 2, 3):
            count(writer)
            assert counts(path) == number
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_old_trace_goes_with_the_first_batch(tmp_path: Path) -> None:
    """Until then a reader finds the old file, and after it the new one, which is as private as any."""
    path = tmp_path / "t.arrows"
    path.write_bytes(OLD)
    path.chmod(0o666)
    with recording(path, overwrite=True) as writer:
        assert path.read_bytes() == OLD
        count(writer)
        assert counts(path) == 1
        assert names(tmp_path) == ["t.arrows"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        count(writer)
        assert counts(path) == 2


@pytest.mark.parametrize("overwrite", [False, True])
def test_recording_without_a_batch_leaves_nothing(tmp_path: Path, overwrite: bool) -> None:
    """One that fails before keeps the old file, and adds none."""
    path = tmp_path / "t.arrows"
    if overwrite:
        path.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt), recording(path, overwrite=overwrite):
        raise KeyboardInterrupt
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([OLD] if overwrite else [])


@pytest.mark.parametrize("after", [1, 2, 5])
@pytest.mark.parametrize("part", [1, 17, 120])
def test_full_disk_ends_a_recording(tmp_path: Path, after: int, part: int) -> None:
    """The batch that does not fit is an error, and all before it can be read."""
    whole, path = tmp_path / "whole.arrows", tmp_path / "t.arrows"
    with recording(whole) as writer:
        count(writer, after)
        size = whole.stat().st_size

    def record() -> None:
        with recording(path) as writer:
            count(writer, after)
            with pytest.raises(KalloctraceError, match="cannot write"):
                count(writer)
            assert path.stat().st_size == size
            count(writer)

    with full_at(size + part), pytest.raises(KalloctraceError) as caught:
        record()
    assert caught.value.what == f"cannot write {path}"
    assert caught.value.why == f"{os.strerror(errno.EFBIG)}; what was written before can be read"
    assert caught.value.fix
    assert path.stat().st_size == size
    assert counts(path) == after
    with TraceReader(path) as trace:
        ending = trace.ending()
    assert (ending.truncated, ending.damage) == (True, "")


def test_full_disk_before_the_first_batch_keeps_the_old_trace(tmp_path: Path) -> None:
    """Nothing of the new one remains."""
    path = tmp_path / "t.arrows"
    path.write_bytes(OLD)
    with full_at(100), pytest.raises(KalloctraceError, match="cannot write"), recording(path, overwrite=True) as writer:
        count(writer)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [OLD]


def test_interruption_inside_a_batch_leaves_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in the middle of a write, such as Ctrl-C, ends the recording there."""
    path = tmp_path / "t.arrows"

    def interrupted(file: OutputFile, data: bytes) -> int:
        io.FileIO.write(file, bytes(data)[:3])
        raise KeyboardInterrupt

    def record() -> None:
        with recording(path) as writer:
            count(writer, 2)
            monkeypatch.setattr(OutputFile, "write", interrupted)
            count(writer)

    with pytest.raises(KeyboardInterrupt):
        record()
    with TraceReader(path) as trace:
        assert trace.ending().damage == ""
    assert counts(path) == 2


def test_name_that_is_taken_while_recording_starts(tmp_path: Path) -> None:
    """A link that leads nowhere is not followed either."""
    path = tmp_path / "t.arrows"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KalloctraceError, match="will not overwrite"), recording(path):
        pass
    assert names(tmp_path) == ["t.arrows"]


def test_recording_into_a_pipe_that_nobody_reads(tmp_path: Path) -> None:
    """Is a failed recording, not an uninteresting end as that of `| head`."""
    read_end, write_end = os.pipe()

    def record() -> None:
        with recording(Path(f"/dev/fd/{write_end}")) as writer:
            os.close(read_end)
            count(writer)

    with pytest.raises(KalloctraceError, match=f"cannot write /dev/fd/{write_end}"):
        record()
    os.close(write_end)
    assert names(tmp_path) == []


def test_short_writes_are_continued() -> None:
    """A pipe takes what fits; a non-blocking one, as another process may have made it, then nothing at all."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    data = bytes(range(256)) * 4096
    got: list[bytes] = []

    def read() -> None:
        with open(read_end, "rb") as stream:  # noqa: PTH123 (a descriptor)
            got.append(stream.read())

    reader = threading.Thread(target=read)
    reader.start()
    with OutputFile(write_end, "pipe") as file:
        assert file.write(data) == len(data)
    reader.join()
    assert got == [data]


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is taken exclusively all the same."""

    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "t"
    with complete_output(path, overwrite=False) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    path.unlink()
    with pytest.raises(KalloctraceError, match="will not overwrite"), complete_output(path, overwrite=False) as file:
        path.write_bytes(OLD)
    assert (names(tmp_path), path.read_bytes()) == (["t"], OLD)


def test_what_an_exception_misses_goes_at_the_end(tmp_path: Path) -> None:
    """A signal may come while a temporary file is entered or left."""
    file = complete_output(tmp_path / "t", overwrite=False)
    folder = temporary_folder(tmp_path)
    file.__enter__().write(OLD)
    (folder.__enter__() / "file").write_bytes(OLD)
    growing = GrowingOutput(tmp_path / "growing", overwrite=False)
    assert len(names(tmp_path)) == 3
    discard_unfinished()
    assert names(tmp_path) == []
    growing.close()


def test_recording_that_has_begun_stays_at_the_end(tmp_path: Path) -> None:
    """What is whole in it can be read."""
    growing = GrowingOutput(tmp_path / "growing", overwrite=False)
    growing.write_whole(lambda: growing.file.write(OLD))
    discard_unfinished()
    growing.close()
    assert (tmp_path / "growing").read_bytes() == OLD


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
@pytest.mark.parametrize(("owner", "expected"), [(1234, 1234), (1235, 0)])
def test_trace_belongs_to_the_user_of_sudo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, expected: int
) -> None:
    """In a folder of theirs; they could not read it otherwise. Elsewhere it might be misused."""
    os.chown(tmp_path, owner, owner)
    monkeypatch.setenv("SUDO_UID", "1234")
    with recording(tmp_path / "t.arrows") as writer:
        count(writer)
    with complete_output(tmp_path / "import.arrows", overwrite=False, private=True):
        pass
    with complete_output(tmp_path / "page.html", overwrite=False):
        pass
    found = {path.name: (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in tmp_path.iterdir()}
    assert found == {
        "t.arrows": (expected, 0o600),
        "import.arrows": (expected, 0o600),
        "page.html": (0, 0o666 & ~_umask()),
    }


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.skipif(os.geteuid() != 0, reason="changes owners")
def test_replaced_file_keeps_its_owner(tmp_path: Path) -> None:
    """With its mode; never setuid."""
    path = tmp_path / "t"
    path.write_bytes(OLD)
    os.chown(path, 1234, 1235)
    path.chmod(0o6751)
    with complete_output(path, overwrite=True) as file:
        file.write(b"new")
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1235, 0o751)


def test_growing_output_that_others_replaced_is_not_removed(tmp_path: Path) -> None:
    """A recording that fails removes its own file only."""
    path = tmp_path / "t"
    growing = GrowingOutput(path, overwrite=False)
    path.unlink()
    path.write_bytes(OLD)
    growing.close()
    assert path.read_bytes() == OLD
