# SPDX-License-Identifier: MIT
"""What a report shows besides the verdicts on its zones, each with its certainty."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from kalloctrace.diagnose.from_log import Certainty, Failure
from kalloctrace.diagnose.kinds import nothing_given, older_state, policy_binds
from kalloctrace.diagnose.states import populated
from kalloctrace.diagnose.zones import ZoneVerdict
from kalloctrace.flags.releases import Release, upstream_release
from kalloctrace.model.slowpath.attempts import PAGE_ALLOC_COSTLY_ORDER
from kalloctrace.model.watermark import HIGHATOMIC
from kalloctrace.text import many

FindingKind = Literal[
    "assumed_release",
    "nothing_given",
    "older_state",
    "bound",
    "no_reclaim",
    "other_layout",
    "boot_mask",
    "not_given_up",
    "counter",
    "highatomic",
    "limited",
]
"""In this order:

the kernel is named only after the report; no page has been given to the allocator yet; the state is an older failure's;
a policy, cpuset or nodemask leaves some nodes only; the mask can neither wait nor wake kswapd; it is one of another
kernel's; early in boot the kernel took these bits away; by rule the kernel does not give up such a request; the free
pages counted contradict the list; pages counted as reserved for high-order atomic requests are in use; a rate limit
that does not tell whose messages they were suppressed some right before.
"""


class Finding(NamedTuple):
    """One fact, as a sentence without a full stop."""

    kind: FindingKind
    certainty: Certainty
    text: str


def findings_of(failure: Failure) -> tuple[Finding, ...]:
    """Return what the report shows besides its zones' verdicts, the most important first."""
    if failure.source != "log" or failure.conclusion in _NOT_OF_ZONES:
        return ()
    return tuple(found for find in _FINDERS for found in find(failure))


_NOT_OF_ZONES = (
    *("memcg", "address_range", "size_refused", "contiguous_range"),
    *("order_too_large", "nofail", "no_request"),
)


def _assumed_release(failure: Failure) -> Iterator[Finding]:
    release, line = failure.logged.release, failure.logged.release_line
    if release is not None and line is not None and release.release == failure.kernel:
        text = f"the log names the kernel {release.release} only later (line {line}), within the same boot"
        yield Finding("assumed_release", "likely", text)


def _nothing_given(failure: Failure) -> Iterator[Finding]:
    if not nothing_given(failure.logged):
        return
    zones = populated(failure.logged.zones)
    managed = sum(zone.kilobytes.get("managed", 0) for zone in zones)
    counted = f", though {managed:,} kB are managed" if managed else ""
    text = f"no page has been given to the page allocator yet{counted}: this is early in boot"
    yield Finding("nothing_given", "certain" if managed else "likely", text)


def _older_state(failure: Failure) -> Iterator[Finding]:
    if older_state(failure.logged):
        earlier = -1000 * (failure.logged.state_age or 0)
        text = (
            f"the zones that follow are {earlier:,.0f} ms older than the failure, so they are another, older failure's"
        )
        yield Finding("older_state", "likely", f"{text}; this one shows none")


def _bound(failure: Failure) -> Iterator[Finding]:
    """Name what binds the request to some nodes.

    Source: `constrained_alloc`, mm/oom_kill.c of Linux 2.6.32 to 7.3.
    """
    logged = failure.logged
    if policy_binds(logged) and failure.attempt.nodemask is not None:
        yield Finding("bound", "certain", f"its memory policy binds it to node {logged.nodemask}")
    elif logged.constraint == "cpuset" and logged.mems_allowed is not None:
        name = f" {logged.cpuset}" if logged.cpuset else ""
        yield Finding("bound", "certain", f"its cpuset{name} binds it to node {logged.mems_allowed}")
    elif failure.attempt.nodemask is not None and logged.event != "oom" and leaves_out_nodes(failure):
        who = "a memory policy or the caller"
        yield Finding("bound", "certain", f"{who} binds it to node {logged.nodemask} (its nodemask)")


def leaves_out_nodes(failure: Failure) -> bool:
    """Return whether the log shows nodes that the request's nodemask leaves out."""
    shown = {*(zone.node for zone in failure.logged.zones), *failure.logged.nodes}
    nodemask = failure.attempt.nodemask or 0
    return bool((failure.attempt.mems_allowed or 0) & ~nodemask) or any(not nodemask >> node & 1 for node in shown)


_RECLAIM = ("__GFP_DIRECT_RECLAIM", "__GFP_KSWAPD_RECLAIM")
_SINCE_4_4 = Release(4, 4, 0)
_OTHER_MASKS = (
    (0xD0, "GFP_KERNEL", "kernels up to 4.3"),
    (0x24000C0, "GFP_KERNEL", "kernels 4.4 to 4.9"),
    (0x14000C0, "GFP_KERNEL", "kernels 4.10 to 4.17"),
    (0x6000C0, "GFP_KERNEL", "kernels 4.18 to 5.0"),
    (0x50, "GFP_NOFS", "kernels up to 4.3"),
    (0x2400040, "GFP_NOFS", "kernels 4.4 to 4.9"),
    (0x1400040, "GFP_NOFS", "kernels 4.10 to 4.17"),
    (0x600040, "GFP_NOFS", "kernels 4.18 to 5.0"),
)
"""What a mask was on other kernels, include/linux/gfp.h; the first that fits holds."""


def _no_reclaim(failure: Failure) -> Iterator[Finding]:
    """Name a mask that can neither wait nor wake kswapd.

    Since 4.4 two bits say so. Early in boot `gfp_allowed_mask` is GFP_BOOT_MASK, which takes these two and __GFP_IO and
    __GFP_FS away from each mask: include/linux/gfp.h and init/main.c of Linux 4.4 to 7.3.
    """
    mask, release = failure.mask, upstream_release(failure.kernel)
    if mask is None or mask.names is None or release is None or release < _SINCE_4_4 or mask.has(*_RECLAIM):
        return
    boots = nothing_given(failure.logged) or (failure.logged.pid == 0 and failure.logged.comm == "swapper")
    if boots and not mask.has("__GFP_IO", "__GFP_FS"):
        why = "early in boot the kernel takes the reclaim bits away from every mask (gfp_allowed_mask)"
        certainty: Certainty = "certain" if nothing_given(failure.logged) else "likely"
        yield Finding("boot_mask", certainty, f"{why}, so this one does not show what the caller asked for")
        return
    text = "its mask has no reclaim bit: it can neither wait for memory nor wake kswapd"
    yield Finding("no_reclaim", "certain", f"{text}, so it may fail while memory could be had")
    value = mask.value or 0
    for theirs, name, kernels in _OTHER_MASKS:
        if value & theirs == theirs:
            text = f"{theirs:#x} was {name} on {kernels}: the caller is a module built for such a kernel"
            yield Finding("other_layout", "likely", text)
            return


_SINCE_4_13 = Release(4, 13, 0)
_GIVES_UP = ("__GFP_NORETRY", "__GFP_RETRY_MAYFAIL", "__GFP_THISNODE")


def _not_given_up(failure: Failure) -> Iterator[Finding]:
    """Name the exits of a request that the kernel does not give up by rule.

    Source: `__alloc_pages_slowpath` and `__alloc_pages_may_oom`, mm/page_alloc.c of Linux 4.13 to 7.3; see
    `kalloctrace.model.slowpath.state_machine`.
    """
    logged, mask, release = failure.logged, failure.mask, upstream_release(failure.kernel)
    if mask is None or release is None or release < _SINCE_4_13 or logged.event != "failure":
        return
    low = failure.highest_zone in ("DMA", "DMA32", None)
    if logged.order > PAGE_ALLOC_COSTLY_ORDER or not mask.direct_reclaim or low or mask.has(*_GIVES_UP):
        return
    rule = "by rule the kernel does not give up such a request (order 3 or less, it may reclaim and retry)"
    if logged.comm.startswith("kswapd") and logged.comm[len("kswapd") :].isdigit():
        yield Finding(
            "not_given_up", "certain", f"{rule}; but kswapd frees memory itself (PF_MEMALLOC) and does not wait"
        )
        return
    exits = "is an OOM victim, frees memory itself (PF_MEMALLOC) or dumps core (PF_DUMPCORE), or the OOM killer is off"
    yield Finding("not_given_up", "certain", f"{rule}, so it failed because its task {exits}")


def _counter(failure: Failure) -> Iterator[Finding]:
    """Compare the free pages that were counted with the list of free blocks.

    NR_FREE_PAGES, which the check reads, leaves out isolated pageblocks, and is printed as 0 if it is negative
    (`global_zone_page_state`); the list counts every block. Source: `show_free_areas` in mm/page_alloc.c (mm/show_mem.c
    since 6.5) and mm/page_isolation.c of Linux 3.18 to 7.3.
    """
    for verdict in failure.why.zones if failure.why is not None else ():
        state, check = verdict.state, verdict.check
        if verdict.kind != "watermark" or check is None or state.blocks is None:
            continue
        listed = sum(one.count << order for order, one in enumerate(state.blocks))
        kept = check.order_pages + check.highatomic.high + check.cma.high
        if state.free >= listed or listed - kept <= check.needed.high:
            continue
        isolated = sum(_at_most(one.count, one.types, "MIGRATE_ISOLATE") << at for at, one in enumerate(state.blocks))
        counted = f"{_kb(failure, state.free)} free are counted, which is what the check reads"
        text = f"node {state.node} {state.zone}: {counted}, but the free blocks add up to {_kb(failure, listed)}"
        if isolated >= listed - state.free:
            text += "; isolated blocks (I), which are not counted, may be all of the difference"
        elif isolated:
            text += f"; isolated blocks (I) explain at most {_kb(failure, isolated)} of it"
        if isolated < listed - state.free:
            text += ": the counter is wrong or the list is newer"
        yield Finding("counter", "certain", text)


def _at_most(count: int, types: frozenset[str] | None, migratetype: str) -> int:
    """Return how many of the blocks of an order may be of a type; each other type that is named has at least one."""
    if types is None or migratetype not in types:
        return 0
    return max(count - len(types) + 1, 0)


def _highatomic(failure: Failure) -> Iterator[Finding]:
    """Name zones that were refused for pages reserved for high-order atomic requests that are not free at all.

    The check subtracts `nr_reserved_highatomic`, free or not, up to c928807f6f6b ("mm/page_alloc: keep track of free
    highatomic") (in v6.13).
    """
    for verdict in failure.why.zones if failure.why is not None else ():
        over = _overestimate(failure, verdict)
        if over:
            state = verdict.state
            kept = f"{_kb(failure, over)} that the check keeps for high-order atomic requests"
            text = f"node {state.node} {state.zone}: {kept} are not free; without them it would have had enough pages"
            yield Finding("highatomic", "certain", text)


def _overestimate(failure: Failure, verdict: ZoneVerdict) -> int:
    """Return how many of the reserved pages are in use, if that decided; else 0."""
    state, check = verdict.state, verdict.check
    if check is None or verdict.kind != "watermark" or failure.rules.highatomic != "reserved" or state.blocks is None:
        return 0
    free = sum(_at_most(one.count, one.types, HIGHATOMIC) << order for order, one in enumerate(state.blocks))
    if any(one.count and one.types is None for one in state.blocks):
        return 0
    over = check.highatomic.low - free
    return over if over > 0 and check.usable.low + over > check.needed.high else 0


def _limited(failure: Failure) -> Iterator[Finding]:
    """Name messages that were suppressed by a rate limit which does not tell whose they were."""
    if failure.logged.limited:
        text = f"a rate limit of the whole kernel suppressed {many(failure.logged.limited, 'message')} before it"
        yield Finding("limited", "certain", f"{text}, and failures like this one may be among them")


def _kb(failure: Failure, pages: int) -> str:
    return f"{pages * failure.page_kb:,} kB"


_FINDERS = (
    *(_assumed_release, _nothing_given, _older_state, _bound, _no_reclaim, _counter, _highatomic, _not_given_up),
    _limited,
)
