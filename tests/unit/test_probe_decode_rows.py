# SPDX-License-Identifier: MIT
"""Captured records become rows: pointers get names, unknown ones count as unknown."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.machine import ZoneRef
from kalloctrace.kernel.memory_layout import MemoryLayout
from kalloctrace.probe.decode.rows import RowMaker
from kalloctrace.probe.layout import struct_dtype
from kalloctrace.trace.schema import BULK as BULK_COLUMNS

OFFSETS = {
    ("task_struct", "mems_allowed"): 3184,
    ("alloc_context", "zonelist"): 0,
    ("alloc_context", "nodemask"): 8,
    ("alloc_context", "preferred_zoneref"): 16,
    ("alloc_context", "migratetype"): 24,
    ("alloc_context", "highest_zoneidx"): 28,
    ("alloc_context", "spread_dirty_pages"): 32,
}
LAYOUT = MemoryLayout(
    nodes=(),
    zonelists={},
    zone_addresses={0x1000: ZoneRef(0, 1), 0x2000: ZoneRef(1, 2)},
    zonelist_addresses={0x7000: ("FALLBACK", 0), 0x8000: ("NOFALLBACK", 1)},
)
TASK = 0xFFFF888000100000


class FakeBtf:
    """The offsets of Debian's 5.10."""

    def has_member(self, struct: str, member: str) -> bool:
        """Return whether a structure has a member."""
        return (struct, member) != ("alloc_context", "alloc_flags")

    def offset(self, struct: str, member: str) -> int:
        """Return a member's offset in bytes."""
        return OFFSETS[struct, member]


def row(
    words: int = 1,
    kernel: str = "5.10",
    struct: str = "record",
    *,
    rt: bool = False,
    **changes: Any,  # noqa: ANN401 fields have types of their own
) -> dict[str, Any]:
    """Return the row of one record: a usual one, with some fields changed.

    Args:
        words: how many words a nodemask has.
        kernel: whose rules.
        struct: the kind of record.
        rt: of that kernel's rt flavour.
        changes: fields of the record; `ac` as a tuple of zonelist, nodemask, migratetype, highest_zoneidx, dirty.
    """
    records = np.zeros(1, struct_dtype(struct, {"NODEMASK_WORDS": words, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5}))
    zonelist, nodemask, migratetype, highest, dirty = changes.pop("ac", (0x7000, 0, 1, 3, 0))
    usual = {
        "task": TASK,
        "pid_tgid": 7 << 32 | 8,
        "comm": b"python",
        "freelist_calls": 1,
        "preferred_zone": 0x2000,
        "preferred_zone_idx": 2,
        "stack": -1,
        "mems_allowed": [0b11] + [0] * (words - 1),
        "ac": [zonelist, nodemask, 0x7010, migratetype | highest << 32, dirty],
    }
    for name, value in {**usual, **changes}.items():
        records[name][0] = value
    features = replace(builtin_features(kernel), config_preempt_rt=rt)
    maker = RowMaker(LAYOUT, FakeBtf(), features, (1 << 64 * words) - 1, lambda stack: f"stack {stack}")  # type: ignore[arg-type] # the method it calls
    (found,) = maker.rows(records).to_pylist()
    return found  # type: ignore[no-any-return] # Arrow has no types


def test_group_is_named() -> None:
    """By the path of its id, if groups are recorded."""
    records = np.zeros(2, struct_dtype("record", {"NODEMASK_WORDS": 1, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5}))
    records["cgroup"] = [7, 9]
    features, paths = builtin_features("5.10"), {7: "/init.scope", 9: "/a"}
    named, unnamed = (
        RowMaker(LAYOUT, FakeBtf(), features, 1, str, group_path=path)  # type: ignore[arg-type] # as above
        for path in (paths.__getitem__, None)
    )
    assert named.rows(records)["cgroup"].to_pylist() == ["/init.scope", "/a"]
    assert unnamed.rows(records)["cgroup"].to_pylist() == [None, None]


def test_task_is_named() -> None:
    """Process, thread and name come apart."""
    found = row()
    assert (found["pid"], found["tid"], found["comm"]) == (7, 8, "python")


def test_members_of_alloc_context_are_taken_at_their_offsets() -> None:
    """Each with its own size and sign."""
    found = row(ac=(0x8000, 0, 2, 1, 1))
    assert (found["zonelist_kind"], found["zonelist_nid"]) == ("NOFALLBACK", 1)
    assert (found["migratetype"], found["highest_zoneidx"], found["spread_dirty_pages"]) == (2, 1, True)


@pytest.mark.parametrize(
    ("pointer", "argument", "kind"),
    [
        (0, 0, "null"),
        (0xBEEF, 0xBEEF, "caller"),
        (TASK + 3184, 0, "mems_allowed"),
        (0xDEAD, 0xBEEF, "other"),
    ],
)
def test_nodemask_is_known_by_its_address(pointer: int, argument: int, kind: str) -> None:
    """None, the caller's, the task's, or any other."""
    found = row(ac=(0x7000, pointer, 1, 3, 0), nodemask=argument, ac_nodemask_nodes=[0b10])
    assert found["ac_nodemask"] == kind
    assert found["ac_nodemask_nodes"] == (None if kind == "null" else "1")
    assert (found["nodemask"] is None) == (argument == 0)


def test_zone_is_known_by_its_address() -> None:
    """Node and index."""
    found = row()
    assert (found["preferred_node"], found["preferred_zone"]) == (1, 2)


def test_terminating_zoneref_is_no_zone() -> None:
    """Its zone is NULL."""
    found = row(preferred_zone=0, preferred_zone_idx=0)
    assert (found["preferred_node"], found["preferred_zone"]) == (None, None)


def test_unknown_addresses_are_not_guessed() -> None:
    """Such as a node added after the snapshot; verify then reports unknown."""
    found = row(preferred_zone=0x9999, ac=(0x9999, 0, 1, 3, 0))
    assert found["preferred_zone"] == -1
    assert (found["zonelist_kind"], found["zonelist_nid"]) == (None, None)


def test_zone_that_contradicts_its_zoneref_is_unknown() -> None:
    """The zoneref has the index too."""
    assert row(preferred_zone_idx=1)["preferred_zone"] == -1


def test_rejected_request_has_no_context() -> None:
    """get_page_from_freelist() was not called, so its columns are null, not zero."""
    found = row(freelist_calls=0)
    for column in ("freelist_gfp_mask", "alloc_flags", "zonelist_kind", "ac_nodemask", "migratetype", "preferred_zone"):
        assert found[column] is None


def test_nodes_beyond_the_first_word_are_kept() -> None:
    """A nodemask of two words."""
    assert row(words=2, mems_allowed=[0b1, 0b10])["mems_allowed"] == "0,65"


def test_stack_is_absent_without_an_id() -> None:
    """A negative id is an error code of the kernel."""
    assert row()["stack"] is None
    assert row(stack=5)["stack"] == "stack 5"


def test_prepare_alloc_pages_is_absent_where_it_is_inlined() -> None:
    """Its columns are null unless its return was seen."""
    assert row()["prepare_returned"] is None
    seen = row(prepare_calls=1, prepare_returned=1, prepare_ac=[0x7000, 0, 0x7010, 1 | 3 << 32, 0])
    assert (seen["prepare_returned"], seen["prepare_same_context"]) == (True, True)
    other = row(prepare_calls=1, prepare_returned=1, prepare_ac=[0x7000, 0, 0x7020, 1 | 3 << 32, 0])
    assert other["prepare_same_context"] is False


def test_argument_that_the_entry_lacks_is_absent() -> None:
    """Only the entry of 7.3 takes alloc_flags; 0 there is a value."""
    assert row()["entry_alloc_flags"] is None
    assert row(kernel="7.3")["entry_alloc_flags"] == 0
    assert row(kernel="7.3", entry_alloc_flags=0x400)["entry_alloc_flags"] == 0x400


NORMAL, NOLOCK, BULK, SINGLE = range(4)
TAKEN = {"freelist_calls": 0, "entry": BULK, "page_array": 0x5000, "nr_pages": 4, "returned": 4}


def bulk(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 fields have types of their own
    """Return the row of a call of the bulk allocator."""
    return row(struct="bulk_record", kernel="6.12", **{**TAKEN, **changes})


@pytest.mark.parametrize(
    ("entry", "name"), [(NORMAL, "normal"), (NOLOCK, "nolock"), (BULK, "bulk"), (SINGLE, "bulk_single")]
)
def test_entry_has_a_name(entry: int, name: str) -> None:
    """As record.h numbers them."""
    assert row(entry=entry)["entry"] == name


def test_node_of_the_cpu_is_present_for_the_nolock_entry() -> None:
    """It is captured for allocations without locks; node 0 is a value."""
    assert row(entry=NOLOCK, numa_node_id=1)["numa_node_id"] == 1
    assert row(entry=NOLOCK)["numa_node_id"] == 0
    assert row()["numa_node_id"] is None


def test_argument_of_another_entry_is_absent() -> None:
    """Of the entries of 7.3 only the normal one takes alloc_flags."""
    assert row(kernel="7.3", entry=BULK)["entry_alloc_flags"] is None
    assert row(kernel="7.3", entry=SINGLE)["entry_alloc_flags"] == 0


def test_softirq_count_is_present_on_preempt_rt() -> None:
    """There 0 is a value."""
    assert row(rt=True, softirq_disable_cnt=0x200)["softirq_disable_cnt"] == 0x200
    assert row(rt=True)["softirq_disable_cnt"] == 0
    assert row()["softirq_disable_cnt"] is None


def test_other_entries_have_no_columns_of_the_bulk_allocator() -> None:
    """They are null, not zero."""
    assert {name: value for name, value in row().items() if name.startswith(("bulk_", "nr_"))} == dict.fromkeys(
        ("nr_pages", "nr_populated", *(field.name for field in BULK_COLUMNS))
    )


def test_bulk_row_has_the_examined_pages() -> None:
    """Nodes and zones as lists."""
    found = bulk(examined=3, nodes=[0b10], zones=0b101, memcg_kmem=1, page_owner=0)
    assert (found["bulk_returned"], found["bulk_seen"]) == (4, 3)
    assert (found["bulk_nodes"], found["bulk_zones"]) == ("1", "0,2")
    assert (found["memcg_kmem_online"], found["page_owner_inited"]) == (True, False)
    assert found["bulk_list"] is False
    assert found["bulk_single_gfp_mask"] is None


def test_bulk_row_without_pages_names_no_place() -> None:
    """No set of nodes is the empty one."""
    found = bulk(page_array=0)
    assert (found["bulk_nodes"], found["bulk_zones"], found["bulk_list"]) == (None, None, True)


def test_mask_of_the_single_page_call_is_present_if_it_was_made() -> None:
    """Its mask may be 0."""
    assert bulk(single_calls=1, single_gfp_mask=0)["bulk_single_gfp_mask"] == 0


@pytest.mark.parametrize(
    ("words", "nr_pages", "expected"),
    [
        ([0, 0], 4, 0),
        ([0b0111, 0], 4, 3),
        ([0b1011, 0], 4, 2),
        ([2**64 - 1, 0b1], 100, 65),
        ([2**64 - 1, 2**64 - 1], 128, 128),
        ([2**64 - 1, 2**64 - 1], 129, None),
    ],
)
def test_populated_elements_are_counted_up_to_the_first_gap(words: list[int], nr_pages: int, expected: object) -> None:
    """As the bulk allocator counts them; unknown if all examined elements are populated and there are more."""
    assert bulk(populated=words, nr_pages=nr_pages)["nr_populated"] == expected


FULL: dict[str, Any] = {
    "time": 11,
    "cpu": 12,
    "pid_tgid": 13 << 32 | 14,
    "nodemask": 0xBEEF,
    "nodemask_nodes": [0b100],
    "mems_allowed": [0b1000],
    "ac": (0x7000, 0xBEEF, 15, 16, 1),
    "ac_nodemask_nodes": [0b10000],
    "page": 0xFFFF,
    "gfp_mask": 17,
    "order": 18,
    "preferred_nid": 19,
    "task_flags": 20,
    "preempt_count": 21,
    "cpusets_enabled": -1,
    "gfp_allowed_mask": 22,
    "defrag_mode": 1,
    "freelist_gfp_mask": 23,
    "freelist_order": 24,
    "alloc_flags": 25,
    "freelist_calls": 2,
    "stack": 0,
    "prepare_calls": 1,
    "prepare_returned": 0,
    "prepare_alloc_mask": 26,
    "prepare_alloc_flags": 27,
    "prepare_ac": [0x7000, 0xBEEF, 0x7010, 15 | 16 << 32, 1],
    "entry_alloc_flags": 28,
    "softirq_disable_cnt": 29,
}
EXPECTED = {
    "time": 11,
    "cpu": 12,
    "pid": 13,
    "tid": 14,
    "comm": "python",
    "entry": "normal",
    "gfp_mask": 17,
    "order": 18,
    "preferred_nid": 19,
    "entry_alloc_flags": 28,
    "nodemask": "2",
    "task_flags": 20,
    "preempt_count": 21,
    "softirq_disable_cnt": 29,
    "mems_allowed": "3",
    "cpusets_enabled": -1,
    "gfp_allowed_mask": 22,
    "defrag_mode": True,
    "freelist_calls": 2,
    "freelist_gfp_mask": 23,
    "freelist_order": 24,
    "alloc_flags": 25,
    "zonelist_kind": "FALLBACK",
    "zonelist_nid": 0,
    "ac_nodemask": "caller",
    "ac_nodemask_nodes": "4",
    "preferred_node": 1,
    "preferred_zone": 2,
    "migratetype": 15,
    "highest_zoneidx": 16,
    "spread_dirty_pages": True,
    "prepare_returned": False,
    "prepare_same_context": True,
    "prepare_alloc_mask": 26,
    "prepare_alloc_flags": 27,
    "page": True,
    "stack": "stack 0",
}


def present(found: dict[str, Any]) -> dict[str, Any]:
    """Return the columns that are not null."""
    return {name: value for name, value in found.items() if value is not None}


def test_each_member_has_its_column() -> None:
    """All members of a record, on a kernel that has every one."""
    assert present(row(kernel="7.3", rt=True, **FULL)) == EXPECTED


def test_each_member_of_a_bulk_record_has_its_column() -> None:
    """In addition to those of every record, except those of get_page_from_freelist() and prepare_alloc_pages()."""
    changes = {**FULL, "freelist_calls": 0, "prepare_calls": 0, "entry": BULK, "softirq_disable_cnt": 0}
    changes |= {"page_array": 0, "single_calls": 1, "populated": [0b11, 0], "nodes": [0b101], "nr_pages": 31}
    changes |= {"returned": 32, "examined": 33, "zones": 0b110, "single_gfp_mask": 34, "memcg_kmem": 0, "page_owner": 1}
    shared = ["time", "cpu", "pid", "tid", "comm", "gfp_mask", "order", "preferred_nid", "nodemask", "task_flags"]
    shared += ["preempt_count", "mems_allowed", "cpusets_enabled", "gfp_allowed_mask", "defrag_mode", "page", "stack"]
    assert present(row(struct="bulk_record", kernel="6.12", **changes)) == {
        **{name: EXPECTED[name] for name in shared},
        "entry": "bulk",
        "freelist_calls": 0,
        "nr_pages": 31,
        "nr_populated": 2,
        "memcg_kmem_online": False,
        "page_owner_inited": True,
        "bulk_returned": 32,
        "bulk_seen": 33,
        "bulk_nodes": "0,2",
        "bulk_zones": "1-2",
        "bulk_list": True,
        "bulk_single_gfp_mask": 34,
    }


def test_nodes_that_cannot_exist_are_left_out() -> None:
    """Bits beyond the possible nodes mean nothing."""
    records = np.zeros(1, struct_dtype("record", {"NODEMASK_WORDS": 1, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5}))
    records["mems_allowed"] = 0xFF
    maker = RowMaker(LAYOUT, FakeBtf(), builtin_features("5.10"), 0b101, str)  # type: ignore[arg-type] # the method it calls
    assert maker.rows(records)["mems_allowed"].to_pylist() == ["0,2"]


def test_rows_keep_their_order_and_share_texts() -> None:
    """A text is made once for each distinct value, and not for values of absent rows."""
    records = np.zeros(4, struct_dtype("record", {"NODEMASK_WORDS": 1, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5}))
    records["stack"] = [4, -1, 3, 4]
    records["cpu"] = range(4)
    made = []
    maker = RowMaker(LAYOUT, FakeBtf(), builtin_features("5.10"), 1, lambda stack: made.append(stack) or f"s{stack}")  # type: ignore[arg-type, func-returns-value] # the method it calls
    rows = maker.rows(records)
    assert rows["stack"].to_pylist() == ["s4", None, "s3", "s4"]
    assert rows["cpu"].to_pylist() == [0, 1, 2, 3]
    assert sorted(made) == [3, 4]


class FakeNewBtf(FakeBtf):
    """A kernel whose `struct alloc_context` has alloc_flags."""

    def has_member(self, *_: str) -> bool:
        """Return True."""
        return True

    def offset(self, struct: str, member: str) -> int:
        """Return a member's offset in bytes."""
        return 36 if member == "alloc_flags" else OFFSETS[struct, member]


def test_alloc_flags_of_the_context_are_read_where_they_exist() -> None:
    """Otherwise each is None."""
    ac = np.array([[0, 0, 0, 0, 5 << 32 | 1], [0, 0, 0, 0, 6 << 32]], np.uint64)
    for btf, expected in ((FakeNewBtf(), [5, 6]), (FakeBtf(), [None, None])):
        maker = RowMaker(LAYOUT, btf, builtin_features("5.10"), 1, str)  # type: ignore[arg-type] # the methods it calls
        assert maker.ac_alloc_flags(ac) == expected
