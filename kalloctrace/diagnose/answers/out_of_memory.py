# SPDX-License-Identifier: MIT
"""Whether the machine is really out of memory, or only this request could not be served."""

from collections.abc import Iterator

from kalloctrace.diagnose.answers.facts import (
    allowed,
    amount,
    free_elsewhere,
    free_kb,
    free_swap,
    machine_kb,
    swap_is_gone,
    total,
)
from kalloctrace.diagnose.answers.types import OutOfMemory, Statement
from kalloctrace.diagnose.from_log import NULL, Failure
from kalloctrace.diagnose.kinds import refused_before_pages
from kalloctrace.diagnose.zones import ZoneVerdict

_MUCH = 10
"""A tenth of the memory that could be freed is enough for any request."""
_NEARLY = 100
"""One of so many free pages may be given or freed while the lines are printed."""


def judge_out_of_memory(failure: Failure) -> OutOfMemory:
    """Return whether the machine has no memory left that the kernel could give or free.

    True needs proof from several lines, so that a shorter log is never more certain: the machine's own count of free
    pages, the swap, a request that no limit binds, and that nothing can be freed.
    """
    if failure.conclusion == "memcg":
        why = "a memory cgroup reached its limit; this report does not say how much memory the machine has left"
        return OutOfMemory(None, (Statement(why, failure.logged.places.get("memcg_limit", failure.logged.line)),))
    if failure.logged.event == "vmap":
        why = "a range of addresses is missing, not memory"
        return OutOfMemory(None, (Statement(why, failure.logged.line),))
    if refused_before_pages(failure.logged):
        why = "vmalloc gave up before it asked for pages"
        return OutOfMemory(None, (Statement(why, failure.logged.line),))
    reasons = tuple(_reasons(failure))
    return OutOfMemory(_verdict(failure), reasons)


def _verdict(failure: Failure) -> bool | None:
    if _rooms(failure) or _is_elsewhere(failure):
        return False
    size = machine_kb(failure)
    least, most = reclaimable(failure)
    if size is not None and (
        (least is not None and least * _MUCH >= size and _still_reclaims(failure))
        or (swap_is_gone(failure) is False and _anonymous(failure) * _MUCH >= size)
    ):
        return False
    if not swap_is_gone(failure) or not _is_unbound(failure) or not _all_zones_are_low(failure):
        return None
    little = size is not None and most is not None and most * _MUCH * 2 < size
    return True if has_given_up(failure) or little else None


def _rooms(failure: Failure) -> list[ZoneVerdict]:
    """Return the zones that the request may use and that have room for certain."""
    return [each for each in allowed(failure) if _has_room(each) and _has_own_reserve(failure, each)]


def _has_own_reserve(failure: Failure, verdict: ZoneVerdict) -> bool:
    """Return whether what a zone keeps for higher zones matters not, or is certainly its own.

    Where lines are missing, the lowmem_reserve behind a zone's line may be that of a higher zone, which keeps less. By
    the machine's own count no zone is missing: nearly all of its free memory is in those that are shown.
    """
    highest, index = failure.attempt.highest_zoneidx, verdict.state.index
    if highest is not None and index is not None and index >= highest:
        return True
    whole, shown = total(failure, "free"), failure.why.zones if failure.why is not None else ()
    return whole is not None and (whole - free_kb(failure, shown)) * _NEARLY <= whole


def _has_room(verdict: ZoneVerdict) -> bool:
    """Return whether a zone's usable pages are above its high watermark, so that only their blocks are too small."""
    state, check = verdict.state, verdict.check
    above = state.watermarks[2] - state.watermarks[0]
    enough = check is not None and check.usable.low > check.needed.high + above
    # Of a zone whose own line is missing nothing is known but its free blocks.
    return enough and verdict.state.counted and verdict.kind in ("block", "passes")


def _is_elsewhere(failure: Failure) -> bool:
    """Return whether what the request may not use has more free memory than its own zones are to keep free."""
    elsewhere = free_elsewhere(failure)
    marks_are_shown = all(verdict.state.counted for verdict in allowed(failure))
    return elsewhere is not None and marks_are_shown and elsewhere > _marks(failure) > 0


def _marks(failure: Failure) -> int:
    return sum(verdict.state.watermarks[2] for verdict in allowed(failure)) * failure.page_kb


def _all_zones_are_low(failure: Failure) -> bool:
    """Return whether every zone was below its watermark, and by the machine's own count no other has free memory."""
    whole, own = total(failure, "free"), allowed(failure)
    if failure.why is None or whole is None or not all(verdict.kind == "watermark" for verdict in own):
        return False
    return bool(own) and whole - free_kb(failure, failure.why.zones) <= _marks(failure)


def _is_unbound(failure: Failure) -> bool:
    """Return whether the log shows that neither a cpuset nor a policy bound the request to some nodes."""
    logged = failure.logged
    if logged.constraint is not None:
        return logged.constraint == "none"
    return logged.nodemask in (NULL, None) and (logged.cpuset == "/" or logged.mems_allowed == "0")


def has_given_up(failure: Failure) -> bool:
    """Return whether kswapd has given up on each node whose zones are shown."""
    nodes = failure.logged.nodes
    shown = {zone.node for zone in failure.logged.zones}
    return bool(shown) and all(nodes.get(node, {}).get("all_unreclaimable") for node in shown)


def _still_reclaims(failure: Failure) -> bool:
    """Return whether kswapd has certainly not given up on some node whose zones are shown."""
    nodes = failure.logged.nodes
    return any(nodes.get(zone.node, {}).get("all_unreclaimable") == 0 for zone in failure.logged.zones)


def reclaimable(failure: Failure) -> tuple[int | None, int | None]:
    """Return at least and at most how much of the page cache and slab caches can be freed, in kB.

    Dirty pages must be written first. All of the reclaimable slab may be in use: inodes and dentries of open files are.
    """
    files, slab = total(failure, "active_file", "inactive_file"), total(failure, "slab_reclaimable")
    unwritten = total(failure, "dirty", "writeback")
    least = None
    if files is not None and unwritten is not None:
        least = max(files - unwritten, 0)
    most = files + slab if files is not None and slab is not None else None
    return least, most


def _anonymous(failure: Failure) -> int:
    return total(failure, "active_anon", "inactive_anon") or 0


def _reasons(failure: Failure) -> Iterator[Statement]:
    logged, places, size = failure.logged, failure.logged.places, machine_kb(failure)
    if _is_elsewhere(failure):
        where = "on other nodes" if _other_nodes(failure) else "in zones that the request may not use"
        line = places.get("totals", logged.state_line)
        yield Statement(f"{amount(free_elsewhere(failure) or 0)} are free {where}", line)
    rooms = _rooms(failure)
    if rooms:
        small = ", in blocks too small" if all(verdict.kind == "block" for verdict in rooms) else ""
        free = amount(free_kb(failure, rooms))
        yield Statement(f"{free} are free in the zones that it may use{small}", logged.state_line)
    free_in_swap, whole = free_swap(failure)
    if whole == 0:
        yield Statement("there is no swap", places.get("swap"))
    elif free_in_swap is not None:
        of = f" of {amount(whole)}" if whole is not None else ""
        yield Statement(f"{amount(free_in_swap)}{of} swap are free", places.get("swap"))
    least, _ = reclaimable(failure)
    slab = total(failure, "slab_reclaimable")
    if least is not None:
        more = f" and up to {amount(slab)} of slab caches" if slab else ""
        verb = "may" if has_given_up(failure) else "can"
        yield Statement(f"{amount(least)} of file pages{more} {verb} be freed", places.get("totals"))
    elif (files := _file_pages(failure)) is not None:
        yield Statement(f"at most {amount(files)} are file pages", places.get("totals") or places.get("nodes"))
    unevictable = total(failure, "unevictable")
    if unevictable is not None and size is not None and unevictable * _MUCH >= size:
        yield Statement(f"{amount(unevictable)} are locked in memory (unevictable)", places.get("totals"))
    given_up = [str(number) for number, node in logged.nodes.items() if node.get("all_unreclaimable")]
    if given_up:
        yield Statement(f"kswapd has given up on node {', '.join(given_up)} (all_unreclaimable)", places.get("nodes"))


def _file_pages(failure: Failure) -> int | None:
    files = total(failure, "active_file", "inactive_file")
    if files is not None:
        return files
    shown = [(node.get("active_file"), node.get("inactive_file")) for node in failure.logged.nodes.values()]
    known = [active + inactive for active, inactive in shown if active is not None and inactive is not None]
    return sum(known) if known and len(known) == len(shown) else None


def _other_nodes(failure: Failure) -> bool:
    verdicts = failure.why.zones if failure.why is not None else ()
    return not any(verdict.excluded_by == "highest_zoneidx" and verdict.state.free for verdict in verdicts)
