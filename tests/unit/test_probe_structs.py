# SPDX-License-Identifier: MIT
"""Structures are copied whole, members and all."""

import numpy as np

from kalloctrace.probe.layout import struct_dtype
from kalloctrace.probe.maps.structs import first_word, joined, padded, words_of

EVENT = struct_dtype("event", {"NODEMASK_WORDS": 2, "BY_WORDS": 0})


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
    """And a member begins with one of them."""
    events = np.zeros(3, EVENT)
    events["time"] = [7, 8, 9]
    events["a"]["gfp_mask"] = [1, 2, 3]
    words = words_of(events)
    assert words.shape == (3, EVENT.itemsize // 8)
    assert words[:, 0].tolist() == [7, 8, 9]
    assert words[:, first_word(EVENT, "a")].tolist() == [1, 2, 3]
    assert words_of(events[:0]).shape == (0, words.shape[1])


def test_unused_bytes_follow_the_members() -> None:
    """Up to a multiple; where it is one already there are none."""
    cell = padded(EVENT, 64)
    assert cell.itemsize % 64 == 0 <= cell.itemsize - EVENT.itemsize < 64
    cells = np.zeros(2, cell)
    cells["a"]["order"] = [3, 4]
    assert cells.view(np.uint8).reshape(2, -1)[:, : EVENT.itemsize].copy().view(EVENT)["a"]["order"].tolist() == [
        [3],
        [4],
    ]
    assert padded(cell, 64).itemsize == cell.itemsize
