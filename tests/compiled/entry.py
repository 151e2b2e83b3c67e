# SPDX-License-Identifier: MIT
"""The page allocator's entry function of an image, executed until it calls the slow path."""

import random
from collections.abc import Iterator
from contextlib import suppress

from kalloctrace.flags.decode import U32_MAX
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.slowpath.state_machine import slowpath_call
from kalloctrace.model.slowpath.types import SlowCall
from kalloctrace.model.types import Context, Request
from tests.compiled.image import Image
from tests.compiled.jumplabel import switched
from tests.compiled.machine import Answer, LeaveError, Machine
from tests.compiled.requests import CPUSETS, Entry, random_entry
from tests.compiled.slowpath import FUNCTION
from tests.compiled.structs import NODEMASK, Structs
from tests.slow_scenarios import slow_kernel

_EXECUTED = ("__next_zones_zonelist", "alloc_flags_nofragment", "current_gfp_context", "prepare_alloc_pages")
"""The functions that the entry calls; in most images all but the first are inlined."""


class EntryFunction:
    """The entry function of an image.

    Args:
        image: the image.
        snapshot: the kernel, for the entry's name and the values of flags.
        rnd: source of the random choices.
    """

    _entry: Entry
    _given: SlowCall | None

    def __init__(self, image: Image, snapshot: Snapshot, rnd: random.Random) -> None:
        """Load the image, once with each setting of the cpusets' keys."""
        self._snapshot = snapshot
        self._random = rnd
        self._structs = Structs(image)
        executed = (snapshot.features.entry, *_EXECUTED)
        self._machines = {
            cpusets: Machine(image, executed, self._answers(), switched(image, cpusets.on, cpusets.off))
            for cpusets in CPUSETS
        }

    def handed_on(self, number: int) -> Iterator[tuple[Entry, SlowCall | None]]:
        """Make random requests, and yield the arguments of the slow path, or None if it is not called."""
        for _ in range(number):
            entry = random_entry(self._random, self._snapshot)
            machine, call = self._machines[entry.cpusets], entry.call
            self._entry, self._given = entry, None
            self._structs.write(machine, entry, sequence=0)
            nodemask = 0 if call.context.nodemask is None else NODEMASK
            arguments = (call.gfp_mask, call.order, call.context.zonelist_nid or 0, nodemask, call.context.alloc_flags)
            with suppress(LeaveError):
                machine.call(self._snapshot.features.entry, *arguments)
            yield entry, self._given

    def _answers(self) -> dict[str, Answer]:
        answers: dict[str, Answer] = dict.fromkeys(
            ("__SCT__might_resched", "__SCT__cond_resched", "_cond_resched"), _zero
        )
        return answers | {"should_fail_alloc_page": _zero, "get_page_from_freelist": _zero, FUNCTION: self._slow_path}

    def _slow_path(self, machine: Machine) -> int:
        context = self._structs.read_context(machine, machine.argument(2), self._entry)
        self._given = SlowCall(machine.argument(0) & U32_MAX, machine.argument(1) & U32_MAX, context)
        raise LeaveError


def expected(release: str, entry: Entry) -> SlowCall:
    """Return the arguments of the slow path that the model predicts."""
    facts, call = entry.facts, entry.call
    request = Request(
        call.gfp_mask,
        call.order,
        call.context.zonelist_nid or 0,
        call.context.nodemask,
        call.context.alloc_flags,
    )
    context = Context(
        cpusets_enabled=bool(facts.cpusets_enabled),
        gfp_allowed_mask=facts.gfp_allowed_mask or 0,
        task_flags=facts.task_flags or 0,
        preempt_count=facts.preempt_count,
        mems_allowed=facts.mems_allowed,
        defrag_mode=bool(facts.defrag_mode),
    )
    return slowpath_call(slow_kernel(release, entry.machine).kernel, request, context)


def _zero(_machine: Machine) -> int:
    return 0
