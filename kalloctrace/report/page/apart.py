# SPDX-License-Identifier: MIT
"""What tells requests apart that a page shows with the same gfp mask, order and node."""

import numpy as np
import pyarrow as pa

from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.verify.field_text import value_text

_SHOWN = ("gfp_mask", "order", "preferred_nid")
_NAMES = {"page": "page returned"}
_HEXADECIMAL = ("task_flags", "preempt_count", "gfp_allowed_mask", "entry_alloc_flags", "prepare_alloc_flags")


def what_differs(allocations: pa.StructArray, snapshot: Snapshot) -> dict[int, str]:
    """Return, for each allocation with a twin, its values of the columns in which the twins differ.

    Args:
        allocations: distinct ones.
        snapshot: the kernel that was recorded, for the names of values.
    """
    encoded = {
        field.name: column.dictionary_encode(null_encoding="encode")
        for field, column in zip(allocations.type, allocations.flatten(), strict=True)
    }
    codes = {name: column.indices.to_numpy() for name, column in encoded.items()}
    if not len(allocations):
        return {}
    shown = np.stack([codes[name] for name in _SHOWN])
    _, twins, sizes = np.unique(shown, axis=1, return_inverse=True, return_counts=True)
    twins = twins.reshape(-1)
    texts: list[list[str]] = [[] for _ in range(len(allocations))]
    for name, of in codes.items():
        low, high = np.full(len(sizes), len(allocations)), np.full(len(sizes), -1)
        np.minimum.at(low, twins, of)
        np.maximum.at(high, twins, of)
        words = [
            f"{_NAMES.get(name, name)} {_text(name, value, snapshot)}" for value in encoded[name].dictionary.to_pylist()
        ]
        for number in np.flatnonzero((low < high)[twins]).tolist():
            texts[number].append(words[of[number]])
    return {number: "; ".join(parts) for number, parts in enumerate(texts) if parts}


def _text(name: str, value: object, snapshot: Snapshot) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        if name == "preferred_zone" and value >= 0:
            return snapshot.tables.zone_name(value)
        if name == "migratetype":
            return snapshot.tables.migratetype_name(value).removeprefix("MIGRATE_")
        if name in _HEXADECIMAL:
            return f"{value:#x}"
    return value_text(name, value, snapshot.tables)
