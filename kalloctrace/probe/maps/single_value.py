# SPDX-License-Identifier: MIT
"""Maps of a single value, which a program addresses without a look-up."""

import resource

from kalloctrace.system_calls import bpf

# include/uapi/linux/bpf.h: enum bpf_cmd, enum bpf_map_type, BPF_F_MMAPABLE
_MAP_CREATE = 0
_ARRAY = 2
_MMAPABLE = 1 << 10

LARGEST = 4 << 20
"""Bytes: KMALLOC_MAX_SIZE of 5.10, which array_map_alloc_check() in kernel/bpf/arraymap.c allows."""

_KEY_BYTES = 4
_NAME_BYTES = 15


def create_single_value(name: str, size: int) -> int:
    """Create a map, of zeros, that user space can map into memory; return its file.

    Args:
        name: as the kernel shows it, up to 15 bytes.
        size: of the value, in bytes, a multiple of 8.

    Raises:
        OSError: the kernel refused.
    """
    # map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node, map_name
    values = (_ARRAY, _KEY_BYTES, size, 1, _MMAPABLE, 0, 0, name.encode()[:_NAME_BYTES])
    try:
        return bpf(_MAP_CREATE, "<7I 16s", *values)
    except PermissionError:
        # Before v5.11 maps count as locked memory; bcc raises the limit for its own.
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return bpf(_MAP_CREATE, "<7I 16s", *values)
