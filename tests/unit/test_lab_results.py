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
