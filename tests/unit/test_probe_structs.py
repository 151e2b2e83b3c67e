# SPDX-License-Identifier: MIT
"""Structures are copied whole, members and all."""

import numpy as np

from kalloctrace.probe.layout import record_dtype
from kalloctrace.probe.structs import joined, words_of

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


def test_words_are_those_of_the_structures() -> None:
    """Of all of them, or of one member."""
    events = np.zeros(3, EVENT)
    events["time"] = [7, 8, 9]
    events["a"]["gfp_mask"] = [1, 2, 3]
    assert words_of(events)[:, 0].tolist() == [7, 8, 9]
    words = words_of(events, "a")
    assert words.shape == (3, EVENT["a"].itemsize // 8)
    assert words[:, 0].tolist() == [1, 2, 3]
    assert words_of(events[:0], "a").shape == (0, words.shape[1])
