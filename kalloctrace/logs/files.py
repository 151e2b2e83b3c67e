# SPDX-License-Identifier: MIT
"""The lines of a log file: of any encoding, compressed or not, of any length, in constant memory."""

import bz2
import codecs
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from kalloctrace.logs.pieces import LONGEST

_LONGEST_STRING = 1 << 20
"""The same for a line that holds many, separated by escaped newlines: JSON."""
_BLOCK = 1 << 18
_ZEROS = "\0" * 16
_ESCAPED_NEWLINES = ("\\n", "#012", "<br", "\r")
_DAMAGED = (EOFError, OSError, lzma.LZMAError, zlib.error)
_ARROW_CODECS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}


class LogLines:
    """The lines of a log, without line ends.

    Args:
        stream: the file's bytes; compressed ones are recognised by their first bytes.

    Attributes:
        cut: lines that were longer than what is read of one.
        damage: why reading ended before the end of a compressed file; "" if it did not.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = _uncompressed(_peekable(stream))
        self.cut = 0
        self.damage = ""

    def __iter__(self) -> Iterator[str]:
        """Yield each line."""
        pending, skipping = "", False
        for text in self._texts():
            lines = text.split("\n")
            if skipping and len(lines) == 1:
                continue
            lines[0] = "" if skipping else pending + lines[0]
            pending = lines.pop()
            if skipping:
                del lines[:1]
                skipping = False
            for line in lines:
                yield line if len(line) <= LONGEST else self._short(line)
            if len(pending) > _LONGEST_STRING:
                yield self._short(pending)
                pending, skipping = "", True
        if pending:
            yield self._short(pending)

    def _short(self, line: str) -> str:
        longest = _LONGEST_STRING if any(newline in line for newline in _ESCAPED_NEWLINES) else LONGEST
        if len(line) <= longest:
            return line
        self.cut += 1
        return line[:longest]

    def _texts(self) -> Iterator[str]:
        decoder: codecs.IncrementalDecoder | None = None
        for data in self._blocks():
            if decoder is None:
                decoder = codecs.getincrementaldecoder(encoding_of(data))(errors="replace")
            # Rings that were not full, and files of a machine that crashed, are filled with zeros.
            yield decoder.decode(data).replace(_ZEROS, "")
        if decoder is not None:
            yield decoder.decode(b"", final=True)

    def _blocks(self) -> Iterator[bytes]:
        """Yield what can be read: what was pasted is answered before its end."""
        while True:
            try:
                data = self._stream.read1(_BLOCK)
            except _DAMAGED as error:
                if self._stream.is_plain:
                    raise
                self.damage = str(error) or type(error).__name__
                return
            if not data:
                return
            yield data


@contextmanager
def open_log(name: str) -> Iterator[LogLines]:
    """Open a file, or standard input for "-", as the lines of a log.

    Raises:
        OSError: it cannot be read.
    """
    if name == "-":
        yield LogLines(sys.stdin.buffer)
    else:
        with Path(name).open("rb") as stream:
            yield LogLines(stream)


class _Bytes:
    """A stream of bytes, and whether they are those of the file."""

    def __init__(self, stream: BinaryIO, *, is_plain: bool) -> None:
        self._read = getattr(stream, "read1", stream.read)
        self.is_plain = is_plain

    def read1(self, size: int) -> bytes:
        return cast("bytes", self._read(size))


def _peekable(stream: BinaryIO) -> io.BufferedReader:
    if isinstance(stream, io.BufferedReader):
        return stream
    return io.BufferedReader(cast("io.RawIOBase", stream))


_GZIP, _LZMA, _BZIP2 = b"\x1f\x8b", (b"\xfd7zXZ\x00", b"\x5d\x00\x00"), b"BZh"


def is_compressed(data: bytes) -> bool:
    """Return whether bytes begin a compressed file."""
    return data.startswith((_GZIP, *_LZMA, _BZIP2, *_ARROW_CODECS))


def _uncompressed(stream: io.BufferedReader) -> _Bytes:
    magic = stream.peek(6)[:6]
    if magic.startswith(_GZIP):
        return _Bytes(cast("BinaryIO", gzip.GzipFile(fileobj=stream)), is_plain=False)
    if magic.startswith(_LZMA):
        return _Bytes(cast("BinaryIO", lzma.LZMAFile(stream)), is_plain=False)
    if magic.startswith(_BZIP2):
        return _Bytes(cast("BinaryIO", bz2.BZ2File(stream)), is_plain=False)
    codec = _ARROW_CODECS.get(magic[:4])
    if codec is not None:
        # Of pyarrow, which is there anyway: the standard library has zstd from Python 3.14 on.
        import pyarrow as pa  # noqa: PLC0415 takes long to import, and few logs need it

        return _Bytes(pa.CompressedInputStream(stream, codec), is_plain=False)
    return _Bytes(stream, is_plain=True)


def encoding_of(data: bytes) -> str:
    """Return the encoding of text that begins with these bytes."""
    head = data[:512]
    # Half of the bytes of English text in UTF-16 are zero, with or without a mark at the beginning.
    even, odd, enough = head[0::2].count(0), head[1::2].count(0), len(head) * 2 // 5
    if odd >= enough > even:
        return "utf-16" if head.startswith(codecs.BOM_UTF16_LE) else "utf-16-le"
    if even >= enough > odd:
        return "utf-16" if head.startswith(codecs.BOM_UTF16_BE) else "utf-16-be"
    return "utf-8-sig"
