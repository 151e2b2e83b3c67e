# SPDX-License-Identifier: MIT
"""What the slow path is called with."""

from dataclasses import replace
from typing import Any

import pytest

from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.model.slowpath.state_machine import slowpath_call
from kalloctrace.model.types import Context, ImpossibleRequestError, Request
from kalloctrace.verify.slowpath.compare import entry_differences
from tests.slow_scenarios import NORMAL, TWO_NODES, slow_kernel

NOIO, PIN = 0x80000, 0x10000000


def _context(**changes: Any) -> Context:  # noqa: ANN401  (members of Context)
    return replace(Context(cpusets_enabled=True, gfp_allowed_mask=0xFFFFFF, mems_allowed=0b10), **changes)


@pytest.mark.parametrize("release", ["5.10", "6.1", "6.12", "7.3"])
def test_the_slow_path_gets_the_caller_s_nodemask_and_no_hardwall(release: str) -> None:
    """What cpusets changed is taken back; the preferred zone is still the one that they led to."""
    kernel = slow_kernel(release, TWO_NODES).kernel
    call = slowpath_call(kernel, Request(0x1CC0, 1, 0), _context())
    assert (call.gfp_mask, call.order, call.context.nodemask) == (0x1CC0, 1, None)
    assert call.context.preferred_zone == ZoneRef(1, NORMAL)
    assert not call.context.spread_dirty_pages


@pytest.mark.parametrize(
    ("release", "task_flags", "gfp"),
    [
        ("5.10", NOIO, 0xC0A),
        ("6.12", NOIO, 0xC0A),
        ("5.10", PIN, 0xCCA),
        ("6.12", PIN, 0xCC2),
        ("7.3", PIN | NOIO, 0xC02),
    ],
)
def test_the_task_s_scopes_count_on_every_kernel(release: str, task_flags: int, gfp: int) -> None:
    """5.10 applies them here for the first time."""
    kernel = slow_kernel(release, TWO_NODES).kernel
    assert slowpath_call(kernel, Request(0xCCA, 0, 0), _context(task_flags=task_flags)).gfp_mask == gfp


def test_the_argument_alloc_flags_goes_into_the_context() -> None:
    """From 7.3 on the profiler's flag is handed on."""
    kernel = slow_kernel("7.3", TWO_NODES).kernel
    assert slowpath_call(kernel, Request(0xCC0, 0, 0, alloc_flags=0x1000), _context()).context.alloc_flags == 0x1000


@pytest.mark.parametrize(
    ("release", "request_"),
    [
        ("6.12", Request(0xCC0, 11, 0)),
        ("7.2", Request(0, 0, 0, entry="nolock")),
        ("7.3", Request(0xCC0, 0, 0, alloc_flags=0x400)),
    ],
)
def test_what_never_enters_the_slow_path(release: str, request_: Request) -> None:
    """A rejected order has no attempt, and one without locks no second."""
    with pytest.raises(ImpossibleRequestError):
        slowpath_call(slow_kernel(release, TWO_NODES).kernel, request_, _context())


@pytest.mark.parametrize(
    ("field", "change", "context"),
    [
        ("slow_gfp_mask", {"gfp_mask": 0x100CC0}, {}),
        ("slow_order", {"order": 2}, {}),
        ("zonelist", {}, {"zonelist_nid": 1}),
        ("ac_nodemask_nodes", {}, {"nodemask": 0b10}),
        ("preferred_zone", {}, {"preferred_zone": None}),
        ("highest_zoneidx", {}, {"highest_zoneidx": 3}),
        ("migratetype", {}, {"migratetype": 1}),
        ("spread_dirty_pages", {}, {"spread_dirty_pages": True}),
        ("ac_alloc_flags", {}, {"alloc_flags": 0x1000}),
    ],
)
def test_an_argument_that_differs_is_named(field: str, change: dict[str, Any], context: dict[str, Any]) -> None:
    """Each argument is compared, unless it was not captured."""
    expected = slowpath_call(slow_kernel("6.12", TWO_NODES).kernel, Request(0xCC0, 0, 0), _context())
    assert not list(entry_differences(expected, expected))
    call = replace(expected, context=replace(expected.context, **context), **change)
    assert [each.field for each in entry_differences(expected, call)] == [field]
    unseen = replace(call, context=replace(call.context, unknown=frozenset(context)))
    assert [each.field for each in entry_differences(expected, unseen)] == ([] if context else [field])
