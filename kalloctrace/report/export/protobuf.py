# SPDX-License-Identifier: MIT
"""The few parts of protobuf's encoding that a writer needs: https://protobuf.dev/programming-guides/encoding/."""

_VARINT, _BYTES = 0, 2
_MORE = 0x80


def varint(value: int) -> bytes:
    """Return a number as a base 128 varint.

    Args:
        value: from 0 to 2^64 - 1; a negative one of 64 bits is sent as its two's complement, as int64 is.
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= _MORE:
        out.append(value & 0x7F | _MORE)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """Return a field of an integer type, a bool or an enum."""
    return varint(field << 3 | _VARINT) + varint(value)


def blob(field: int, value: bytes | str) -> bytes:
    """Return a field that holds bytes, a string or another message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | _BYTES) + varint(len(data)) + data
