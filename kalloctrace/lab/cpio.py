# SPDX-License-Identifier: MIT
"""Writes the archive that the kernel unpacks as its initial root file system.

The format is documented in the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

import os
import stat
from pathlib import Path, PurePath, PurePosixPath
from typing import IO

_MAGIC = "070701"
_TRAILER = "TRAILER!!!"
_CHUNK = 1 << 20


class CpioWriter:
    """An archive in cpio's "newc" format; root owns every entry.

    Add a file's directories before the file: the kernel does not create them.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a stream, which must be at its beginning."""
        self._stream = stream
        self._number = 0

    def add_directory(self, name: str, mode: int) -> None:
        """Add a directory. Names in this class have no leading slash."""
        self._add(name, stat.S_IFDIR | mode, links=2)

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        data = os.fsencode(target)
        self._add(name, stat.S_IFLNK | 0o777, size=len(data))
        self._write(data)

    def add_device(self, name: str, mode: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | mode, device=(major, minor))

    def add_data(self, name: str, data: bytes, mode: int) -> None:
        """Add a file with the given content."""
        self._add(name, stat.S_IFREG | mode, size=len(data))
        self._write(data)

    def add_file(self, name: str, source: Path) -> None:
        """Add a copy of a file with its modification time, which Python compares with that in compiled files."""
        with source.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IFREG | stat.S_IMODE(status.st_mode)
            self._add(name, mode, size=status.st_size, time=int(status.st_mtime))
            # The file may grow or shrink meanwhile: write exactly the announced number of bytes.
            left = status.st_size
            while left and (chunk := file.read(min(left, _CHUNK))):
                self._stream.write(chunk)
                left -= len(chunk)
        self._stream.write(bytes(left))
        self._pad(status.st_size)

    def close(self) -> None:
        """End the archive; the stream stays open."""
        self._add(_TRAILER, 0)

    def _add(
        self,
        name: str,
        mode: int,
        *,
        links: int = 1,
        size: int = 0,
        time: int = 0,
        device: tuple[int, int] = (0, 0),
    ) -> None:
        encoded = os.fsencode(name) + b"\0"
        self._number += 1
        # Inode, mode, uid, gid, links, mtime, size, device, rdev, length of the name, checksum
        fields = (self._number, mode, 0, 0, links, time, size, 0, 0, *device, len(encoded), 0)
        header = _MAGIC + "".join(f"{field:08x}" for field in fields)
        self._write(header.encode("ascii") + encoded)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._pad(len(data))

    def _pad(self, length: int) -> None:
        # Header and data are aligned to four bytes.
        self._stream.write(bytes(-length % 4))


class Tree:
    """An archive of host files under their own paths; symbolic links in these paths stay links.

    The first entry of a name wins; later ones are ignored.
    """

    def __init__(self, writer: CpioWriter) -> None:
        """Write to an archive."""
        self._writer = writer
        self._added: set[PurePosixPath] = set()

    def add(self, path: Path) -> None:
        """Add a file or a directory, and the targets of links in its path.

        Args:
            path: the absolute path on the host.
        """
        path = self._resolved_folder(path.parent) / path.name
        name = PurePosixPath(*path.parts[1:])
        if path.is_symlink():
            target = path.readlink()
            self.add_link(name, str(target))
            found = Path(os.path.normpath(path.parent / target))
            if found.is_file() and PurePosixPath(*found.parts[1:]) not in self._added:
                self.add(found)
        elif path.is_dir():
            self._resolved_folder(path)
        elif self._is_new(name):
            self._writer.add_file(str(name), path)

    def add_folder(self, name: str | PurePath) -> None:
        """Add a directory that the host does not have, with its parents; the name may have a leading slash."""
        path = self._relative(name)
        for folder in [*reversed(path.parents[:-1]), path]:
            if self._is_new(folder):
                self._writer.add_directory(str(folder), 0o755)

    def add_link(self, name: str | PurePath, target: str) -> None:
        """Add a symbolic link that the host does not have; its directory must exist in the archive."""
        path = self._relative(name)
        if self._is_new(path):
            self._writer.add_link(str(path), target)

    def add_device(self, name: str | PurePath, mode: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._writer.add_device(str(self._relative(name)), mode, major, minor)

    def add_data(self, name: str | PurePath, data: bytes, mode: int = 0o644) -> None:
        """Add a file that the host does not have, with its parent directories."""
        path = self._relative(name)
        if len(path.parts) > 1:
            self.add_folder(path.parent)
        if self._is_new(path):
            self._writer.add_data(str(path), data, mode)

    def close(self) -> None:
        """End the archive."""
        self._writer.close()

    def _is_new(self, name: PurePosixPath) -> bool:
        """Register a name; return whether it is new."""
        if name in self._added:
            return False
        self._added.add(name)
        return True

    def _resolved_folder(self, path: Path) -> Path:
        """Add a directory and the links in its path; return its real path."""
        if path == path.parent:
            return path
        path = self._resolved_folder(path.parent) / path.name
        if path.is_symlink():
            target = path.readlink()
            self.add_link(PurePosixPath(*path.parts[1:]), str(target))
            return self._resolved_folder(Path(os.path.normpath(path.parent / target)))
        self.add_folder(PurePosixPath(*path.parts[1:]))
        return path

    @staticmethod
    def _relative(name: str | PurePath) -> PurePosixPath:
        path = PurePosixPath(name)
        return path.relative_to("/") if path.is_absolute() else path
