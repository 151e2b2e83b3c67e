# SPDX-License-Identifier: MIT
"""What the calls of the slow path spent their time with: by group, and by how long a call took."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kalloctrace.diagnose.from_trace import caller_of_call
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.kernel import Kernel
from kalloctrace.report.query.fields import SlowCallValues, Value, as_json, as_text
from kalloctrace.report.query.groups import check_groups
from kalloctrace.report.query.question import Question, refused
from kalloctrace.trace.containers import describe_group
from kalloctrace.trace.dedup import Tally
from kalloctrace.trace.reader import Ending, TraceReader
from kalloctrace.trace.results import no_slow_path, slow_call_failed
from kalloctrace.trace.schema import frames_of
from kalloctrace.trace.slow_split import PARTS, added, parts_json, parts_of, power_of
from kalloctrace.verify.slowpath.fast_path import CallerMasks, from_entry

_OF_EXAMPLE = ("time", "pid", "tid", "comm", "cgroup", "page", "duration", "stack", *PARTS)
"""What is kept of an example: a whole call has its attempts and zones, a hundred times as much."""


@dataclass
class Bucket:
    """Calls that took at least 2^n ns, and less than twice that.

    Attributes:
        calls: how many.
        split: those of `calls` that have parts.
        parts: the sums of these, ns; None for a part that the kernel does not show.
        example: the one that took longest: some columns of SLOW, its order, and the mask that its caller passed.
    """

    example: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 0
    split: int = 0
    parts: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(PARTS))

    def add(self, values: SlowCallValues) -> None:
        """Add a call."""
        call = values.call
        self.calls += 1
        if not self.example or call["duration"] > self.example["duration"]:
            kept = {name: call[name] for name in _OF_EXAMPLE}
            self.example = {**kept, "order": call["given"]["order"], "gfp": values.gfp_mask}
        spent = parts_of(call)
        if spent is not None:
            self.split += 1
            self.parts = added(self.parts, spent)


@dataclass
class SlowGroup:
    """Calls with the same values of all fields of a question; or all calls.

    Attributes:
        calls: how many.
        failed: those that returned no page.
        running: those whose return was not captured; they are in no bucket.
        time: of all calls that returned, ns.
        buckets: by the power of two of their time in ns.
    """

    calls: int = 0
    failed: int = 0
    running: int = 0
    time: int = 0
    buckets: dict[int, Bucket] = field(default_factory=dict)

    @property
    def slowest(self) -> Bucket | None:
        """Return the bucket with the call that took longest; None if no return was captured."""
        return self.buckets[max(self.buckets)] if self.buckets else None

    @property
    def split(self) -> int:
        """Return how many calls have parts."""
        return sum(bucket.split for bucket in self.buckets.values())

    @property
    def parts(self) -> dict[str, int | None]:
        """Return the sums of the parts, ns; None for one that the kernel does not show, or where no call has parts."""
        sums: dict[str, int | None] = dict.fromkeys(PARTS)
        for bucket in self.buckets.values():
            sums = added(sums, bucket.parts)
        return sums

    def add(self, values: SlowCallValues) -> None:
        """Add a call."""
        call = values.call
        self.calls += 1
        self.failed += slow_call_failed(call)
        if call["duration"] is None:
            self.running += 1
            return
        self.time += call["duration"]
        power = power_of(call["duration"])
        self.buckets.setdefault(power, Bucket()).add(values)


@dataclass
class SlowAnswer:
    """The slow path of a trace.

    Attributes:
        question: which calls, and by what they are grouped.
        snapshot: the kernel and machine that were recorded.
        ending: how the trace ends.
        all: all calls.
        groups: by the values of the fields.
    """

    question: Question
    snapshot: Snapshot
    ending: Ending
    all: SlowGroup = field(default_factory=SlowGroup)
    groups: dict[tuple[Value, ...], SlowGroup] = field(default_factory=dict)

    def sorted(self) -> list[tuple[tuple[Value, ...], SlowGroup]]:
        """Return the groups, those first that took longest."""
        return sorted(self.groups.items(), key=lambda item: (-item[1].time, -item[1].calls, str(item[0])))

    def texts(self, key: tuple[Value, ...]) -> list[str]:
        """Return the values of a group as texts for people."""
        return [
            as_text(*value, self.snapshot, self.ending.containers) for value in zip(self.question.by, key, strict=True)
        ]

    def to_json(self, key: tuple[Value, ...], group: SlowGroup) -> dict[str, Any]:
        """Return a group as JSON values; the schema is `slow_group`."""
        return {
            "type": "slow_group",
            "by": as_json(self.question.by, key, self.snapshot, self.ending.containers),
            "calls": group.calls,
            "failed": group.failed,
            "running": group.running,
            "slow_ns": group.time,
            "split": group.split,
            "parts": parts_json(group.parts),
            "histogram": [
                {
                    "from_ns": 1 << power if power else 0,
                    "to_ns": 2 << power,
                    "calls": bucket.calls,
                    "parts": parts_json(bucket.parts),
                    "example": self._example(bucket),
                }
                for power, bucket in sorted(group.buckets.items())
            ],
        }

    def _example(self, bucket: Bucket) -> dict[str, Any]:
        call = bucket.example
        stack = from_entry(self.snapshot.features.entry, call["stack"])
        named = {"cgroup": call["cgroup"]}
        if call["cgroup"] is not None:
            named = describe_group(call["cgroup"], self.ending.containers)
        return {
            **{name: call[name] for name in ("time", "pid", "tid", "comm")},
            **named,
            "order": call["order"],
            **as_json(("gfp",), (call["gfp"],), self.snapshot, {}),
            "page": call["page"],
            "duration_ns": call["duration"],
            "parts": parts_json(parts_of(call) or dict.fromkeys(PARTS)),
            "caller": caller_of_call(call),
            "stack": None if stack is None else frames_of(stack),
        }


def slow_answer(trace: TraceReader, question: Question) -> SlowAnswer:
    """Add up the calls of the slow path; memory grows with the groups, not with the calls.

    Raises:
        KalloctraceError: the slow path or a field of the question was not recorded (exit code 2), or there are too many
            groups.
    """
    if not trace.recording.get("slow"):
        raise refused(trace, "split slow calls", *no_slow_path(trace.recording))
    # Every call of the slow path has its task and its stack.
    replace(question, slower_than=question.slower_than or 0).check(trace)
    tally = Tally()
    ending = trace.read(rows=lambda rows: tally.add(rows.allocations, rows.indices, rows.counts))
    kernel = Kernel.of(trace.snapshot)
    masks = CallerMasks(kernel, tally.rows())
    found = SlowAnswer(question, trace.snapshot, ending)
    calls = trace.slow_calls()
    for values in _selected(calls, question, masks, kernel):
        found.all.add(values)
        if not question.by:
            continue
        key = tuple(map(values.of, question.by))
        if key not in found.groups:
            check_groups(question, len(found.groups))
        found.groups.setdefault(key, SlowGroup()).add(values)
    if not ending.truncated:
        found.ending = replace(ending, slow_damage=calls.finish().damage)
    return found


def _selected(
    calls: Iterator[Mapping[str, Any]], question: Question, masks: CallerMasks, kernel: Kernel
) -> Iterator[SlowCallValues]:
    for call in calls:
        gfp_mask = masks.of(call["given"])
        if question.selects(call, gfp_mask):
            yield SlowCallValues(call, gfp_mask, kernel)
