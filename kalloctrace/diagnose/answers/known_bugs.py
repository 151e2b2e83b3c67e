# SPDX-License-Identifier: MIT
"""Bugs of the kernel that a log shows for certain: a table with the commit and the release that fixed each."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kalloctrace.diagnose.answers.caller import find_caller, frames_to_caller, name_of, reliable_frames
from kalloctrace.diagnose.answers.facts import allowed, amount, free_elsewhere, has_flags, total
from kalloctrace.diagnose.answers.types import KnownBug
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.flags.releases import Release, upstream_release
from kalloctrace.model.watermark import ZoneState


class _Bug(NamedTuple):
    """A bug.

    Attributes:
        title: the subject of the commit that fixed it.
        commit: of Linus Torvalds' tree.
        fixed_in: the first release with it.
        since: the first release with the bug.
        until: the first release that may have the fix; stable kernels got it at a patch level not known here.
        shows: what the log shows of it; None if it does not.
        source: where the bug is described.
    """

    title: str
    commit: str
    fixed_in: str
    since: Release
    until: Release
    shows: Callable[[Failure], str | None]
    source: str


def find_known_bugs(failure: Failure) -> tuple[KnownBug, ...]:
    """Return the bugs that the log shows. A kernel whose vendor moves code between releases has none of them here."""
    release = upstream_release(failure.kernel) if failure.kernel else None
    return () if release is None else tuple(_found(failure, release))


def _found(failure: Failure, release: Release) -> Iterator[KnownBug]:
    for bug in BUGS:
        shown = bug.shows(failure) if bug.since <= release < bug.until else None
        if shown is not None:
            yield KnownBug(bug.title, bug.commit, bug.fixed_in, shown, failure.logged.line)


def _highatomic(failure: Failure) -> str | None:
    """The reserve counts whole page blocks, of which only the free pages are (H) blocks of the list."""
    for verdict in allowed(failure):
        state, check = verdict.state, verdict.check
        free = _free_highatomic(state)
        if verdict.kind != "watermark" or check is None or free is None or failure.rules.highatomic != "reserved":
            continue
        reserved = state.reserved_highatomic or 0
        if check.highatomic.low == reserved > free and check.usable.low + reserved - free > check.needed.high:
            kilobytes = failure.page_kb
            return (
                f"node {state.node} {state.zone} keeps {amount(reserved * kilobytes)} for high-order atomic requests, "
                f"of which at most {amount(free * kilobytes)} are free: with the right number it could have served"
            )
    return None


def _free_highatomic(state: ZoneState) -> int | None:
    """Return at most how many pages are free in MIGRATE_HIGHATOMIC blocks; None if the list does not show it."""
    if state.blocks is None or any(blocks.count and blocks.types is None for blocks in state.blocks):
        return None
    return sum(
        blocks.count << order
        for order, blocks in enumerate(state.blocks)
        if "MIGRATE_HIGHATOMIC" in (blocks.types or ())
    )


def _early_oom(failure: Failure) -> str | None:
    if failure.logged.event != "oom" or not 0 < failure.logged.order <= 3 or failure.conclusion == "memcg":
        return None
    if failure.why is None or failure.why.conclusion != "block":
        return None
    return f"the OOM killer ran for order {failure.logged.order} while there were enough pages, in smaller blocks"


def _lowmem_oom(failure: Failure) -> str | None:
    if failure.logged.event != "oom" or failure.highest_zone not in ("DMA", "Normal") or failure.conclusion == "memcg":
        return None
    zones = {zone.zone: zone.kilobytes for zone in failure.logged.zones}
    files = sum(zones.get("Normal", {}).get(name, 0) for name in ("active_file", "inactive_file"))
    if "HighMem" not in zones or files <= zones.get("Normal", {}).get("high", files):
        return None
    return f"the OOM killer ran for low memory of a 32-bit kernel, which still had {amount(files)} of file pages"


def _stall(failure: Failure) -> str | None:
    if failure.logged.event != "stall":
        return None
    return "many reports of stalls at once can lock up the machine by themselves; later kernels do not print them"


def _btrfs(failure: Failure) -> str | None:
    """A kernel with the fix shows kvmalloc here, so the trace decides it for every release."""
    caller = find_caller(failure.logged)
    names = [name_of(frame) for frame in frames_to_caller(failure.logged)]
    if caller is None or caller.function.removesuffix("_noprof") != "btrfs_lookup_bio_sums" or failure.logged.order < 1:
        return None
    if any("vmalloc" in name for name in names) or not any("kmalloc" in name for name in names):
        return None
    return "btrfs_lookup_bio_sums asks for contiguous pages (kmalloc), which it does not need"


_MGLRU = frozenset(
    ("lru_gen_shrink_lruvec", "lru_gen_shrink_node", "shrink_one", "try_to_shrink_lruvec", "evict_folios")
)


def _dirty_mglru(failure: Failure) -> str | None:
    names = {name_of(frame) for frame in reliable_frames(failure.logged.trace)}
    files, dirty = total(failure, "active_file", "inactive_file"), total(failure, "dirty")
    if not names & _MGLRU or files is None or dirty is None or dirty * 2 < files or dirty == 0:
        return None
    return f"MGLRU reclaims, {amount(dirty)} of {amount(files)} file pages are dirty, and it wakes nobody to write them"


def _thp_this_node(failure: Failure) -> str | None:
    if failure.logged.order != 9 or not has_flags(failure, "__GFP_THISNODE", "__GFP_DIRECT_RECLAIM", "__GFP_COMP"):
        return None
    elsewhere = free_elsewhere(failure)
    if not elsewhere or len({zone.node for zone in failure.logged.zones}) < 2:
        return None
    return (
        f"a huge page was sought on one node alone, by reclaiming there, while {amount(elsewhere)} were free elsewhere"
    )


_NEVER = Release(1 << 16, 0, 0)

BUGS = (
    _Bug(
        "mm/page_alloc: keep track of free highatomic",
        "c928807f6f6b",
        "6.13",
        Release(4, 4, 0),
        Release(6, 11, 0),
        _highatomic,
        "its message: OOM kills by vastly overestimated free highatomic reserves; stable 6.12 got it on the way",
    ),
    _Bug(
        "mm, oom: prevent premature OOM killer invocation for high order request",
        "6b4e3181d7bd",
        "4.8",
        Release(4, 7, 0),
        Release(4, 7, 1),
        _early_oom,
        "message of the commit that reverts it in 4.9: regressions of 4.7 (0a0337e0d1d1), and for stable 4.7",
    ),
    _Bug(
        "mm, vmscan: consider eligible zones in get_scan_count",
        "71ab6cfe88dc",
        "4.11",
        Release(4, 8, 0),
        Release(4, 9, 0),
        _lowmem_oom,
        "Michal Hocko to stable, 2017-02-28: regression of 4.8 (f8d1a31163fc); stable 4.9 got it later",
    ),
    _Bug(
        "mm: don't warn about allocations which stall for too long",
        "400e22499dd9",
        "4.15",
        Release(4, 9, 0),
        Release(4, 15, 0),
        _stall,
        "its message: it reverts 63f53dea0c98, as printing could trigger OOM lockup and soft lockups",
    ),
    _Bug(
        "btrfs: use kvcalloc for btrfs_bio::csum allocation",
        "cfc7fe2b0f18",
        "6.19",
        Release(2, 6, 0),
        _NEVER,
        _btrfs,
        "its message; stable 6.18 got it too",
    ),
    _Bug(
        "mm/vmscan: wake up flushers conditionally to avoid cgroup OOM",
        "1bc542c6a0d1",
        "6.13",
        Release(6, 2, 0),
        Release(6, 12, 0),
        _dirty_mglru,
        'its message: since 14aa8b2d5c2e ("mm/mglru: don\'t sync disk for each aging cycle")',
    ),
    _Bug(
        "mm, page_alloc: allow hugepage fallback to remote nodes when madvised",
        "76e654cc91bb",
        "5.4",
        Release(4, 0, 0),
        Release(4, 19, 0),
        _thp_this_node,
        "its message, and ac5b2c18911f (in 4.20, reverted by 2f0799a0ffc0)",
    ),
)
"""Each was read in the messages of the commits named here."""
