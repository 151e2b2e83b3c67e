# SPDX-License-Identifier: MIT
"""Writing an archive that the kernel unpacks as its first root file system.

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
    """An archive in cpio's "newc" format, with everything in it owned by root.

    A file's directories are to be added before it; the kernel makes none by itself.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Write to a stream, at its beginning."""
        self._stream = stream
        self._number = 0

    def add_directory(self, name: str, mode: int) -> None:
        """Add a directory; its name has no leading slash, as all names here."""
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
        """Add a copy of a file, with its time: Python compares it with that of what it compiled."""
        with source.open("rb") as file:
            facts = os.fstat(file.fileno())
            mode = stat.S_IFREG | stat.S_IMODE(facts.st_mode)
            self._add(name, mode, size=facts.st_size, time=int(facts.st_mtime))
            # Someone may be writing to it: there are to be as many bytes as were announced.
            left = facts.st_size
            while left and (chunk := file.read(min(left, _CHUNK))):
                self._stream.write(chunk)
                left -= len(chunk)
        self._stream.write(bytes(left))
        self._pad(facts.st_size)

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
        # Inode, mode, user, group, links, time, size, device, device of a special file, length of the name, checksum
        fields = (self._number, mode, 0, 0, links, time, size, 0, 0, *device, len(encoded), 0)
        header = _MAGIC + "".join(f"{field:08x}" for field in fields)
        self._write(header.encode("ascii") + encoded)

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._pad(len(data))

    def _pad(self, length: int) -> None:
        # Header and data each end at a multiple of four; both begin at one.
        self._stream.write(bytes(-length % 4))


class Tree:
    """An archive of files that lie in it where they lie here: each link on the way to one is a link there too.

    What is there already stays, so that of two files of one name the first is in the archive.
    """

    def __init__(self, writer: CpioWriter) -> None:
        """Write to an archive."""
        self._writer = writer
        self._added: set[PurePosixPath] = set()

    def add(self, path: Path) -> None:
        """Add a file or a folder, and what a link in its path or the file itself points to.

        Args:
            path: where it is here, absolute.
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
        """Add a folder of the archive's own, with those that it is in; names here may have a leading slash."""
        path = self._relative(name)
        for folder in [*reversed(path.parents[:-1]), path]:
            if self._is_new(folder):
                self._writer.add_directory(str(folder), 0o755)

    def add_link(self, name: str | PurePath, target: str) -> None:
        """Add a symbolic link of the archive's own, in a folder that is there."""
        path = self._relative(name)
        if self._is_new(path):
            self._writer.add_link(str(path), target)

    def add_device(self, name: str | PurePath, mode: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._writer.add_device(str(self._relative(name)), mode, major, minor)

    def add_data(self, name: str | PurePath, data: bytes, mode: int = 0o644) -> None:
        """Add a file of the archive's own, with the folders that it is in."""
        path = self._relative(name)
        if len(path.parts) > 1:
            self.add_folder(path.parent)
        if self._is_new(path):
            self._writer.add_data(str(path), data, mode)

    def close(self) -> None:
        """End the archive."""
        self._writer.close()

    def _is_new(self, name: PurePosixPath) -> bool:
        """Take a name, unless it was taken before."""
        if name in self._added:
            return False
        self._added.add(name)
        return True

    def _resolved_folder(self, path: Path) -> Path:
        """Add a folder and the links on the way to it; return where it really is."""
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
