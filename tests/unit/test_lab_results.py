# SPDX-License-Identifier: MIT
"""Results that a guest sends back: regular files in the right directories, or nothing."""

import io
import resource
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab import guest_job
from kalloctrace.lab.guest_job import unpack_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the directory that the guest may write to."""
    path = tmp_path / "folder"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Return a file that the guest must not change."""
    path = tmp_path / "outside"
    path.write_text("host", encoding="ascii")
    path.chmod(0o640)
    return path


def member(path: Path, kind: bytes = tarfile.REGTYPE, *, linkname: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """Return the header of a member."""
    info = tarfile.TarInfo(str(path)[1:])
    info.type, info.linkname, info.mode, info.mtime = kind, linkname, mode, 1_000_000_000
    return info


def packed(*members: tarfile.TarInfo, content: bytes = b"guest") -> bytes:
    """Return an archive; regular files hold `content`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info in members:
            info.size = len(content) if info.type == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def unpack(folder: Path, archive: bytes) -> None:
    """Unpack an archive into a directory, as the host does."""
    path = folder.parent / "files.tar"
    path.write_bytes(archive)
    unpack_results(path, [folder])


def refuse(folder: Path, archive: bytes, why: str) -> KalloctraceError:
    """Unpack an archive that must be refused; check that nothing is left in the directory."""
    before = sorted(folder.iterdir())
    with pytest.raises(KalloctraceError) as caught:
        unpack(folder, archive)
    assert why in caught.value.why
    assert sorted(folder.iterdir()) == before
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


def test_files_and_directories_are_taken(folder: Path) -> None:
    """New files with their mode and time, files in new and in old directories, and an empty directory."""
    (folder / "old").mkdir(mode=0o700)
    (folder / "old/file").write_text("host", encoding="ascii")
    unpack(
        folder,
        packed(
            member(folder / "old", tarfile.DIRTYPE, mode=0o777),
            member(folder / "old/file"),
            member(folder / "new", tarfile.DIRTYPE),
            member(folder / "new/program", mode=0o755),
            member(folder / "empty", tarfile.DIRTYPE),
        ),
    )
    assert (folder / "old/file").read_bytes() == b"guest"
    assert (folder / "new/program").stat().st_mode & 0o777 == 0o755
    assert (folder / "new/program").stat().st_mtime == 1_000_000_000
    assert (folder / "old").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["empty", "new", "old"]


def test_empty_archive_changes_nothing(folder: Path) -> None:
    """A command that changes no file sends an archive without members."""
    unpack(folder, packed())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["elsewhere/file", "folder/../elsewhere/file", "folder/link/file"])
def test_files_elsewhere_are_refused(name: str, folder: Path) -> None:
    """Nothing is written outside the directory, directly or through a link in it."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    (folder / "link").symlink_to(elsewhere)
    error = refuse(folder, packed(member(folder.parent / name)), "in none of the directories")
    assert "--out" in error.fix
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_file_after_a_link_of_its_name_is_refused(kind: bytes, folder: Path, outside: Path) -> None:
    """The second member would write through the link into a file outside the directory."""
    linkname = str(outside) if kind == tarfile.SYMTYPE else str(outside)[1:]
    refuse(
        folder, packed(member(folder / "x", kind, linkname=linkname), member(folder / "x")), "neither a regular file"
    )
    assert outside.read_text(encoding="ascii") == "host"
    assert outside.stat().st_mode & 0o777 == 0o640
    assert outside.stat().st_nlink == 1


def test_file_below_a_link_is_refused(folder: Path) -> None:
    """A link to a directory outside, then a file below it."""
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    link = member(folder / "link", tarfile.SYMTYPE, linkname=str(elsewhere))
    refuse(folder, packed(link, member(folder / "link/file")), "neither a regular file")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z"])
def test_other_kinds_of_files_are_refused(kind: bytes, folder: Path) -> None:
    """Devices, pipes, sparse files and kinds that tar does not define."""
    refuse(folder, packed(member(folder / "good"), member(folder / "x", kind)), "neither a regular file")


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o6777])
def test_setuid_and_foreign_write_permission_are_dropped(mode: int, folder: Path) -> None:
    """A result is never setuid, setgid, sticky, or writable by others."""
    unpack(folder, packed(member(folder / "x", mode=mode)))
    assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o755


def test_link_here_is_replaced_by_a_file(folder: Path, outside: Path) -> None:
    """The guest replaced a link that exists here by a file: the link goes, and its target stays."""
    (folder / "x").symlink_to(outside)
    unpack(folder, packed(member(folder / "x")))
    assert not (folder / "x").is_symlink()
    assert (folder / "x").read_bytes() == b"guest"
    assert outside.read_text(encoding="ascii") == "host"


@pytest.mark.parametrize("here", ["link", "file"])
def test_directory_in_place_of_something_else_is_refused(here: str, folder: Path) -> None:
    """A directory of the guest does not replace a link or a file of this machine."""
    (folder.parent / "elsewhere").mkdir()
    if here == "link":
        (folder / "x").symlink_to(folder.parent / "elsewhere")
    else:
        (folder / "x").touch()
    refuse(folder, packed(member(folder / "x", tarfile.DIRTYPE)), "something else here")


def test_name_that_occurs_twice_is_refused(folder: Path) -> None:
    """A guest sends each file once."""
    refuse(folder, packed(member(folder / "x"), member(folder / "x")), "File exists")


def test_one_refused_member_refuses_the_rest(folder: Path, outside: Path) -> None:
    """Files that precede a refused member do not change."""
    (folder / "x").write_text("host", encoding="ascii")
    refuse(folder, packed(member(folder / "x"), member(outside)), "in none of the directories")
    assert (folder / "x").read_text(encoding="ascii") == "host"


def damaged_archives(folder: Path) -> Sequence[bytes]:
    """Return an archive of two files, damaged at each place where a reader may stop."""
    whole = packed(member(folder / "x"), member(folder / "y"), content=bytes(range(256)) * 4)
    second = 512 + 1024
    return (
        b"",
        b"no archive" * 100,
        whole[:100],
        whole[:700],
        whole[:second],
        whole[: second + 100],
        whole[: second + 512 + 100],
        whole[: second + 512 + 1024],
        whole[: second + 512 + 1024 + 512],
        whole[:second] + b"\xff" * 512 + whole[second + 512 :],
        whole[: second + 124] + b"z" * 12 + whole[second + 136 :],
    )


@pytest.mark.parametrize("number", range(11))
def test_damaged_archive_is_refused(number: int, folder: Path) -> None:
    """An archive that is cut or overwritten anywhere gives three lines, and no file of it is taken."""
    archives = damaged_archives(folder)
    assert len(archives) == 11
    refuse(folder, archives[number], "damaged")


def header(name: str, kind: bytes, size: int) -> bytes:
    """Return a header that announces a size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_sparse_file_is_refused(folder: Path) -> None:
    """A file of 4 EiB in a few bytes, as both of tar's forms have it, fills no disk."""
    with io.BytesIO() as stream:
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
            info = member(folder / "x")
            info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 62)}
            info.size = 512
            archive.addfile(info, io.BytesIO(b"1\n0\n1\n".ljust(512, b"\0")))
        refuse(folder, stream.getvalue(), "neither a regular file")
    refuse(folder, header("x", tarfile.GNUTYPE_SPARSE, 512) + bytes(1536), "neither a regular file")


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (tarfile.GNUTYPE_LONGNAME, 1 << 40),
        (tarfile.GNUTYPE_LONGNAME, 9000),
        (tarfile.GNUTYPE_LONGNAME, -512),
        (tarfile.REGTYPE, 1 << 62),
        (tarfile.REGTYPE, -512),
        (tarfile.DIRTYPE, 512),
    ],
)
def test_size_that_cannot_be_is_refused(kind: bytes, size: int, folder: Path) -> None:
    """Neither memory is taken for it, nor is a header read again."""
    refuse(folder, header("x", kind, size) + bytes(20 * 512), "damaged")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 10_000, "x/" * 3000 + "y", "..", "", "/", "a\n\x1b[2Jb" * 40])
def test_odd_names_are_refused_or_taken_literally(name: str, folder: Path) -> None:
    """Names that are too long, that lead outside, or that are the directory itself."""
    info = member(folder)
    info.name = f"{folder}/{name}"[1:]
    refuse(folder, packed(info), "")


def test_absolute_name_is_one_below_the_root(folder: Path, outside: Path) -> None:
    """It is refused outside the directories, like any other."""
    info = member(outside)
    info.name = str(outside)
    refuse(folder, packed(info), "in none of the directories")


def test_file_in_place_of_a_directory_is_refused(folder: Path) -> None:
    """Then no file is taken, although others precede it."""
    (folder / "z").mkdir()
    refuse(folder, packed(member(folder / "a"), member(folder / "z")), "a directory here")


def test_too_many_members_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of a million would take minutes, and gigabytes of memory."""
    monkeypatch.setattr(guest_job, "_MAX_MEMBERS", 1000)
    refuse(folder, header(f"{folder}/x"[1:], tarfile.DIRTYPE, 0) * 1001 + bytes(10240), "more than 1,000")


def test_full_disk_changes_nothing(folder: Path) -> None:
    """The file that does not fit is named, and neither it nor one before it is taken."""
    path = folder.parent / "files.tar"
    path.write_bytes(packed(member(folder / "x"), content=bytes(5000)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(KalloctraceError, match=f"cannot write {folder / 'x'}") as caught:
            unpack_results(path, [folder])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "--out" in caught.value.fix
    assert list(folder.iterdir()) == []
