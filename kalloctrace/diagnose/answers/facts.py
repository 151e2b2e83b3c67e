# SPDX-License-Identifier: MIT
"""Amounts that several answers need, as far as the log shows them."""

from collections.abc import Iterable, Mapping

from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.states import populated
from kalloctrace.diagnose.zones import ZoneVerdict

LOWMEM = ("DMA", "DMA32", "Normal")
"""The zones among which the kernel divides vm.min_free_kbytes."""


_MOST_OF_IT = (
    *("active_anon", "inactive_anon", "active_file", "inactive_file", "unevictable", "free"),
    *("slab_reclaimable", "slab_unreclaimable"),
)


def has_flags(failure: Failure, *names: str) -> bool:
    """Return whether the mask certainly has all these flags."""
    if failure.mask is not None:
        return all(failure.mask.has(name) for name in names)
    tables, mask = failure.tables, failure.attempt.gfp_mask
    return tables is not None and all(tables.has_gfp(name) and bool(mask & tables.gfp(name)) for name in names)


def total(failure: Failure, *names: str) -> int | None:
    """Return the sum of counters of the whole machine in kB; None unless the log shows each, and the page size.

    The lines after "Mem-Info:" have them in pages.
    """
    known = [failure.logged.totals[name] for name in names if name in failure.logged.totals]
    if failure.page_size.certainty == "unknown" or len(known) < len(names):
        return None
    return sum(known) * failure.page_kb


def machine_kb(failure: Failure) -> int | None:
    """Return the memory that the kernel manages, in kB; None if the log does not show it."""
    logged = failure.logged
    if logged.total_ram_pages is None or logged.reserved_pages is None or failure.page_size.certainty == "unknown":
        return None
    return (logged.total_ram_pages - logged.reserved_pages) * failure.page_kb


def size_kb(failure: Failure) -> int | None:
    """Return about how much memory there is, in kB: what the kernel manages, else what the counters add up to."""
    whole = machine_kb(failure)
    if whole is not None:
        return whole
    counted = sum(total(failure, name) or 0 for name in _MOST_OF_IT)
    managed = sum(zone.kilobytes.get("managed", 0) for zone in failure.logged.zones)
    return max(counted, managed) or None


def free_swap(failure: Failure) -> tuple[int | None, int | None]:
    """Return the free and the whole swap in kB; None for what is not shown."""
    return failure.logged.swap or (None, None)


def swap_is_gone(failure: Failure) -> bool | None:
    """Return whether less than a hundredth of the swap is free, as where there is none; None if it is not shown."""
    free, whole = free_swap(failure)
    if free is None:
        return None
    if whole is None:
        return True if free == 0 else None
    return free * 100 <= whole


def allowed(failure: Failure) -> list[ZoneVerdict]:
    """Return the zones that the request may use."""
    return [] if failure.why is None else [each for each in failure.why.zones if each.kind != "excluded"]


def below_mark(failure: Failure) -> list[ZoneVerdict]:
    """Return the zones that the request may use and that their watermark alone refused, without lowmem_reserve.

    Raising the watermarks keeps more free in these; where lowmem_reserve refused, it would only raise the limit.
    """
    low = [each for each in allowed(failure) if each.kind == "watermark" and each.check is not None]
    return [each for each in low if each.check is not None and each.check.usable.low <= each.check.lowered]


def kept_for_lower(failure: Failure) -> list[ZoneVerdict]:
    """Return the zones that the request may use and that lowmem_reserve alone refused."""
    below = below_mark(failure)
    return [each for each in allowed(failure) if each.kind == "watermark" and each not in below]


def excluded(failure: Failure) -> list[ZoneVerdict]:
    """Return the zones that it may not."""
    return [] if failure.why is None else [each for each in failure.why.zones if each.kind == "excluded"]


def free_kb(failure: Failure, verdicts: Iterable[ZoneVerdict]) -> int:
    """Return the free memory of zones in kB."""
    return sum(verdict.state.free for verdict in verdicts) * failure.page_kb


def free_elsewhere(failure: Failure) -> int | None:
    """Return the free memory in kB that the request may not use; None if the log does not show it.

    Of a request that a policy or a cpuset binds, the kernel prints either all nodes or only those that it may use; then
    its own count of free pages shows the rest, if no line of the nodes that are printed is missing.
    """
    shown, whole = excluded(failure), total(failure, "free")
    if failure.why is None or whole is None or not _hides_nodes(failure):
        return free_kb(failure, shown) or None
    return free_kb(failure, shown) + max(whole - free_kb(failure, failure.why.zones), 0)


def _hides_nodes(failure: Failure) -> bool:
    """Return whether the kernel left out the nodes that the request may not use, and the state is whole."""
    logged = failure.logged
    outside = (failure.attempt.mems_allowed or 0) & ~(failure.attempt.nodemask or 0) if failure.attempt.nodemask else 0
    bound = logged.constraint in ("mempolicy", "cpuset") or bool(outside)
    if not bound or failure.unshown or any(each.excluded_by in ("nodemask", "cpuset") for each in excluded(failure)):
        return False
    ended = logged.swap is not None or logged.total_ram_pages is not None
    return ended and all(zone.blocks and "free" in zone.kilobytes for zone in populated(logged.zones))


def cgroup_shmem(stats: Mapping[str, int]) -> int:
    """Return the shared memory of a cgroup in kB, 0 if the log does not show it.

    Older kernels do not print it; it is what the lists of anonymous pages have besides "rss", and a part of "cache"
    (`mem_cgroup_charge_statistics`, mm/memcontrol.c of 3.10).
    """
    if "shmem" in stats or not {"cache", "rss", "active_anon", "inactive_anon"} <= stats.keys():
        return stats.get("shmem", 0)
    return min(max(stats["active_anon"] + stats["inactive_anon"] - stats["rss"], 0), stats["cache"])


def amount(kilobytes: int) -> str:
    """Return an amount of memory for people: exact below 10 MB, else three digits."""
    if kilobytes < 10 << 10:
        return f"{kilobytes:,} kB"
    for unit, size in (("GB", 1 << 20), ("MB", 1 << 10)):
        if kilobytes >= size:
            value = kilobytes / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{kilobytes:,} kB"
