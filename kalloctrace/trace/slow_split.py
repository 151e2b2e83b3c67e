# SPDX-License-Identifier: MIT
"""What the calls of the slow path spent their time with: the parts of each call's time, and their sums."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kalloctrace.text import share

PARTS: Mapping[str, str] = {
    "reclaim": "direct reclaim",
    "compaction": "direct compaction",
    "oom": "out_of_memory(): the OOM killer",
    "throttle": "asleep in direct reclaim, until others have written or reclaimed pages: throttle_direct_reclaim(), "
    "reclaim_throttle() (before 5.16 congestion_wait() and wait_iff_congested())",
    "lock": "waiting for a contended lock; null where the kernel has no contention events (before 5.19)",
    "rest": "everything else: looking for pages, waiting for a processor",
}
"""The parts of a call's time, each with what it is; their sum is the call's time. The names are columns of SLOW."""


def parts_of(call: Mapping[str, Any]) -> dict[str, int | None] | None:
    """Return the parts of a call's time in ns; None if its return was not captured, or if its trace has no parts.

    Args:
        call: a call with the columns of SLOW.
    """
    return None if call["rest"] is None else {name: call[name] for name in PARTS}


def added(parts: Mapping[str, int | None], more: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return the sums of parts; a part is None only where it is in both."""
    return {name: more[name] if ns is None else ns + (more[name] or 0) for name, ns in parts.items()}


def parts_json(parts: Mapping[str, int | None]) -> dict[str, int | None]:
    """Return parts in ns as JSON values."""
    return {f"{name}_ns": ns for name, ns in parts.items()}


_LEAST = 0.005
"""A part with a smaller share is not worth a word."""


def spent_with(parts: Mapping[str, int | None]) -> str:
    """Return the shares of parts (ns), the largest first; the smallest are left out."""
    total = sum(ns or 0 for ns in parts.values())
    if not total:
        return "not recorded"
    shares = sorted(((ns or 0, name) for name, ns in parts.items()), reverse=True)
    return ", ".join(f"{name} {share(ns, total)}" for ns, name in shares if ns >= _LEAST * total)


@dataclass(frozen=True)
class SlowSplit:
    """The time of calls of the slow path, by what it was spent with and how long a call took.

    Calls whose return was not captured are left out, and so are those of traces without parts.

    Attributes:
        calls: how many calls.
        parts: ns by part; None for one that the kernel does not show.
        log2: calls by the power of two of their time: those of n took 2^n ns or more, and less than 2^(n+1).
        examples: by that power, the call that took longest: `duration`, `time`, `comm`, `order` and `stack`.
    """

    calls: int = 0
    parts: Mapping[str, int | None] = field(default_factory=lambda: dict.fromkeys(PARTS))
    log2: Mapping[int, int] = field(default_factory=dict)
    examples: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Return the time of all calls, ns."""
        return sum(ns or 0 for ns in self.parts.values())

    def plus(self, calls: Iterable[Mapping[str, Any]]) -> Self:
        """Return the sums with more calls, each with all columns of SLOW."""
        count, parts, log2, examples = self.calls, dict(self.parts), dict(self.log2), dict(self.examples)
        for call in calls:
            spent = parts_of(call)
            if spent is None:
                continue
            count += 1
            parts = added(parts, spent)
            power = power_of(call["duration"])
            log2[power] = log2.get(power, 0) + 1
            if power not in examples or call["duration"] > examples[power]["duration"]:
                named = {name: call[name] for name in ("duration", "time", "comm", "stack")}
                examples[power] = {**named, "order": call["given"]["order"]}
        return type(self)(count, parts, log2, examples)

    def since(self, earlier: Self | None) -> Self:
        """Return the sums of the calls after an earlier moment; None has none.

        A power whose longest call was earlier has no example.
        """
        if earlier is None:
            return self
        parts = {name: None if ns is None else ns - (earlier.parts.get(name) or 0) for name, ns in self.parts.items()}
        log2 = {power: calls - earlier.log2.get(power, 0) for power, calls in self.log2.items()}
        log2 = {power: calls for power, calls in log2.items() if calls}
        examples = {
            power: example for power, example in self.examples.items() if example != earlier.examples.get(power)
        }
        return type(self)(self.calls - earlier.calls, parts, log2, examples)

    def to_json(self) -> dict[str, Any]:
        """Return the sums as JSON values; a power is text, as JSON demands."""
        return {
            "calls": self.calls,
            "parts": dict(self.parts),
            "log2": {str(power): calls for power, calls in sorted(self.log2.items())},
            "examples": {str(power): dict(example) for power, example in sorted(self.examples.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the sums from what `to_json` returned; parts of a newer writer count as `rest`."""
        parts: dict[str, int | None] = {name: data["parts"].get(name) for name in PARTS}
        newer = [ns for name, ns in data["parts"].items() if name not in PARTS and ns is not None]
        if newer:
            parts["rest"] = (parts["rest"] or 0) + sum(newer)
        log2, examples = ({int(power): each for power, each in data[name].items()} for name in ("log2", "examples"))
        return cls(data["calls"], parts, log2, examples)


def power_of(ns: int) -> int:
    """Return the power of two of a time: n for 2^n ns or more and less than 2^(n+1); 0 for 0 ns."""
    return max(1, ns).bit_length() - 1
