# SPDX-License-Identifier: MIT
"""An answer to a part of a log is weaker than that to the whole, and never another."""

from dataclasses import replace

import pytest

from tests.logs.answers import answers_to, certain_zones, stronger
from tests.logs.cuts import cuts, headless
from tests.logs.kernels import kernel_messages
from tests.logs.states import EXHAUSTED, FRAGMENTED, State, Zone
from tests.logs.test_states import PRINTED

CUT = [(state, release) for state, release in PRINTED if release in {"2.6.32", "5.10", "7.3"}]
"""What is cut: each state as an old, a known and the newest kernel print it."""


def printed(state: State, release: str) -> list[str]:
    """Return the lines of a report."""
    return [line for message in kernel_messages(state, release) for line in message.text.split("\n")]


@pytest.mark.parametrize(("state", "release"), CUT, ids=lambda value: getattr(value, "name", value))
def test_a_cut_makes_an_answer_weaker(state: State, release: str) -> None:
    """With the first line, whatever else is missing."""
    lines = printed(state, release)
    full = answers_to("\n".join(lines).encode())
    for name, part in cuts(lines):
        assert not stronger(full, answers_to("\n".join(part).encode())), name


@pytest.mark.parametrize(("state", "release"), CUT, ids=lambda value: getattr(value, "name", value))
def test_without_its_first_line_a_report_proves_nothing(state: State, release: str) -> None:
    """What failed is not known, so no answer about it is certain; an OOM kill may still say that it was one."""
    for name, part in headless(printed(state, release)):
        for answer in answers_to("\n".join(part).encode()):
            assert answer["event"] in {"memory", state.event}, name
            assert answer["certainty"] != "certain", name
            assert not certain_zones(answer).keys() - state.verdicts.keys(), name


def test_a_zone_without_its_line_has_no_room() -> None:
    """Its list shows free blocks, but not how many pages it must keep."""
    empty = replace(EXHAUSTED.zones[0], free=0, marks=(1, 1, 1), reserve=(0,) * 5, blocks=((0, ""),), file=0)
    zones = tuple(replace(empty, name=name, managed=100_000) for name in ("DMA32", "Normal"))
    few = replace(zones[1], free=2, blocks=((2, "U"),), managed=100_002)
    lines = printed(replace(EXHAUSTED, order=1, gfp=("GFP_ATOMIC",), zones=(zones[0], few)), "3.10")
    full, part = (answers_to("\n".join(each).encode()) for each in (lines, without(lines, "Node 0 Normal free:")))
    assert full[0]["out_of_memory"] is True
    assert part[0]["out_of_memory"] is None
    assert not stronger(full, part)


def test_a_zone_keeps_nothing_for_itself() -> None:
    """The lowmem_reserve of node 1's DMA stands behind node 0's Normal, whose own is missing."""
    empty = Zone(0, "DMA", 0, (1, 1, 1), (0,) * 5, 100_000, ((0, ""),))
    first, second = ([replace(empty, node=node, name=name) for name in ("DMA", "DMA32", "Normal")] for node in (0, 1))
    first[2] = replace(first[2], free=1, marks=(0, 0, 0), blocks=((1, "U"),))
    second[0] = replace(second[0], reserve=(0, 0, 1, 1, 1))
    state = replace(FRAGMENTED, order=0, zones=(*first, *second), mems="0-1")
    lines = printed(state, "2.6.32")
    at = next(number for number, line in enumerate(lines) if line.startswith("Node 1 DMA free:"))
    part = [*lines[: at - 1], *lines[at + 1 :]]
    assert not stronger(*(answers_to("\n".join(each).encode()) for each in (lines, part)))


@pytest.mark.parametrize("nodes", ["0", "0-", "0-1", ""])
def test_nodes_at_the_end_of_a_log_may_be_cut(nodes: str) -> None:
    """The list may go on."""
    first = "java invoked oom-killer: gfp_mask=0x14280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, oom_score_adj=0\n"
    assert answers_to(f"{first}java cpuset=/ mems_allowed={nodes}".encode())[0]["mems_allowed"] is None


def without(lines: list[str], begin: str) -> list[str]:
    """Return a report without the line that begins so."""
    return [line for line in lines if not line.startswith(begin)]
