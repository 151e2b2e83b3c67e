# SPDX-License-Identifier: MIT
"""Executed watermark checks as JSON, and whether the model gives the same answer."""

from typing import Any

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.releases import parse_release
from kalloctrace.kernel.watermark_rules import watermark_rules
from kalloctrace.model import watermark
from kalloctrace.model.watermark import FreeBlocks, Watermarks, ZoneState

TYPES = {"U": "UNMOVABLE", "M": "MOVABLE", "E": "RECLAIMABLE", "H": "HIGHATOMIC", "C": "CMA", "I": "ISOLATE"}
"""A letter for each migratetype; a word of letters is an order, "-" one without blocks."""


def kernel_of(release: str) -> Watermarks:
    """Return the model's watermark check of a release."""
    return Watermarks(watermark_rules(parse_release(release)), builtin_tables(release).bits)


def blocks_of(words: str) -> tuple[FreeBlocks, ...]:
    """Return the free blocks, by order, of a line of words."""
    return tuple(
        FreeBlocks(0 if word == "-" else 1, frozenset(f"MIGRATE_{TYPES[letter]}" for letter in word.replace("-", "")))
        for word in words.split()
    )


def agrees(kernel: Watermarks, run: dict[str, Any]) -> bool:
    """Return whether the model passes or refuses a request as the image does.

    Args:
        kernel: its check.
        run: a row: the arguments of `__zone_watermark_ok`, and its result under `passes`.
    """
    state = ZoneState(
        node=0,
        zone="DMA32",
        index=1,
        free=run["free"],
        watermarks=(run["mark"],) * 3,
        boost=0,
        reserved_highatomic=run["reserved_highatomic"],
        free_highatomic=run["free_highatomic"],
        free_cma=run["free_cma"],
        lowmem_reserve=tuple(run["lowmem_reserve"]),
        blocks=blocks_of(run["blocks"]),
    )
    check = watermark.zone_watermark_ok(kernel, state, run["order"], run["highest_zoneidx"], run["alloc_flags"])
    # The kernel's function checks blocks for higher orders only; the model also checks the type of a single page.
    passes = check.outcome == "ok" or (run["order"] == 0 and check.outcome == "block")
    return passes is run["passes"]
