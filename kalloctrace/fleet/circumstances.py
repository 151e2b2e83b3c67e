# SPDX-License-Identifier: MIT
"""What a verdict depends on besides the request: the facts about the machine, and what the whole recording shows.

Machines that differ only in what the model does not read, such as the size of a zone, share their verdicts.
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from kalloctrace.console import json_text
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.trace.inferred import Inferred
from kalloctrace.verify.compare import Switches
from kalloctrace.verify.events import EventJudge
from kalloctrace.verify.verification import Judge


def facts_json(snapshot: Snapshot) -> str:
    """Return what the model reads of a kernel and machine, as text: of a zone's size, whether it is 0."""
    facts = snapshot.to_json()
    del facts["evidence"]
    for node in facts["machine"]["nodes"]:
        for zone in node["zones"]:
            zone["present_pages"] = min(zone["present_pages"], 1)
    return json_text(facts)


def machine_kind(snapshot: Snapshot) -> str:
    """Return the populated zones of each node, such as "node 0: DMA+DMA32+Normal; node 1: Normal"."""
    tables = snapshot.tables
    named = {index for _, index in tables.zone_type}
    nodes = (
        (
            node.nid,
            "+".join(tables.zone_name(z.index) if z.index in named else "?" for z in node.zones if z.present_pages),
        )
        for node in snapshot.machine.nodes
    )
    return "; ".join(f"node {nid}: {zones or 'no memory'}" for nid, zones in nodes) or "no nodes"


def circumstances_json(judge: Judge) -> str:
    """Return what a recording shows to its judge, as text; `judge_of` reads it."""
    switches = judge.switches
    return json.dumps(
        {
            "cpusets_enabled": sorted(switches.cpusets_enabled),
            "gfp_allowed_mask": sorted(switches.gfp_allowed_mask),
            "defrag_mode": sorted(switches.defrag_mode),
            "may_miss": judge.may_miss,
            "may_miss_freelist": judge.may_miss_freelist,
            "machine_changed": list(judge.machine_changed),
            "grouped": judge.events.grouped,
            "inferred": sorted(judge.inferred),
        },
        sort_keys=True,
    )


def judge_of(snapshot: Snapshot, circumstances: str) -> Judge:
    """Return the judge of recordings.

    Args:
        snapshot: a kernel and machine with the same facts.
        circumstances: what `circumstances_json` returned.
    """
    kernel = Kernel.of(snapshot)
    shown: Mapping[str, Any] = json.loads(circumstances)
    return Judge(
        kernel,
        Switches(
            cpusets_enabled=frozenset(shown["cpusets_enabled"]),
            gfp_allowed_mask=frozenset(shown["gfp_allowed_mask"]),
            defrag_mode=frozenset(shown["defrag_mode"]),
        ),
        may_miss=shown["may_miss"],
        may_miss_freelist=shown["may_miss_freelist"],
        machine_changed=tuple(shown["machine_changed"]),
        events=EventJudge(kernel, grouped=shown["grouped"]),
        inferred=cast("frozenset[Inferred]", frozenset(shown["inferred"])),
    )
