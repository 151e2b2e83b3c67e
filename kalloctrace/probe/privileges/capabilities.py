# SPDX-License-Identifier: MIT
"""The capabilities of this thread; threads that it starts later inherit them."""

import ctypes
import struct
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

from kalloctrace.system_calls import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    prctl,
    system_call,
)

_STATUS = Path("/proc/thread-self/status")

# arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/linux/capability.h
_SYS_CAPSET = 126
_VERSION_3 = 0x20080522


class Capability(IntEnum):
    """A capability by its number in include/uapi/linux/capability.h."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    KILL = 5
    SETGID = 6
    SETUID = 7
    NET_BIND_SERVICE = 10
    SYS_RAWIO = 17
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39

    def __str__(self) -> str:
        """Return the name as capsh(1) prints it, such as `cap_bpf`."""
        return f"cap_{self.name.lower()}"


def effective() -> frozenset[Capability]:
    """Return which of these capabilities are in effect."""
    return _capabilities("CapEff")


def permitted() -> frozenset[Capability]:
    """Return which of these capabilities are in effect, or can be put into effect."""
    return _capabilities("CapPrm")


def give_up_inherited() -> None:
    """Empty the ambient and the bounding set, so that no program that this thread runs gets a capability.

    Only CAP_SETPCAP can empty the bounding set; without it the set stays, and no_new_privs makes up for that.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    number = 0
    with suppress(OSError):
        # The kernel answers EINVAL behind its last capability, and EPERM without CAP_SETPCAP.
        while prctl(PR_CAPBSET_READ, number) >= 0:
            prctl(PR_CAPBSET_DROP, number)
            number += 1


def set_aside() -> None:
    """Put no capability into effect; `keep_only` can still keep what is set aside."""
    _capset(effective=0, permitted=_sets()["CapPrm"])


def keep_only(kept: Iterable[Capability] = ()) -> None:
    """Give up all other capabilities for good, and let no program inherit any.

    Args:
        kept: the capabilities to keep and to put into effect.
    """
    mask = sum(1 << capability for capability in frozenset(kept)) & _sets()["CapPrm"]
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _capset(effective=mask, permitted=mask)


def _capabilities(name: str) -> frozenset[Capability]:
    mask = _sets()[name]
    return frozenset(capability for capability in Capability if mask >> capability & 1)


def _sets() -> dict[str, int]:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return {name: int(mask, 16) for name, mask in (line.split(":") for line in lines if line.startswith("Cap"))}


def _capset(*, effective: int, permitted: int) -> None:
    """Set the effective and the permitted set, and empty the inheritable one."""
    low, high = (1 << 32) - 1, 32
    sets = (effective & low, permitted & low, 0, effective >> high, permitted >> high, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    system_call("capset", _SYS_CAPSET, header, ctypes.create_string_buffer(struct.pack("=6I", *sets)))
