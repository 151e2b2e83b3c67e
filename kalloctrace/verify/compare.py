# SPDX-License-Identifier: MIT
"""Compares the model's prediction for one distinct row with what the probe captured."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

from kalloctrace.kernel.nodelist import format_nodelist
from kalloctrace.model.bulk import alloc_pages_bulk
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.page_alloc import alloc_pages
from kalloctrace.model.types import Context, ImpossibleRequestError, Preparation, UnknownFact
from kalloctrace.trace.inferred import NOTHING_INFERRED, Inferred
from kalloctrace.verify.bulk import bulk_comparisons, unobserved_bulk
from kalloctrace.verify.inferred import possible_rows, rules_not_judged
from kalloctrace.verify.rows import (
    DAMAGED,
    DamagedRowError,
    ModelFailure,
    Row,
    bulk_request_of,
    context_of,
    request_of,
    request_text,
)

_Compared: TypeAlias = tuple[str, Any, Any, str]
"""A field, the model's value, the kernel's value, and the rule that sets the field."""
FieldVerdict: TypeAlias = Literal["equal", "different", "unknown"]


@dataclass
class FieldCount:
    """How many allocations were judged by one field. Allocations that do not show the field are not counted.

    Attributes:
        equal: the kernel has the model's value.
        different: the kernel has another value.
        unknown: the field was captured, but the model needs a fact that was not.
    """

    equal: int = 0
    different: int = 0
    unknown: int = 0

    def add(self, verdict: FieldVerdict, count: int) -> None:
        """Count allocations."""
        setattr(self, verdict, getattr(self, verdict) + count)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"equal": self.equal, "different": self.different, "unknown": self.unknown}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which prediction and kernel differ.

    Attributes:
        field: the trace's name for it.
        expected: the model's value.
        observed: the kernel's value.
        rule: the rule of the model that sets it.
        effect: what that rule did.
    """

    field: str
    expected: Any
    observed: Any
    rule: str
    effect: str

    def to_json(self) -> dict[str, Any]:
        """Return the difference as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """The verdict on one distinct row.

    Attributes:
        differences: empty where prediction and kernel agree.
        unknown: why the row could not be judged; empty if it could.
        fields: the verdict on each field, also on those that an unknown row shows. Not compared by `==`.
        not_judged: the rules of which a part was not judged, because it needs a fact that is inferred; empty in a row
            that could not be judged at all.
    """

    differences: tuple[Difference, ...] = ()
    unknown: str = ""
    fields: Mapping[str, FieldVerdict] = field(default_factory=dict, compare=False)
    not_judged: tuple[str, ...] = ()


@dataclass(frozen=True)
class Switches:
    """The values that the machine's switches had anywhere in the trace.

    Attributes:
        cpusets_enabled: both values if cpusets were switched on or off during the recording.
        gfp_allowed_mask: several values if the machine was suspended during the recording.
        defrag_mode: both values if the sysctl was written during the recording.
    """

    cpusets_enabled: frozenset[bool]
    gfp_allowed_mask: frozenset[int]
    defrag_mode: frozenset[bool]


def judge(
    kernel: Kernel,
    row: Row,
    switches: Switches,
    *,
    may_miss: bool,
    inferred: frozenset[Inferred] = NOTHING_INFERRED,
) -> RowVerdict:
    """Predict a row's preparation and compare.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        switches: the values that the switches had during the recording.
        may_miss: the kernel skipped probe hits, so a missing call proves nothing.
        inferred: the facts that the recording infers.

    Raises:
        ModelFailure: the model failed on this request.
    """
    try:
        context = context_of(kernel, row)
        unknown = _unobserved(kernel, row, may_miss=may_miss)
        return RowVerdict(unknown=unknown) if unknown else _judge_observed(kernel, row, context, switches, inferred)
    except UnknownFact as error:
        return RowVerdict(unknown=str(error))
    except (DamagedRowError, ImpossibleRequestError):
        return RowVerdict(unknown=DAMAGED)
    except Exception as error:
        raise ModelFailure(request_text(row), error) from error


def _judge_observed(
    kernel: Kernel, row: Row, context: Context, switches: Switches, inferred: frozenset[Inferred]
) -> RowVerdict:
    taken = row_as_taken(kernel, row, context, inferred)
    expected = expected_of(kernel, taken, context)
    compared = tuple(_comparisons(kernel, expected, taken))
    differences = tuple(_differences(expected, compared))
    fields: dict[str, FieldVerdict] = {name: "equal" if want == got else "different" for name, want, got, _ in compared}
    wrong = {difference.rule for difference in differences}
    not_judged = rules_not_judged(kernel, row, context, expected, inferred)
    # A part of such a rule is judged, and differs.
    not_judged = tuple(rule for rule in not_judged if rule not in wrong)
    if not differences:
        return RowVerdict(not_judged=not_judged, fields=fields)
    if expected.nodemask == "mems_allowed" == taken["ac_nodemask"] and _mems_changed(taken):
        return RowVerdict(unknown="mems_allowed changed during the call")
    for other in _other_contexts(context, switches):
        if _fits(kernel, row_as_taken(kernel, row, other, inferred), other):
            return RowVerdict(unknown="a switch of the machine changed during the call")
    return RowVerdict(differences, not_judged=not_judged, fields=fields)


def row_as_taken(kernel: Kernel, row: Row, context: Context, inferred: frozenset[Inferred]) -> Row:
    """Return the row with the request that fits what it shows, if inferred facts allow several; else the usual one.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        context: the context that the call ran in.
        inferred: the facts that the recording infers.

    Raises:
        UnknownFact: the prediction depends on a fact that was not captured.
        DamagedRowError: the row is damaged.
        ImpossibleRequestError: the kernel has no such request.
    """
    usual, *others = possible_rows(kernel, row, context, inferred)
    if others and not _fits(kernel, usual, context):
        return next((other for other in others if _fits(kernel, other, context)), usual)
    return usual


def _fits(kernel: Kernel, row: Row, context: Context) -> bool:
    return all(want == got for _, want, got, _ in _comparisons(kernel, expected_of(kernel, row, context), row))


def predict(kernel: Kernel, row: Row, inferred: frozenset[Inferred] = NOTHING_INFERRED) -> Preparation:
    """Predict the preparation of a row's request in the row's context.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        inferred: the facts that the recording infers.

    Raises:
        UnknownFact: the prediction depends on a fact that was not captured.
        DamagedRowError: the row is damaged.
        ImpossibleRequestError: the kernel has no such request.
    """
    context = context_of(kernel, row)
    return expected_of(kernel, row_as_taken(kernel, row, context, inferred), context)


def compared(
    kernel: Kernel, row: Row, inferred: frozenset[Inferred] = NOTHING_INFERRED
) -> Iterator[tuple[str, Any, Any]]:
    """Yield each compared field with the model's value and the kernel's value.

    Args:
        kernel: the kernel that was recorded.
        row: one distinct row of the trace.
        inferred: the facts that the recording infers.

    Raises:
        UnknownFact: as `predict`.
        DamagedRowError: as `predict`.
        ImpossibleRequestError: as `predict`.
    """
    context = context_of(kernel, row)
    taken = row_as_taken(kernel, row, context, inferred)
    for name, want, got, _ in _comparisons(kernel, expected_of(kernel, taken, context), taken):
        yield name, want, got


def expected_of(kernel: Kernel, row: Row, context: Context) -> Preparation:
    """Predict the preparation of a row's request in a context.

    Raises:
        UnknownFact: the prediction depends on a fact that was not captured.
        DamagedRowError: the row is damaged.
        ImpossibleRequestError: the kernel has no such request.
    """
    if row["entry"] == "bulk":
        return alloc_pages_bulk(kernel, bulk_request_of(row), context)
    return alloc_pages(kernel, request_of(row), context)


def _unobserved(kernel: Kernel, row: Row, *, may_miss: bool) -> str:
    """Return why a row cannot be judged; empty if it can."""
    if row["cpusets_enabled"] < 0:
        return "cpusets were being switched on"
    # The recorder captures both or neither. If the model needs preempt_count it raises UnknownFact.
    if kernel.features.config_preempt_rt and row["softirq_disable_cnt"] is None and row["preempt_count"] is not None:
        return "softirq_disable_cnt was not captured"
    if row["entry"] == "bulk":
        return unobserved_bulk(row, may_miss=may_miss)
    return _unobserved_freelist(row, may_miss=may_miss)


def _unobserved_freelist(row: Row, *, may_miss: bool) -> str:
    if row["freelist_calls"] is None:
        return DAMAGED
    if row["freelist_calls"] == 0:
        return "get_page_from_freelist was not seen, and probe hits were missed" if may_miss else ""
    if row["freelist_gfp_mask"] is None or row["alloc_flags"] is None:
        return DAMAGED
    if row["zonelist_kind"] is None:
        return "the zonelist is none of the snapshot's"
    if row["preferred_zone"] == -1:
        return "the preferred zone is none of the snapshot's"
    return ""


def _mems_changed(row: Row) -> bool:
    return bool(row["mems_allowed"] != row["ac_nodemask_nodes"])


def _other_contexts(context: Context, switches: Switches) -> Iterator[Context]:
    """Yield the contexts that the call may have run in if a switch changed during the call."""
    for cpusets in switches.cpusets_enabled | {context.cpusets_enabled}:
        for mask in switches.gfp_allowed_mask | {context.gfp_allowed_mask}:
            for defrag in switches.defrag_mode | {context.defrag_mode}:
                other = replace(context, cpusets_enabled=cpusets, gfp_allowed_mask=mask, defrag_mode=defrag)
                if other != context:
                    yield other


def _differences(expected: Preparation, compared: Iterable[_Compared]) -> Iterator[Difference]:
    effects = {step.rule: step.effect for step in expected.steps}
    for name, want, got, rule in compared:
        if want != got:
            yield Difference(name, want, got, rule, effects.get(rule, expected.reason or ""))


def _comparisons(kernel: Kernel, expected: Preparation, row: Row) -> Iterator[_Compared]:
    """Yield each field with the model's value, the kernel's value, and the rule that sets it."""
    if row["entry"] == "bulk":
        yield from bulk_comparisons(kernel, expected, row)
        return
    outcome = "prepared" if row["freelist_calls"] else "rejected"
    yield "outcome", expected.outcome, outcome, "order"
    if expected.outcome != outcome:
        return
    if outcome == "rejected":
        # Without a traced return, the outcome alone is compared.
        if row["page"] is not None:
            yield "page", False, row["page"], "order"
    else:
        yield from _context_comparisons(expected, row)
        yield from _flag_comparisons(kernel, expected, row)
        if row["prepare_returned"] is not None:
            yield from _prepare_comparisons(expected, row)


def _context_comparisons(expected: Preparation, row: Row) -> Iterator[tuple[str, Any, Any, str]]:
    nodes = None if expected.nodemask_value is None else format_nodelist(expected.nodemask_value)
    preferred = None if expected.preferred_zone is None else tuple(expected.preferred_zone)
    zonelist = (expected.zonelist_kind, expected.zonelist_nid)
    yield "freelist_order", row["order"], row["freelist_order"], "order"
    yield "zonelist", zonelist, (row["zonelist_kind"], row["zonelist_nid"]), "zonelist"
    yield "ac_nodemask", expected.nodemask, row["ac_nodemask"], "cpuset"
    yield "ac_nodemask_nodes", nodes, row["ac_nodemask_nodes"], "cpuset"
    yield "preferred_zone", preferred, _preferred(row), "preferred_zone"
    yield "migratetype", expected.migratetype, row["migratetype"], "gfp_migratetype"
    yield "highest_zoneidx", expected.highest_zoneidx, row["highest_zoneidx"], "gfp_zone"
    yield "spread_dirty_pages", expected.spread_dirty_pages, row["spread_dirty_pages"], "spread_dirty_pages"


def _flag_comparisons(kernel: Kernel, expected: Preparation, row: Row) -> Iterator[tuple[str, Any, Any, str]]:
    gfp, flags = expected.gfp or 0, expected.alloc_flags or 0
    yield "freelist_gfp_mask", gfp, row["freelist_gfp_mask"], _gfp_rule(kernel, gfp ^ row["freelist_gfp_mask"])
    yield "alloc_flags", flags, row["alloc_flags"], _alloc_flags_rule(kernel, flags ^ row["alloc_flags"])


def _prepare_comparisons(expected: Preparation, row: Row) -> Iterator[tuple[str, Any, Any, str]]:
    yield "prepare_returned", True, row["prepare_returned"], "order"
    yield "prepare_alloc_mask", expected.gfp, row["prepare_alloc_mask"], "cpuset"
    yield "prepare_alloc_flags", expected.prepare_alloc_flags, row["prepare_alloc_flags"], "cpuset"
    yield "prepare_same_context", True, row["prepare_same_context"], "preferred_zone"


def _preferred(row: Row) -> tuple[int, int] | None:
    return None if row["preferred_node"] is None else (row["preferred_node"], row["preferred_zone"])


def _gfp_rule(kernel: Kernel, bits: int) -> str:
    if bits & kernel.bits.gfp_hardwall:
        return "cpuset"
    scoped = kernel.bits.gfp_io | kernel.bits.gfp_fs | kernel.bits.gfp_movable
    return "gfp_context" if kernel.features.gfp_context_on_fast_path and bits & scoped else "gfp_allowed_mask"


def _alloc_flags_rule(kernel: Kernel, bits: int) -> str:
    if bits & kernel.bits.alloc_cpuset:
        return "cpuset"
    if bits & kernel.bits.alloc_cma:
        return "cma"
    if bits & kernel.bits.alloc_highatomic:
        return "highatomic"
    return "nofragment"
