# SPDX-License-Identifier: MIT
"""Maps of a single value, which a program addresses without a look-up."""

from kalloctrace.probe.maps.bpf_map import MapShape, create_map

# include/uapi/linux/bpf.h: enum bpf_map_type, BPF_F_MMAPABLE
_ARRAY = 2
_MMAPABLE = 1 << 10

LARGEST = 4 << 20
"""Bytes: KMALLOC_MAX_SIZE of 5.10, which array_map_alloc_check() in kernel/bpf/arraymap.c allows."""

_KEY_BYTES = 4


def create_single_value(name: str, size: int) -> int:
    """Create a map, of zeros, that user space can map into memory; return its file.

    Args:
        name: as the kernel shows it, up to 15 bytes.
        size: of the value, in bytes, a multiple of 8.

    Raises:
        OSError: the kernel refused.
    """
    return create_map(MapShape(name, _ARRAY, _KEY_BYTES, size, 1, _MMAPABLE))
