# SPDX-License-Identifier: MIT
"""The fields of groups: their values in calls and in calls of the slow path, as JSON and as text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kalloctrace.flags.decode import decode_alloc, decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.query.question import Field
from kalloctrace.trace.containers import Containers, describe_group, group_text
from kalloctrace.trace.results import OUTCOMES
from kalloctrace.trace.schema import frames_of
from kalloctrace.verify.slowpath.fast_path import fast_path_alloc_flags, from_entry

Value = int | str | None
Row = Mapping[str, Any]

OF_ALLOCATION: Mapping[str, str] = {
    "gfp": "gfp_mask",
    "order": "order",
    "node": "preferred_node",
    "zone": "preferred_zone",
    "migratetype": "migratetype",
    "alloc_flags": "alloc_flags",
}
"""Fields that calls of one distinct allocation share, and their column in a trace."""
OF_TASK = frozenset(("comm", "pid", "cgroup", "cpu", "stack"))
"""Fields that are columns of a stream."""


class SlowCallValues:
    """The values of a call of the slow path.

    Args:
        call: with the columns of SLOW.
        gfp_mask: the mask that the page allocator's caller passed.
        kernel: the recorded kernel.
    """

    def __init__(self, call: Row, gfp_mask: int, kernel: Kernel) -> None:
        self.call = call
        self.gfp_mask = gfp_mask
        self._kernel = kernel

    def of(self, field: Field) -> Value:
        """Return the value of a field."""
        if field == "gfp":
            return self.gfp_mask
        if field == "outcome":
            return OUTCOMES[self.call["page"]]
        if field == "stack":
            return from_entry(self._kernel.features.entry, self.call["stack"])
        if field == "alloc_flags":
            return fast_path_alloc_flags(self._kernel, self.call)
        value: Value = self.call[field] if field in OF_TASK else self.call["given"][OF_ALLOCATION[field]]
        return value


def as_json(by: Sequence[Field], key: Sequence[Value], snapshot: Snapshot, containers: Containers) -> dict[str, Any]:
    """Return the values of a group as JSON values; masks and types have their number and their names.

    Args:
        by: the fields.
        key: their values.
        snapshot: the recorded kernel.
        containers: the names of containers that were recorded.
    """
    members: dict[str, Any] = {}
    for field, value in zip(by, key, strict=True):
        if field == "cgroup" and isinstance(value, str):
            members |= describe_group(value, containers)
        else:
            members |= _JSON.get(field, lambda value, _, name=field: {name: value})(value, snapshot)
    return members


def as_text(field: Field, value: Value, snapshot: Snapshot, containers: Containers) -> str:
    """Return a value as text for people; the arguments are those of `as_json`."""
    if value is None and field != "gfp":
        return "none"
    if field == "cgroup":
        return group_text(str(value), containers)
    return _TEXT[field](value, snapshot) if field in _TEXT else str(value)


def _gfp(value: Any, snapshot: Snapshot) -> str:  # noqa: ANN401 (a column's value)
    return decode_gfp(value, snapshot.tables).text


def _alloc(value: Any, snapshot: Snapshot) -> str:  # noqa: ANN401 (likewise)
    return decode_alloc(value, snapshot.tables).text


def _migratetype(value: Any, snapshot: Snapshot) -> str:  # noqa: ANN401 (likewise)
    return snapshot.tables.migratetype_name(value)


def _zone(value: Any, snapshot: Snapshot) -> str | None:  # noqa: ANN401 (likewise)
    return None if value is None else "?" if value < 0 else snapshot.tables.zone_name(value)


_TEXT: Mapping[str, Callable[[Any, Snapshot], str]] = {
    "gfp": lambda value, kernel: f"{value:#x} {_gfp(value, kernel)}".rstrip(),
    "alloc_flags": lambda value, kernel: f"{value:#x} {_alloc(value, kernel)}".rstrip(),
    "migratetype": _migratetype,
    "zone": lambda value, kernel: _zone(value, kernel) or "none",
    "stack": lambda value, _: " ← ".join(frames_of(value)),
}
_JSON: Mapping[str, Callable[[Any, Snapshot], dict[str, Any]]] = {
    "gfp": lambda value, kernel: {"gfp_mask": value, "gfp": _gfp(value, kernel)},
    "zone": lambda value, kernel: {"zone": _zone(value, kernel)},
    "migratetype": lambda value, kernel: {
        "migratetype": value,
        "migratetype_name": None if value is None else _migratetype(value, kernel),
    },
    "alloc_flags": lambda value, kernel: {
        "alloc_flags": value,
        "alloc_flags_text": None if value is None else _alloc(value, kernel),
    },
    "stack": lambda value, _: {"stack": None if value is None else frames_of(value)},
}
