# SPDX-License-Identifier: MIT
"""The JSON in a trace's metadata: its snapshot, how it was recorded, and its totals. Checked before it is used."""

from collections.abc import Mapping
from typing import Any

from kalloctrace.kernel.shapes import (
    U31,
    U53,
    Shape,
    array,
    boolean,
    choice,
    integer,
    mapping,
    number,
    number_text,
    optional,
    parse_json,
    plain,
    record,
    text,
)
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.inferred import INFERRED
from kalloctrace.trace.schema import COUNTED_BY, MOST_STACK
from kalloctrace.trace.totals import Totals

_MOST_BYTES = 16 << 20
"""Complete zonelists of 400 nodes; those of two nodes have 5 KB."""
_COUNT = integer(0, U53)
_FOREVER = 4e9
"""Seconds: a hundred years, and below what times in 64 bits hold."""

_FILTERS: Mapping[str, Shape] = {
    **dict.fromkeys(("gfp_any", "gfp_all", "gfp_none", "alloc_flags"), optional(integer())),
    **dict.fromkeys(("sample", "max_rate"), optional(integer(1, U53))),
}
_RECORDING = record(
    {
        "id": text(64),
        "host": text(256),
        "build_id": optional(text(256)),
        "mode": text(64),
        "command": optional(array(text(1 << 20), 1 << 16)),
        "started": text(256),
        "started_monotonic": number(0, _FOREVER),
        "pid": optional(integer(0, U31)),
        "attached": optional(array(text(256), 256)),
        "filters": optional(record(_FILTERS, later=_FILTERS)),
        "stacks": boolean,
        "slow": boolean,
        "cgroups": optional(choice("v1", "v2")),
        "by": optional(choice(*COUNTED_BY)),
        "cpus": optional(integer(0, 1 << 16)),
        "attach": text(64),
        # A fact that this version does not know would be judged against itself, so it needs a new format.
        "inferred": array(choice(*INFERRED), len(INFERRED)),
        "filters_inferred": array(text(64), 64),
        "pseudonymous": boolean,
    },
    later=(
        *("mode", "command", "started", "started_monotonic", "pid", "attached", "filters", "stacks", "slow", "cpus"),
        *("id", "host", "build_id", "attach", "inferred", "filters_inferred", "pseudonymous", "cgroups", "by"),
    ),
)

_AUDIT = record(
    {
        **dict.fromkeys(("windows", "one", "pair", "differing", "edges", "missed", "unpaired", "full"), _COUNT),
        "seconds": number(0, _FOREVER),
        "failure": text(4096),
    }
)
_EXAMPLE = record(
    {
        **dict.fromkeys(("duration", "time", "order"), _COUNT),
        "comm": text(256),
        "stack": optional(text(MOST_STACK)),
    }
)
_SPLIT = record(
    {
        "calls": _COUNT,
        "parts": mapping(text(32), optional(_COUNT), 64),
        "log2": mapping(number_text(63), _COUNT, 64),
        "examples": mapping(number_text(63), _EXAMPLE, 64),
    }
)
_TOTALS = record(
    {
        **dict.fromkeys(("opened", "submitted", "dropped", "no_room", "replaced", "running"), _COUNT),
        **dict.fromkeys(("freelist_alone", "return_alone", "missed"), _COUNT),
        "machine_changed": array(text(256), 256),
        "reason": text(4096),
        "seconds": number(0, _FOREVER),
        **dict.fromkeys(("missed_freelist", "slow", "slow_failed"), optional(_COUNT)),
        **dict.fromkeys(("names_dropped", "slow_running", "slow_alone", "slow_lost", "slow_missed"), _COUNT),
        "slow_split": optional(_SPLIT),
        "zones_dropped": _COUNT,
        **dict.fromkeys(("own", "filtered", "rejected", "dropped_by_flags", "bpf_calls"), optional(_COUNT)),
        "missed_by": optional(record(dict.fromkeys(("kprobe", "program", "memory"), _COUNT))),
        "audit": optional(_AUDIT),
    },
    later=(
        *("missed_freelist", "slow", "slow_failed", "names_dropped", "slow_running", "slow_alone", "slow_lost"),
        *("slow_missed", "zones_dropped", "own", "filtered", "rejected", "dropped_by_flags", "bpf_calls", "missed_by"),
        *("audit", "slow_split"),
    ),
)


def snapshot_of(data: bytes) -> Snapshot:
    """Return the snapshot of a trace.

    Raises:
        ValueError: it is damaged.
    """
    return Snapshot.from_json(parse_json(data, _MOST_BYTES))


def recording_of(data: bytes) -> dict[str, Any]:
    """Return how a trace was recorded.

    Raises:
        ValueError: it is damaged.
    """
    recording = parse_json(data, _MOST_BYTES)
    _RECORDING(recording, "")
    plain(recording, "it")
    return dict(recording)


def totals_of(data: bytes) -> Totals:
    """Return the totals of a trace.

    Raises:
        ValueError: they are damaged.
    """
    totals = parse_json(data, _MOST_BYTES)
    _TOTALS(totals, "")
    return Totals.from_json(totals)
