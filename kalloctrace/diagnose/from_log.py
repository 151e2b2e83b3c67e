# SPDX-License-Identifier: MIT
"""A logged failure, judged zone by zone; what the log does not show stays unknown."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

from kalloctrace.diagnose.reports.model import LoggedFailure, LoggedZone, zone_layouts
from kalloctrace.diagnose.zones import AllocationAttempt, Diagnosis, judge_zones
from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.decode import decode_gfp, parse_flags
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.builtin import OLD_STAND_IN
from kalloctrace.kernel.logged import LoggedKernel, logged_kernel
from kalloctrace.kernel.nodelist import parse_nodelist
from kalloctrace.kernel.watermark_rules import KNOWN_WATERMARK_RULES, OLDEST_RULES, WatermarkRules
from kalloctrace.model.gfp import GFP_ZONEMASK
from kalloctrace.model.kernel import GFP_ZONE_TABLE, Kernel
from kalloctrace.model.slowpath.flags import Condition, mask_alloc_flags
from kalloctrace.model.slowpath.types import SlowKernel
from kalloctrace.model.watermark import FreeBlocks, Watermarks, ZoneState

PAGE_KB = 4
"""The page size of x86_64 in kB, if no list of free blocks shows it."""

NULL = "(null)"
"""How a log prints the nodemask of a request without one."""

_RECLAIMS = frozenset(
    (
        *("GFP_KERNEL", "GFP_KERNEL_ACCOUNT", "GFP_USER", "GFP_HIGHUSER", "GFP_HIGHUSER_MOVABLE", "GFP_TRANSHUGE"),
        *("GFP_NOFS", "GFP_NOIO", "GFP_TEMPORARY", "__GFP_RECLAIM", "__GFP_DIRECT_RECLAIM"),
    )
)
_DOES_NOT = frozenset(("GFP_ATOMIC", "GFP_NOWAIT", "GFP_TRANSHUGE_LIGHT"))

# Kernels before 5.8 have other numbers under these names. What the names from 4.6 on stand for is the same.
_OLD_TABLES = builtin_tables(OLD_STAND_IN)


@dataclass(frozen=True, slots=True)
class _Mask:
    """The gfp mask, as far as it can be read.

    Attributes:
        tables: the kernel's flags; None if unknown.
        value: `gfp_t`; None if unknown.
        names: the names in it; None if unknown.
        text: what is known of it, for people.
        modifiers: its zone modifiers; None if unknown.
        waits: __GFP_WAIT of old kernels is set; None if unknown.
        as_printed: the names of the printed number, if the printed names are other bits of the tables.
    """

    tables: FlagTables | None
    value: int | None
    names: frozenset[str] | None
    text: str
    modifiers: int | None = None
    waits: bool | None = None
    as_printed: str | None = None

    @property
    def bits(self) -> tuple[FlagTables, int] | None:
        """The tables and the value, if both are known."""
        return (self.tables, self.value) if self.tables is not None and self.value is not None else None


class NamedKernel(NamedTuple):
    """A kernel to judge by, instead of the one that the log names.

    Attributes:
        release: `uname -r`, or a release such as "5.10".
        version: `uname -v`; "" if unknown.
        tables: its flags; None if unknown, as for old releases.
    """

    release: str
    version: str
    tables: FlagTables | None


@dataclass(frozen=True)
class Failure:
    """A failure in a log, or a call of a trace, with its diagnosis.

    Attributes:
        logged: the report in the log; for a trace, what a log would say about the call.
        kernel: the release that it was judged by; "" if unknown.
        tables: that kernel's flags; None if unknown.
        rules: that kernel's watermark check.
        gfp_text: the names in the mask, as far as they are known.
        highest_zone: the highest zone that may serve the mask; None if unknown.
        attempt: the request of the decisive attempts.
        why: the diagnosis; None if the zones did not decide, or are unknown.
        missing: what the log lacks for a certain diagnosis.
        page_kb: the page size in kB.
        source: where the failure was recorded.
    """

    logged: LoggedFailure
    kernel: str
    tables: FlagTables | None
    rules: WatermarkRules
    gfp_text: str
    highest_zone: str | None
    attempt: AllocationAttempt
    why: Diagnosis | None
    missing: tuple[str, ...]
    page_kb: int
    source: Literal["log", "trace"] = "log"

    @property
    def certain(self) -> bool:
        """Whether the diagnosis is certain; lines that contradict each other may belong to two reports."""
        answered = self.why is not None and self.why.certain and not self.logged.contradictions
        return self.logged.memcg or answered

    @property
    def cause(self) -> tuple[object, ...]:
        """What failures with the same cause have in common: the request, its task, and the zones that refused it."""
        logged, diagnosis = self.logged, self.why
        request = (logged.event, logged.comm, logged.order, self.gfp_text, logged.memcg)
        if diagnosis is None:
            return (*request, self.missing[:1])
        passes = diagnosis.conclusion == "passes"
        zones = (
            (verdict.state.node, verdict.state.zone, "open" if verdict.kind in ("passes", "unknown") else verdict.kind)
            for verdict in diagnosis.zones
            if verdict.kind == "passes" or (verdict.kind != "excluded" and not passes)
        )
        return (*request, passes, *zones)

    @property
    def ignores_watermarks(self) -> bool:
        """Whether the decisive attempts checked no watermark."""
        return bool(self.attempt.alloc_flags & (self.tables or _OLD_TABLES).bits.alloc_no_watermarks)


def explain_failure(logged: LoggedFailure, kernel: NamedKernel | None = None) -> Failure:
    """Diagnose why a logged request failed.

    Args:
        logged: the report.
        kernel: the kernel to judge by; None for the one that the log names.
    """
    if kernel is not None:
        judged = logged_kernel(*kernel)
    elif logged.release is not None:
        judged = logged_kernel(logged.release.release, logged.release.version)
    else:
        judged = logged_kernel("", "")
    mask = _mask(logged, judged)
    layout = _layout(logged.zones)
    highest_zone = _highest_zone(mask, layout)
    highest = layout.index(highest_zone) if highest_zone is not None and layout is not None else None
    slow = _slow_kernel(judged)
    attempt = replace(_attempt(logged, mask, slow, judged.unsure), highest_zoneidx=highest)
    page_kb = next((zone.blocks[0].size for zone in logged.zones if zone.blocks), PAGE_KB)
    zones = _populated(logged.zones)
    states = [_state(zone, layout, page_kb, judged.absent_counters) for zone in zones if _is_shown(zone)]
    check = Watermarks(judged.watermarks, judged.snapshot.tables.bits)
    return Failure(
        logged=logged,
        kernel=judged.release,
        tables=judged.tables,
        rules=judged.watermarks,
        gfp_text=mask.text,
        highest_zone=highest_zone,
        attempt=attempt,
        why=None if logged.memcg or not states else judge_zones(check, attempt, states),
        missing=tuple(_missing(logged, judged.release, judged.watermarks, mask)),
        page_kb=page_kb,
    )


@lru_cache(maxsize=8)
def _slow_kernel(kernel: LoggedKernel) -> SlowKernel:
    return SlowKernel(Kernel.of(kernel.snapshot), kernel.slowpath)


def _mask(logged: LoggedFailure, kernel: LoggedKernel) -> _Mask:
    tables = kernel.tables
    value = logged.mask.value if logged.mask is not None else None
    printed = logged.mask.printed if logged.mask is not None else ()
    if tables is not None and value is not None:
        named = _as_named(value, printed, tables)
        decoded = decode_gfp(named, tables)
        return _Mask(
            tables,
            named,
            frozenset(decoded.names),
            decoded.text or "no flags",
            named & GFP_ZONEMASK,
            as_printed=None if named == value else decode_gfp(value, tables).text,
        )
    text = "|".join(printed) or ("" if value is None else f"{value:#x}")
    if printed or value == 0:
        return _Mask(tables, value, frozenset(printed), text, _OLD_TABLES.gfp_of(printed) & GFP_ZONEMASK)
    if value is None or not kernel.low_zone_modifiers:
        return _Mask(tables, value, None, text)
    waits = None if kernel.wait_bit is None else bool(value & kernel.wait_bit)
    return _Mask(tables, value, None, text, value & GFP_ZONEMASK, waits)


def _as_named(value: int, printed: tuple[str, ...], tables: FlagTables) -> int:
    """Return the mask in the bits of the tables: another configuration may have other bits under these names."""
    try:
        named = parse_flags("|".join(printed), tables) if printed else value
    except KalloctraceError:
        return value
    # A truncated line has only some of the names.
    return named if named & ~value else value


def _layout(zones: list[LoggedZone]) -> tuple[str, ...] | None:
    """Return the kernel's zones if the log leaves one possibility."""
    layouts = list(zone_layouts(zones))
    return layouts[0] if len(layouts) == 1 else None


def _highest_zone(mask: _Mask, layout: tuple[str, ...] | None) -> str | None:
    zone = GFP_ZONE_TABLE.get(mask.modifiers) if mask.modifiers is not None else None
    return "Normal" if zone is not None and layout is not None and zone not in layout else zone


def _attempt(logged: LoggedFailure, mask: _Mask, slow: SlowKernel, unsure: frozenset[str]) -> AllocationAttempt:
    order = max(logged.order, 0)
    attempt = AllocationAttempt(
        order=order,
        alloc_flags=0,
        highest_zoneidx=None,
        nodemask=_nodes(logged.nodemask),
        mems_allowed=_nodes(logged.mems_allowed),
    )
    names, tables, bits = mask.names, slow.kernel.tables, slow.bits
    if names is None:
        return replace(attempt, direct_reclaim=mask.waits, conditions=_conditions_without_names(slow, order, mask))
    value = tables.gfp_of(names) if mask.bits is None else mask.bits[1]
    flags, conditions = mask_alloc_flags(slow, value, order, unsure=unsure)
    reclaims: bool | None = bool(value & bits.gfp_direct_reclaim)
    if mask.bits is None:
        reclaims = True if names & _RECLAIMS else False if names & _DOES_NOT else None
    return replace(
        attempt,
        alloc_flags=flags,
        gfp_mask=value if mask.bits is not None else 0,
        direct_reclaim=reclaims,
        hardwall=bool(value & bits.gfp_hardwall),
        thisnode=bool(value & bits.gfp_thisnode),
        nomemalloc=bool(value & bits.gfp_nomemalloc),
        conditions=conditions,
    )


def _conditions_without_names(slow: SlowKernel, order: int, mask: _Mask) -> tuple[Condition, ...]:
    """Return what a mask may hold whose bits are not known, and what its task may be."""
    tables = slow.kernel.tables
    _, (realtime, *others) = mask_alloc_flags(slow, tables.gfp("__GFP_HIGH"), order)
    atomic, _ = mask_alloc_flags(slow, tables.gfp("GFP_ATOMIC"), order)
    first = realtime if mask.waits else Condition("atomic_mask", atomic)
    return (first, *others)


def _nodes(text: str | None) -> int | None:
    """Read a nodemask as printed; None if it is NULL or cannot be read."""
    if text is None or text == NULL:
        return None
    try:
        return parse_nodelist(text)
    except ValueError:
        return None


def _is_shown(zone: LoggedZone) -> bool:
    return all(name in zone.kilobytes for name in ("free", "min", "low", "high"))


def _populated(zones: Iterable[LoggedZone]) -> list[LoggedZone]:
    """Drop zones without pages: they are on no zonelist, but old kernels print them."""
    return [zone for zone in zones if zone.kilobytes.get("present") != 0]


def _state(zone: LoggedZone, layout: tuple[str, ...] | None, page_kb: int, absent: frozenset[str]) -> ZoneState:
    def pages(name: str) -> int | None:
        if name in absent:
            return 0
        return zone.kilobytes[name] // page_kb if name in zone.kilobytes else None

    files = [pages(name) for name in ("active_file", "inactive_file")]
    return ZoneState(
        node=zone.node,
        zone=zone.zone,
        index=layout.index(zone.zone) if layout is not None else None,
        free=pages("free") or 0,
        watermarks=(pages("min") or 0, pages("low") or 0, pages("high") or 0),
        boost=pages("boost"),
        reserved_highatomic=pages("reserved_highatomic"),
        free_highatomic=pages("free_highatomic"),
        free_cma=pages("free_cma"),
        lowmem_reserve=zone.lowmem_reserve if layout is not None or not any(zone.lowmem_reserve or ()) else None,
        managed=pages("managed"),
        blocks=tuple(FreeBlocks(block.number, block.types) for block in zone.blocks) if zone.blocks else None,
        reclaimable=sum(number for number in files if number is not None) if None not in files else None,
    )


def _missing(logged: LoggedFailure, kernel: str, rules: WatermarkRules, mask: _Mask) -> list[str]:
    if logged.memcg:
        return []
    missing = [] if kernel else ["the kernel's release (name it with --kernel)"]
    missing += _missing_of_mask(mask)
    zones = _populated(logged.zones)
    shown = [zone for zone in zones if _is_shown(zone)]
    if not shown:
        return [*missing, "the zones (the lines 'Node 0 Normal free:… min:… low:… high:…' after Mem-Info)"]
    missing += [f"the line of node {zone.node} {zone.zone}" for zone in zones if not _is_shown(zone)]
    missing += [f"the free blocks of node {zone.node} {zone.zone}" for zone in shown if zone.blocks is None]
    missing += [f"lowmem_reserve of node {zone.node} {zone.zone}" for zone in shown if zone.lowmem_reserve is None]
    if _layout(logged.zones) is None and all(zone.lowmem_reserve is not None for zone in shown):
        missing.append("which zones this kernel has, so which part of lowmem_reserve holds")
    if "__GFP_THISNODE" in (mask.names or ()) and len({zone.node for zone in shown}) > 1:
        missing.append("which node __GFP_THISNODE asked for")
    if not rules.known:
        missing.append(_unknown_rules(kernel, rules))
    return missing


def _missing_of_mask(mask: _Mask) -> Iterator[str]:
    if mask.value is None and mask.names is None:
        yield "the gfp mask"
    elif mask.modifiers is None:
        yield f"what the bits of mask {mask.value:#x} mean on this kernel, so which zones it may use"
    elif mask.names is None:
        yield f"what the bits of mask {mask.value:#x} mean on this kernel, but for those of the zones"
    if mask.as_printed is not None and mask.tables is not None:
        yield f"the flags' numbers on this kernel, so its names hold: {mask.tables.kernel}'s would be {mask.as_printed}"


def _unknown_rules(kernel: str, rules: WatermarkRules) -> str:
    whose = f"of {kernel}" if kernel else "of this kernel"
    if rules == OLDEST_RULES:
        return f"the watermark check {whose}: only what all kernels share is applied"
    return f"the watermark check {whose} in every detail: known are those from {KNOWN_WATERMARK_RULES}"
