# SPDX-License-Identifier: MIT
"""Structures are copied whole, members and all."""

import numpy as np

from kalloctrace.probe.layout import record_dtype
from kalloctrace.probe.structs import joined, member

EVENT = record_dtype("event", {"NODEMASK_WORDS": 2})


def test_parts_follow_each_other() -> None:
    """Also empty ones."""
    one, none = np.zeros(2, EVENT), np.zeros(0, EVENT)
    one["time"] = [5, 6]
    one["a"]["order"] = [1, 2]
    both = joined([none, one, one])
    assert both["time"].tolist() == [5, 6, 5, 6]
    assert both["a"]["order"].tolist() == [1, 2, 1, 2]
    assert len(joined([none])) == 0


def test_member_is_a_copy() -> None:
    """With its own members, and apart from where it was."""
    events = np.zeros(3, EVENT)
    events["a"]["gfp_mask"] = [1, 2, 3]
    events["a"]["mems_allowed"] = [[1, 2], [3, 4], [5, 6]]
    taken = member(events, "a")
    events["a"]["gfp_mask"] = 0
    assert taken["gfp_mask"].tolist() == [1, 2, 3]
    assert taken["mems_allowed"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert taken.flags.c_contiguous
    assert len(member(events[:0], "a")) == 0
