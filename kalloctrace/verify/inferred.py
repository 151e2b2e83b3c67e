# SPDX-License-Identifier: MIT
"""What a verdict may conclude where a recording infers a part of the request, see `kalloctrace.trace.inferred`.

A row with inferred facts stands for every request that could have left what it shows. It is matched if one of these
fits the model, and mismatched if none does. Nearly all of them are prepared alike, because applying gfp_allowed_mask,
a scope or __GFP_HARDWALL again changes nothing. Only the caller's nodemask makes a difference.

What a fact cannot tell apart is not judged: of each rule below, the named part.

- zonelist, by preferred_nid: whose zonelist it is. The choice of FALLBACK or NOFALLBACK is judged.
- gfp_allowed_mask, by gfp_outside_allowed_mask: which bits were cleared. That none is left is judged.
- gfp_context, by scope_bits: likewise, of the bits that the task's scopes concern.
- cpuset, by hardwall: whether __GFP_HARDWALL was added or asked for. That it is set while cpusets are on is judged.
- cpuset, by nodemask: that the caller's nodemask stays, and ALLOC_CPUSET with it, where ac->nodemask is the task's
  mems_allowed.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from kalloctrace.flags.decode import U32_MAX
from kalloctrace.model import cpuset, sched_mm
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.types import Context, Preparation
from kalloctrace.trace.inferred import Inferred
from kalloctrace.verify.rows import Row

NOT_JUDGED: Mapping[str, str] = MappingProxyType(
    {
        "zonelist": "whose zonelist it is",
        "gfp_allowed_mask": "which bits were cleared",
        "gfp_context": "which bits the task's scopes cleared",
        "cpuset": "what cpusets replaced: __GFP_HARDWALL as asked for, or the caller's nodemask",
    }
)
"""The part of each rule that an inferred fact can concern, in words."""


def possible_rows(kernel: Kernel, row: Row, context: Context, inferred: Iterable[Inferred]) -> tuple[Row, ...]:
    """Return the row with each request that could have left what it shows; the usual one first.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        context: the context that the call ran in.
        inferred: the facts that the recording infers.
    """
    if "nodemask" not in inferred or not _nodemask_unseen(kernel, row, context):
        return (row,)
    # Nearly always the caller passed NULL. It may also have passed a pointer to its own mems_allowed, which stays.
    return (
        {**row, "nodemask": None},
        {**row, "nodemask": row["ac_nodemask_nodes"], "ac_nodemask": "caller"},
    )


def rules_not_judged(
    kernel: Kernel, row: Row, context: Context, expected: Preparation, inferred: frozenset[Inferred]
) -> tuple[str, ...]:
    """Return the rules of which a part was not judged, because it needs a fact that was inferred.

    A call of the bulk allocator, and a rejected request, are captured where all arguments are visible.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        context: the context that the call ran in.
        expected: the prediction for this row.
        inferred: the facts that the recording infers.
    """
    if not inferred or row["entry"] == "bulk" or not row["freelist_calls"]:
        return ()
    needed = {
        "zonelist": "preferred_nid" in inferred,
        "gfp_allowed_mask": "gfp_outside_allowed_mask" in inferred,
        "gfp_context": "scope_bits" in inferred and _in_scope(kernel, context),
        "cpuset": ("hardwall" in inferred and cpuset.cpusets_enabled(kernel, context))
        or ("nodemask" in inferred and _nodemask_unseen(kernel, row, context)),
    }
    applied = {step.rule for step in expected.steps}
    return tuple(rule for rule in NOT_JUDGED if needed[rule] and rule in applied)


def _nodemask_unseen(kernel: Kernel, row: Row, context: Context) -> bool:
    """Return whether the caller's nodemask would not be seen, if it differed from the one in use."""
    prepared = row["entry"] != "bulk" and bool(row["freelist_calls"])
    return prepared and cpuset.cpusets_enabled(kernel, context) and row["ac_nodemask"] == "mems_allowed"


def _in_scope(kernel: Kernel, context: Context) -> bool:
    """Return whether the task's scopes change some mask."""
    return any(sched_mm.current_gfp_context(kernel, mask, context)[0] != mask for mask in (0, U32_MAX))
