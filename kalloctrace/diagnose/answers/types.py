# SPDX-License-Identifier: MIT
"""What an answer is made of. A `line` is the number of the log's line that supports it; None if the log has none."""

from typing import Literal, NamedTuple

Certainty = Literal["certain", "likely", "unknown"]

HarmKind = Literal["fallback", "retried", "dropped", "failed", "killed", "unknown"]
"""The caller has another way; it tries again; a packet or the like is lost; the caller got nothing; a process was
killed; the log does not show it."""

HolderKind = Literal[
    "task",
    "anonymous",
    "shmem",
    "file",
    "unevictable",
    "slab",
    "reclaimable_slab",
    "page_tables",
    "kernel_stacks",
    "hugetlb",
    "site",
    "unaccounted",
]


class Statement(NamedTuple):
    """One fact, as a sentence without a full stop."""

    text: str
    line: int | None = None


class Caller(NamedTuple):
    """Who asked for the memory.

    Attributes:
        function: the function of the call trace that is not of an allocator.
        module: its module; None for the kernel itself.
        subsystem: what it belongs to; None if the tables do not have it.
        line: of the call trace, where the function stands.
    """

    function: str
    module: str | None
    subsystem: str | None
    line: int | None = None


class Harm(NamedTuple):
    """What the failure leads to."""

    kind: HarmKind
    why: str
    certainty: Certainty
    line: int | None = None


class OutOfMemory(NamedTuple):
    """Whether the machine is out of memory: None if the log does not decide it, and the facts."""

    verdict: bool | None
    reasons: tuple[Statement, ...]


class Holder(NamedTuple):
    """Who holds memory.

    Attributes:
        kind: what it is.
        what: its name, for people.
        kilobytes: how much.
        pid: of a task; None for all else.
        line: of the log.
    """

    kind: HolderKind
    what: str
    kilobytes: int
    pid: int | None = None
    line: int | None = None


class Advice(NamedTuple):
    """A change.

    Attributes:
        text: what to do, and why.
        setting: what to set, such as "vm.min_free_kbytes"; None if it is no setting.
        value: its value; None if the log does not give one.
        certainty: that it helps.
        line: of the log.
    """

    text: str
    setting: str | None
    value: int | str | None
    certainty: Certainty
    line: int | None = None


class KnownBug(NamedTuple):
    """A bug of the kernel that the log shows.

    Attributes:
        title: the subject of the commit that fixed it.
        commit: of Linus Torvalds' tree.
        fixed_in: the first release with it.
        text: what the log shows of it.
        line: of the log.
    """

    title: str
    commit: str
    fixed_in: str
    text: str
    line: int | None = None
