# SPDX-License-Identifier: MIT
"""Facts that a recording infers where the caller's arguments are not captured; no such fact is judged against itself.

A probe at get_page_from_freelist() alone does not see the arguments of the entry. Some of them follow from what
the preparation stage left, but only by the rules that a verdict tests.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

Inferred = Literal["preferred_nid", "gfp_outside_allowed_mask", "scope_bits", "hardwall", "nodemask"]
"""A fact that is inferred, for a whole trace:

- preferred_nid: the column of that name is the node that owns ac->zonelist.
- gfp_outside_allowed_mask: bits outside gfp_allowed_mask are not seen; the column gfp_mask lacks them.
- scope_bits: bits that a NOFS, NOIO or PIN scope of the task clears are not seen; the column gfp_mask lacks them.
- hardwall: while cpusets are on, __GFP_HARDWALL in the column gfp_mask is what the stage left.
- nodemask: while cpusets are on, the caller's nodemask is not seen where ac->nodemask is the task's mems_allowed; the
  column nodemask is then what ac shows.
"""

INFERRED: tuple[Inferred, ...] = get_args(Inferred)
INFERRED_TEXT: Mapping[Inferred, str] = MappingProxyType(
    {
        "preferred_nid": "the caller's node (taken from the zonelist)",
        "gfp_outside_allowed_mask": "gfp bits outside gfp_allowed_mask",
        "scope_bits": "gfp bits that the task's scopes clear",
        "hardwall": "whether __GFP_HARDWALL was asked for, while cpusets are on",
        "nodemask": "the caller's nodemask, where cpusets replace it",
    }
)
"""What was not captured, in words."""
NOTHING_INFERRED: frozenset[Inferred] = frozenset()
"""Of a recording that captures the entry's arguments."""


def inferred_of(recording: Mapping[str, Any]) -> frozenset[Inferred]:
    """Return the facts that a recording infers; none in a recording of the pair, or of an older version.

    Args:
        recording: how the recording was made, as its trace describes it.
    """
    return frozenset(recording.get("inferred", ()))
