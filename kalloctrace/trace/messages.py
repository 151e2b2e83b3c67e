# SPDX-License-Identifier: MIT
"""Reads the messages of an Arrow IPC stream, and refuses one that unpacks to too much before anything is unpacked.

Format: https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format. A message is a flatbuffer, whose
tables are described in format/Message.fbs of Arrow 15.0.0, and a body. A compressed buffer of the body begins with its
length when unpacked, as 64 bits. pyarrow reserves that much memory before it looks at the rest.
"""

import struct
from typing import Protocol, Self

import pyarrow as pa

MOST_UNPACKED = 128 << 20
"""Bytes that one message may unpack to, and that the dictionaries of a stream may have together."""
_MOST_METADATA = 64 << 20
_MOST_ROWS = 1 << 22

_PREFIX = 8
_CONTINUES = b"\xff\xff\xff\xff"
_NOT_COMPRESSED = -1
_BUFFER = struct.Struct("<qq")
_DICTIONARY, _ROWS = 2, 3


class File(Protocol):
    """What is read: `pyarrow.NativeFile` has this method."""

    def read_at(self, size: int, offset: int, /) -> bytes:
        """Return so many bytes at an offset, or fewer at the end."""


class Messages:
    """The first bytes of a file that others read as well, as a file for `pyarrow.PythonFile`; checks each message.

    Args:
        file: the file.
        size: how much of it to read, bytes.
        most: bytes that one message may unpack to.
    """

    closed = False

    def __init__(self, file: File, size: int, most: int = MOST_UNPACKED) -> None:
        self._file = file
        self._size = size
        self._most = most
        self._position = 0
        self._next = 0
        self._dictionaries: dict[int, int] = {}

    def read(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            OSError: a message is damaged, or unpacks to too much.
        """
        if self._position == self._next:
            self._check_message()
        data = self._at(self._position, size)
        self._position += len(data)
        return data

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def close(self) -> None:
        """Leave the file open for the others."""

    def _at(self, position: int, size: int) -> bytes:
        return self._file.read_at(max(0, min(size, self._size - position)), position)

    def _check_message(self) -> None:
        """Check the message at the position, and find the next."""
        prefix = self._at(self._position, _PREFIX)
        if len(prefix) < _PREFIX or not prefix.startswith(_CONTINUES):
            # The end, or what pyarrow refuses or reads as the lengths of an older format.
            if prefix and not prefix.startswith(_CONTINUES[: len(prefix)]):
                raise OSError("a message does not begin as one")
            self._next = self._size + 1
            return
        (length,) = struct.unpack_from("<i", prefix, 4)
        if not 0 <= length <= _MOST_METADATA:
            raise OSError(f"the description of a message has {length:,} bytes")
        start = self._position + _PREFIX
        body = start + length
        description = self._at(start, length)
        if not length or len(description) < length:
            # The end, or a message that is cut off: pyarrow says so.
            self._next = self._size + 1
            return
        try:
            self._next = body + self._check(_Table.root(description), body)
        except (struct.error, IndexError) as error:
            raise OSError("the description of a message is damaged") from error

    def _check(self, message: "_Table", body: int) -> int:
        """Check a message; return the length of its body."""
        kind, size = message.number(1, "<B"), message.number(3, "<q")
        if not 0 <= size <= self._size - body and self._size >= body:
            if size < 0:
                raise OSError("a message has a body of negative length")
            # It is cut off: pyarrow says so.
            return max(0, self._size + 1 - body)
        header = message.table(2)
        if header is None or kind not in {_DICTIONARY, _ROWS}:
            return size
        batch = header.table(1) if kind == _DICTIONARY else header
        if batch is None:
            raise OSError("a dictionary has no values")
        if not 0 <= batch.number(0, "<q") <= _MOST_ROWS:
            raise OSError(f"a batch has more than {_MOST_ROWS:,} rows")
        unpacked = self._unpacked(batch, body, size)
        if unpacked > self._most:
            raise OSError(f"a batch unpacks to {unpacked:,} bytes, more than {self._most:,}")
        if kind == _DICTIONARY:
            number = header.number(0, "<q")
            known = self._dictionaries.get(number, 0) if header.number(2, "<B") else 0
            self._dictionaries[number] = known + unpacked
            if sum(self._dictionaries.values()) > self._most:
                raise OSError(f"its dictionaries unpack to more than {self._most:,} bytes")
        return size

    def _unpacked(self, batch: "_Table", body: int, size: int) -> int:
        compressed = batch.table(3) is not None
        total = 0
        for offset, length in _BUFFER.iter_unpack(batch.structs(2, _BUFFER.size)):
            if offset < 0 or length < 0 or offset + length > size:
                raise OSError("a batch has a buffer outside its body")
            if compressed and length >= _PREFIX:
                (unpacked,) = struct.unpack("<q", self._at(body + offset, _PREFIX))
                if unpacked < _NOT_COMPRESSED:
                    raise OSError("a buffer has a negative length")
                total += length if unpacked == _NOT_COMPRESSED else unpacked
            else:
                total += length
        return total


class _Table:
    """A table of a flatbuffer (https://flatbuffers.dev/internals): its fields by their number.

    Raises:
        struct.error: of each method, if it points outside the data.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - self._get("<i", at)

    @classmethod
    def root(cls, data: bytes) -> Self:
        """Return the outermost table."""
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def number(self, field: int, form: str) -> int:
        """Return a number; 0 where it is missing."""
        at = self._field(field)
        return self._get(form, at) if at else 0

    def table(self, field: int) -> Self | None:
        """Return a table; None where it is missing."""
        at = self._field(field)
        return type(self)(self._data, at + self._get("<I", at)) if at else None

    def structs(self, field: int, size: int) -> bytes:
        """Return the structures of a vector."""
        at = self._field(field)
        if not at:
            return b""
        at += self._get("<I", at)
        end = at + 4 + size * self._get("<I", at)
        if end > len(self._data):
            raise struct.error("a vector ends outside the data")
        return self._data[at + 4 : end]

    def _field(self, field: int) -> int:
        """Return where a field is; 0 where it is missing."""
        entry = 4 + 2 * field
        offset = self._get("<H", self._vtable + entry) if entry < self._get("<H", self._vtable) else 0
        return self._at + offset if offset else 0

    def _get(self, form: str, at: int) -> int:
        if at < 0:
            # A negative offset counts from the end.
            raise struct.error("an offset points before the data")
        number: int = struct.unpack_from(form, self._data, at)[0]
        return number


def open_messages(file: File, size: int, most: int = MOST_UNPACKED) -> pa.NativeFile:
    """Return a stream of messages for pyarrow; arguments as of `Messages`."""
    return pa.PythonFile(Messages(file, size, most), mode="r")
