# SPDX-License-Identifier: MIT
"""The lines of log files of any encoding and compression."""

import bz2
import gzip
import io
import lzma
import tracemalloc

import pyarrow as pa
import pytest

from kalloctrace.logs.files import LogLines
from kalloctrace.logs.pieces import LONGEST

LINES = [f"[{number:12.6f}] line {number} of a log, äöü" for number in range(20_000)]
TEXT = "\n".join(LINES) + "\n"
DATA = TEXT.encode()

FILES = {
    "plain": DATA,
    "without a last line end": DATA[:-1],
    "UTF-8 with a mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16, big-endian with a mark": b"\xfe\xff" + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "UTF-16, big-endian without a mark": TEXT.encode("utf-16-be"),
    "gzip": gzip.compress(DATA),
    "two gzip files in one": gzip.compress(DATA[:5000]) + gzip.compress(DATA[5000:]),
    "xz": lzma.compress(DATA),
    "lzma": lzma.compress(DATA, format=lzma.FORMAT_ALONE),
    "bzip2": bz2.compress(DATA),
    "zstd": bytes(pa.compress(DATA, "zstd", asbytes=True)),
    "two zstd files in one": b"".join(pa.compress(part, "zstd", asbytes=True) for part in (DATA[:5000], DATA[5000:])),
    "lz4": bytes(pa.compress(DATA, "lz4", asbytes=True)),
    "gzip of UTF-16": gzip.compress(TEXT.encode("utf-16")),
    "zeros around": b"\0" * 5000 + DATA + b"\0" * 5000,
}


@pytest.mark.parametrize("name", FILES)
def test_lines(name: str) -> None:
    """Every file has the same lines."""
    lines = LogLines(io.BytesIO(FILES[name]))
    assert [text.strip("\0") for text in lines if text.strip("\0")] == LINES
    assert (lines.cut, lines.damage) == (0, "")


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd"])
def test_a_truncated_file_is_read_up_to_its_end(name: str) -> None:
    """What a full disk left is read, and the rest is named."""
    lines = LogLines(io.BytesIO(FILES[name][:-20]))
    found = list(lines)
    assert found[:-1] == LINES[: max(len(found) - 1, 0)]
    assert lines.damage


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe\x80 text\n", b"\x1f\x8b", b"caf\xe9\n", b"\xfd7zXZ\x00junk"])
def test_bytes_that_are_no_file(data: bytes) -> None:
    """Any bytes have lines, or none."""
    assert all("\n" not in line for line in LogLines(io.BytesIO(data)))


def test_long_lines() -> None:
    """Of a line without an end its beginning is read; a string with escaped newlines may be longer."""
    string = '{"log": "' + "line\\n" * 50_000 + '"}'
    lines = LogLines(io.BytesIO(b"x" * 5_000_000 + b"\nshort\n" + string.encode() + b"\n" + b"y" * 20_000 + b"\nend"))
    assert [len(line) for line in lines] == [LONGEST, 5, len(string), LONGEST, 3]
    assert lines.cut == 2


def test_a_bomb_takes_no_memory() -> None:
    """24 MB of zeros, and of one line, in a few kilobytes."""
    for byte in (b"\0", b"x"):
        bomb = gzip.compress(byte * (24 << 20))
        tracemalloc.start()
        found = list(LogLines(io.BytesIO(bomb)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(map(len, found)) <= LONGEST
        assert peak < 8 << 20
