# SPDX-License-Identifier: MIT
"""Each true state, as each kernel prints it, gets the verdicts that its numbers have."""

import pytest

from tests.logs.answers import answers_to, certain_zones, verdicts
from tests.logs.kernels import BOOST_SINCE, ERAS, kernel_messages, shown_zones
from tests.logs.states import BOOSTED, BOUND, CMA, EXHAUSTED, LATER, STATES, State
from tests.logs.wrappings import PLAIN, stamped

IN_EVERY_DETAIL = {"5.10", "6.12", "7.3"}
"""The eras whose watermark check is known in every detail."""

PRINTED = [
    (state, release)
    for state in STATES
    for release, era in ERAS.items()
    # Kernels without boost, nodemask or CMA cannot show these states.
    if not (state is BOOSTED and release not in BOOST_SINCE)
    and not (state is BOUND and not era.filters)
    and not (state is CMA and release == "2.6.32")
    # Where the rules are not known in every detail nothing is known to pass.
    and not (state is LATER and release not in IN_EVERY_DETAIL)
]
"""Each state with each kernel that can show it."""


@pytest.mark.parametrize(("state", "release"), PRINTED, ids=lambda value: getattr(value, "name", value))
def test_verdicts_are_those_of_the_numbers(state: State, release: str) -> None:
    """And the request is the one that failed; where the kernel's rules are known the answer is certain."""
    [answer] = answers_to(PLAIN(stamped(kernel_messages(state, release))).encode())
    assert (answer["event"], answer["comm"], answer["order"]) == (state.event, state.comm, state.order)
    assert answer["kernel"] == ERAS[release].release
    assert verdicts(answer) == {
        (zone.node, zone.name): state.verdicts[zone.node, zone.name] for zone in shown_zones(state, release)
    }
    assert answer["conclusion"] == state.conclusion
    if state is LATER:
        # What a zone has after the failure does not explain it.
        assert answer["certainty"] == "unknown"
        return
    assert answer["contradictions"] == []
    if release in IN_EVERY_DETAIL:
        assert answer["certainty"] == "certain"
        assert certain_zones(answer) == verdicts(answer)


def test_lists_add_up() -> None:
    """So that no state is wrong about itself: the blocks are the zone's free pages."""
    for state in STATES:
        for zone in state.zones:
            assert sum(number << order for order, (number, _) in enumerate(zone.blocks)) == zone.free, state.name


def test_kernels_print_what_their_sources_say() -> None:
    """One line of each form; where they come from is in tests/logs/kernels.py."""
    texts = {release: [message.text for message in kernel_messages(EXHAUSTED, release)] for release in ERAS}
    assert texts["2.6.32"][0] == "java invoked oom-killer: gfp_mask=0x280da, order=0, oom_adj=0"
    assert texts["4.14"][0] == (
        "java invoked oom-killer: gfp_mask=0x14280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), nodemask=(null),  order=0, "
        "oom_score_adj=0"
    )
    assert texts["5.10"][0] == (
        "java invoked oom-killer: gfp_mask=0x100dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO), order=0, oom_score_adj=0"
    )
    assert "CPU: 3 UID: 0 PID: 4321 Comm: java Not tainted 6.12.9 #1" in texts["6.12"]
    assert "Pid: 4321, comm: java Not tainted 2.6.32-5-amd64 #1" in texts["2.6.32"]
    assert "lowmem_reserve[]: 0 2981 3931 3931" in texts["3.10"]
    assert any(" reserved_highatomic:0KB free_highatomic:0KB " in text for text in texts["7.3"])
    assert not any("free_highatomic" in text for text in texts["6.12"])
