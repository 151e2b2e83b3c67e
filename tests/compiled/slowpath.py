# SPDX-License-Identifier: MIT
"""`__alloc_pages_slowpath` of an image, executed; reclaim, compaction, waits and the OOM killer answer at random."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.decode import U32_MAX
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.slowpath.types import Event, Facts, SlowAttempt
from tests.compiled.image import Image
from tests.compiled.jumplabel import switched
from tests.compiled.machine import Answer, LeaveError, Machine
from tests.compiled.requests import CPUSETS, Entry, random_entry, some_nodes
from tests.compiled.rows import Called
from tests.compiled.structs import CONTEXT, Structs

FUNCTION = "__alloc_pages_slowpath"
EXECUTED = (
    FUNCTION,
    "__alloc_pages_cpuset_fallback",
    "__alloc_pages_direct_compact",
    "__alloc_pages_direct_reclaim",
    "__alloc_pages_may_oom",
    "__bitmap_intersects",
    "__gfp_pfmemalloc_flags",
    "__next_zones_zonelist",
    "__perform_reclaim",
    "alloc_flags_slowpath",
    "check_retry_cpuset",
    "cpuset_nodemask_valid_mems_allowed",
    "gfp_pfmemalloc_allowed",
    "gfp_to_alloc_flags",
    "should_compact_retry",
    "should_reclaim_retry",
    "wake_all_kswapds",
)
"""The slow path and the functions it calls; which of them are inlined differs between releases and compilers."""

ATTEMPTS = 14
"""A call is aborted after so many attempts."""

_SEQUENCE_STEP = 2
"""`write_seqcount_begin` and `write_seqcount_end` add one each."""

_NO_CPU = 100_000
"""The result of a search for a CPU that finds none: any number that is no CPU's."""

_RECLAIMED = (0, 0, 7)
_COMPACT_RESULTS = (1, 2, 4, 5, 7, 8)
"""Of `enum compact_result`, include/linux/compaction.h: skipped, deferred, and those of compaction that was tried."""
_COMPACT_SKIPPED = 1

_BECOMES_VICTIM = 0.05
_CPUSET_CHANGES = 0.04


@dataclass
class _Running:
    """A call that is being executed.

    Attributes:
        entry: what it was called with.
        facts: as they are now.
        attempts: until now.
        events: since the last attempt.
        reclaimed: pages, since then.
        sequence: `current->mems_allowed_seq`.
        cpuset_set: since the last attempt.
        unseen: as of `Called`.
    """

    entry: Entry
    facts: Facts
    attempts: list[SlowAttempt] = field(default_factory=list)
    events: set[Event] = field(default_factory=set)
    reclaimed: int | None = None
    sequence: int = 0
    cpuset_set: bool = False
    unseen: bool = False


class SlowPath:
    """The slow path of an image.

    Args:
        image: the image.
        snapshot: the kernel, for the values of its flags.
        rnd: source of the random choices.
    """

    _running: _Running

    def __init__(self, image: Image, snapshot: Snapshot, rnd: random.Random) -> None:
        """Load the image, once with each setting of the cpusets' keys."""
        self._snapshot = snapshot
        self._random = rnd
        self._structs = Structs(image)
        self._machines = {
            cpusets: Machine(image, EXECUTED, self._answers(), switched(image, cpusets.on, cpusets.off))
            for cpusets in CPUSETS
        }

    @property
    def has_defrag_mode(self) -> bool:
        """Whether the kernel has the sysctl vm.defrag_mode."""
        return self._structs.has_defrag_mode

    def calls(self, number: int) -> Iterator[Called]:
        """Make random calls."""
        for _ in range(number):
            yield self._call(random_entry(self._random, self._snapshot))

    def _call(self, entry: Entry) -> Called:
        self._running = running = _Running(entry, entry.facts)
        machine = self._machines[entry.cpusets]
        self._structs.write(machine, entry, running.sequence)
        try:
            page: int | None = machine.call(FUNCTION, entry.call.gfp_mask, entry.call.order, CONTEXT)
        except LeaveError:
            page = None
        whole = page is not None
        call = replace(entry.call, attempts=tuple(running.attempts), page=bool(page) if whole else None, complete=whole)
        return Called(entry.nodes, call, running.unseen)

    def _answers(self) -> dict[str, Answer]:
        """Return the stand-in of each function that is not executed."""
        named: dict[Answer, tuple[str, ...]] = {
            self._attempt: ("get_page_from_freelist",),
            self._reclaim: ("try_to_free_pages",),
            self._compact: ("try_to_compact_pages",),
            self._kill: ("out_of_memory",),
            self._wait: (
                "__SCT__cond_resched",
                "__cond_resched",
                "_cond_resched",
                "schedule_timeout_uninterruptible",
            ),
            # Whether a lock is free, or memory is enough, decides between paths that are all predicted.
            self._either: (
                "__cpuset_node_allowed",
                "__zone_watermark_ok",
                "compaction_zonelist_suitable",
                "cpuset_current_node_allowed",
                "cpuset_node_allowed",
                "mutex_trylock",
                "unreserve_highatomic_pageblock",
                "zone_reclaimable_pages",
            ),
            _find_no_cpu: ("_find_next_bit", "cpumask_next", "find_next_bit"),
            _do_nothing: (
                "__drain_all_pages",
                "drain_all_pages",
                "mutex_unlock",
                "psi_memstall_enter",
                "psi_memstall_leave",
                "wakeup_kswapd",
                "warn_alloc",
            ),
        }
        return {name: answer for answer, names in named.items() for name in names}

    def _attempt(self, machine: Machine) -> int:
        """Record an attempt, and let it fail."""
        running = self._running
        if machine.argument(3) != CONTEXT:
            raise KalloctraceError("cannot follow an attempt", "it was given another context", "report it")
        running.attempts.append(
            SlowAttempt(
                number=len(running.attempts) + 1,
                gfp_mask=machine.argument(0) & U32_MAX,
                order=machine.argument(1) & U32_MAX,
                alloc_flags=machine.argument(2) & U32_MAX,
                context=self._structs.read_context(machine, CONTEXT, running.entry),
                facts=running.facts,
                caller=machine.caller,
                events=frozenset(running.events),
                reclaimed=running.reclaimed,
            )
        )
        if len(running.attempts) == ATTEMPTS:
            raise LeaveError
        running.events.clear()
        running.reclaimed = None
        running.cpuset_set = False
        if self._random.random() < _BECOMES_VICTIM:
            # Never the other way round: oom_mm stays until the task exits.
            running.facts = replace(running.facts, oom_victim=True)
        self._wait(machine)
        return 0

    def _reclaim(self, machine: Machine) -> int:
        self._running.events.add("direct_reclaim")
        self._running.reclaimed = reclaimed = self._random.choice(_RECLAIMED)
        self._wait(machine)
        return reclaimed

    def _compact(self, machine: Machine) -> int:
        self._running.events.add("compaction")
        self._wait(machine)
        may_io = machine.argument(0) & self._snapshot.tables.gfp("__GFP_IO")
        return self._random.choice(_COMPACT_RESULTS) if may_io else _COMPACT_SKIPPED

    def _kill(self, machine: Machine) -> int:
        self._running.events.add("oom")
        self._wait(machine)
        return self._random.randrange(2)

    def _either(self, _machine: Machine) -> int:
        return self._random.randrange(2)

    def _wait(self, machine: Machine) -> None:
        """Change the cpuset now and then, if cpusets are on; at most once between two attempts, as a trace can show."""
        running = self._running
        if running.facts.cpusets_enabled and not running.cpuset_set and self._random.random() < _CPUSET_CHANGES:
            mems = some_nodes(self._random, list(running.entry.nodes))
            running.cpuset_set = True
            running.unseen |= mems == running.facts.mems_allowed
            running.sequence += _SEQUENCE_STEP
            running.facts = replace(running.facts, mems_allowed=mems)
        self._structs.write_volatile(machine, running.facts, running.sequence)


def _find_no_cpu(_machine: Machine) -> int:
    return _NO_CPU


def _do_nothing(_machine: Machine) -> None:
    pass
