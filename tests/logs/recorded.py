# SPDX-License-Identifier: MIT
"""A failed call of a recorded slow path, as the kernel that was recorded would have printed it."""

from collections.abc import Iterator, Mapping
from typing import Any

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.kernel.snapshot import Snapshot

LETTERS = {
    "MIGRATE_UNMOVABLE": "U",
    "MIGRATE_MOVABLE": "M",
    "MIGRATE_RECLAIMABLE": "E",
    "MIGRATE_HIGHATOMIC": "H",
    "MIGRATE_CMA": "C",
    "MIGRATE_ISOLATE": "I",
}
"""Of `show_migration_types`."""

Row = Mapping[str, Any]


def printed(snapshot: Snapshot, call: Row) -> Iterator[str]:
    """Yield the lines of `warn_alloc` and `show_free_areas`, with the zones as they were when the call returned.

    Args:
        snapshot: the kernel that was recorded.
        call: a call that returned no page.
    """
    tables, given = snapshot.tables, call["given"]
    names = decode_gfp(given["gfp_mask"], tables).text
    nodemask = given["ac_nodemask_nodes"] or "(null)"
    yield (
        f"{call['comm']}: page allocation failure: order:{given['order']}, mode:{given['gfp_mask']:#x}({names}), "
        f"nodemask={nodemask},cpuset=/,mems_allowed={given['mems_allowed'] or '0'}"
    )
    uid = " UID: 0" if snapshot.release.startswith(("6.12", "7")) else ""
    task = f"CPU: {call['cpu']}{uid} PID: {call['tid']} Comm: {call['comm']}"
    yield f"{task} Not tainted {snapshot.release} {snapshot.version}"
    yield "Mem-Info:"
    zones = [zone for zone in call["zones"] if zone["at"] == "returns"]
    for zone in zones:
        yield f"Node {zone['node']} {tables.zone_name(zone['zone'])} {_counters(snapshot, zone)}"
        yield f"lowmem_reserve[]: {' '.join(str(pages) for pages in zone['lowmem_reserve'])}"
    for zone in zones:
        yield f"Node {zone['node']} {tables.zone_name(zone['zone'])}: {_blocks(snapshot, zone)}"


def _counters(snapshot: Snapshot, zone: Row) -> str:
    boosted = not snapshot.release.startswith("5.10")
    boost = zone["boost"]
    free_highatomic = zone["free_highatomic"] if snapshot.release.startswith("7") else None
    fields = {
        "free": zone["free"],
        **({"boost": boost} if boosted else {}),
        **{mark: zone[mark] + boost for mark in ("min", "low", "high")},
    }
    text = " ".join(f"{name}:{4 * pages}kB" for name, pages in fields.items())
    text += f" reserved_highatomic:{4 * zone['reserved_highatomic']}KB"
    text += "" if free_highatomic is None else f" free_highatomic:{4 * free_highatomic}KB"
    return f"{text} managed:{4 * zone['managed']}kB free_pcp:0kB local_pcp:0kB free_cma:{4 * zone['free_cma']}kB"


def _blocks(snapshot: Snapshot, zone: Row) -> str:
    text = ""
    for order, (number, types) in enumerate(zip(zone["free_blocks"], zone["free_types"], strict=True)):
        names = [snapshot.tables.migratetype_name(bit) for bit in range(types.bit_length()) if types >> bit & 1]
        letters = f"({''.join(letter for name, letter in LETTERS.items() if name in names)}) " if number else ""
        text += f"{number}*{4 << order}kB {letters}"
    total = sum(number << order for order, number in enumerate(zone["free_blocks"]))
    return f"{text}= {4 * total}kB"
