# SPDX-License-Identifier: MIT
"""The audit of a recording by one probe: what the pair saw beside it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

_MOST_FIELDS = 4
"""How many of the fields that differ are named in text."""


@dataclass(frozen=True)
class Audited:
    """How often both attachments saw each call, while both were attached.

    Attributes:
        windows: how many times both were compared.
        seconds: the length of these together.
        one: calls that one probe counted.
        pair: calls that the pair counted.
        differing: the sum, over all different calls, of how much the two counts differ.
        edges: how many of these may be calls that one of the two saw just outside a window: one for each CPU and edge.
        missed: hits of either that the kernel skipped meanwhile.
        unpaired: calls whose entry the pair did not see, such as those that were in it when the pair was attached.
        full: calls for which a map of the audit had no room.
        fields: by field, the sum over its values of how much the counts differ; without those that do not.
        failure: why the audit, or a part of it, was not made; empty if nothing failed.
    """

    windows: int = 0
    seconds: float = 0.0
    one: int = 0
    pair: int = 0
    differing: int = 0
    edges: int = 0
    missed: int = 0
    unpaired: int = 0
    full: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    failure: str = ""

    @property
    def explained(self) -> int:
        """Return how many calls may differ although one probe saw what the pair saw."""
        return self.edges + self.missed + self.unpaired + self.full

    @property
    def differs(self) -> bool:
        """Return whether more calls differ than the windows' edges and the counted misses explain."""
        return self.differing > self.explained

    def to_json(self) -> dict[str, Any]:
        """Return the audit as JSON values."""
        return {**asdict(self), "differs": self.differs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build it from what `to_json` returned; unknown keys, from a newer writer, are ignored."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})


def audit_json(audited: Audited | None) -> dict[str, Any] | None:
    """Return the audit as JSON values that several commands print; None if there was none."""
    return None if audited is None else audited.to_json()


def audit_lines(audited: Audited | None) -> Iterator[str]:
    """Yield what the audit of a recording found, for people.

    Args:
        audited: of the recording; None if there was none.
    """
    if audited is None:
        return
    if audited.windows:
        yield _found(audited)
    if audited.failure:
        yield f"{'a part was' if audited.windows else ''} not made: {audited.failure}".strip()


def _found(audited: Audited) -> str:
    where = f"in {audited.windows} window{'s' * (audited.windows != 1)}, {audited.seconds:.1f} s together"
    if not audited.differing:
        return f"one probe and the pair saw the same {audited.one:,} calls {where}"
    explained = ", ".join(
        f"{count:,} {what}"
        for count, what in (
            (audited.edges, "at the windows' edges"),
            (audited.missed, "missed hits"),
            (audited.unpaired, "whose entry the pair did not see"),
            (audited.full, "without room"),
        )
        if count
    )
    saw = f"{audited.one:,} calls of one probe, {audited.pair:,} of the pair {where}: {audited.differing:,} differ"
    if not audited.differs:
        return f"{saw}, no more than may be explained ({explained})"
    most = sorted(audited.fields.items(), key=lambda item: -item[1])[:_MOST_FIELDS]
    named = ", ".join(f"{name} {count:,}" for name, count in most) or "no field alone"
    return f"DIFFERS: {saw}, more than may be explained ({explained or 'none'}); by field: {named}"
