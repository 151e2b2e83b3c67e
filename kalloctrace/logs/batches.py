# SPDX-License-Identifier: MIT
"""Stages that read a log one after the other, a batch at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")


def in_batches(items: Iterable[_T], size: int) -> Iterator[_T]:
    """Yield the items; the stage before makes some of them at once, so that a processor's caches serve one stage.

    Args:
        items: of the stage before.
        size: how many it makes at once.
    """
    source = iter(items)
    while batch := list(islice(source, size)):
        yield from batch
