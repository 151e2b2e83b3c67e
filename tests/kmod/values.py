# SPDX-License-Identifier: MIT
"""Compares the kernel's own values, which the module prints, with what kalloctrace says of the same kernel.

Run as root in a guest that has the module:

    python values.py --module PATH

It prints what differs from what kalloctrace reads of the running kernel, and from what it has built in for that
release if it has, and exits with 1 if anything does. What only one side has is listed, and not compared.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from kalloctrace.flags.builtin import known_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.builtin import builtin_snapshot, default_allowed_mask
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.live import LiveKernel
from kalloctrace.kernel.machine import Machine
from kalloctrace.kernel.memory_layout import PageFlags
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.model.gfp import GFP_ZONEMASK
from kalloctrace.model.kernel import Kernel
from kalloctrace.model.preempt import (
    SOFTIRQ_DISABLE_OFFSET,
    SOFTIRQ_OFFSET,
    preempt_count,
)
from tests.kmod.stimulus import kernel_values, load

Said = dict[str, int]

_TAKEN_FOR_GRANTED = ("CONFIG_DEBUG_VM", "CONFIG_FAIL_PAGE_ALLOC")
"""Options that the model has no rule for: they are off in Debian's kernels."""


class Difference(NamedTuple):
    """A value that is not what was said.

    Attributes:
        name: the kernel's name for it.
        kernel: the kernel's value.
        said: what kalloctrace says, None where it knows no such flag.
    """

    name: str
    kernel: int
    said: int | None


@dataclass(frozen=True)
class Comparison:
    """What came of comparing.

    Attributes:
        equal: how many values are the same.
        differences: those that are not.
        not_said: names of values that kalloctrace says nothing of.
        not_shown: names that kalloctrace has a value for and the module has not.
    """

    equal: int
    differences: tuple[Difference, ...]
    not_said: tuple[str, ...]
    not_shown: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        differences = [difference._asdict() for difference in self.differences]
        return {
            "equal": self.equal,
            "differences": differences,
            "not_said": list(self.not_said),
            "not_shown": list(self.not_shown),
        }


def compare(values: Mapping[str, int], said: Mapping[str, int]) -> Comparison:
    """Compare the kernel's values, as `with_tests` returns them, with what is said of them.

    A gfp flag that is not said is one that the kernel may not have: its value must be 0.
    """
    differences = [Difference(name, values[name], said[name]) for name in values.keys() & said.keys()]
    unknown = [Difference(name, values[name], None) for name in values.keys() - said.keys() if _is_gfp_bit(name)]
    wrong = [one for one in differences if one.kernel != one.said] + [one for one in unknown if one.kernel]
    return Comparison(
        equal=len(differences) + len(unknown) - len(wrong),
        differences=tuple(sorted(wrong)),
        not_said=tuple(name for name in values if name not in said and not _is_gfp_bit(name)),
        not_shown=tuple(name for name in said if name not in values),
    )


def with_tests(values: Mapping[str, int]) -> Said:
    """Return the kernel's values with the masks of its tests of the context, which are put together of them.

    Source: in_interrupt() and in_task() in include/linux/preempt.h of 5.10.262-1, 6.1.192-2 and 7.3.4-1~bpo13+1.
    """
    upper = values["HARDIRQ_MASK"] | values["NMI_MASK"]
    tests = {"in_interrupt": values["SOFTIRQ_MASK"] | upper, "in_task": values["SOFTIRQ_OFFSET"] | upper}
    return {**values, **tests}


def said_by_snapshot(snapshot: Snapshot) -> Said:
    """Return what a snapshot says of its kernel, whatever the machine."""
    table = enumerate(Kernel.of(snapshot).gfp_zone_table)
    zones = {f"gfp_zone({modifiers})": zone for modifiers, zone in table}
    return {**_said_by_tables(snapshot.tables), **_said_by_features(snapshot.features), **zones}


def _said_by_tables(tables: FlagTables) -> Said:
    zones = dict(tables.zone_type)
    return {
        **dict(tables.gfp_print),
        **dict(tables.gfp_bits),
        **dict(tables.alloc),
        **dict(tables.pf),
        **dict(tables.migratetype),
        **zones,
        **dict(tables.zone_watermarks),
        "MAX_NR_ZONES": zones["__MAX_NR_ZONES"],
        "GFP_ZONEMASK": GFP_ZONEMASK,
        "CONFIG_LOCKDEP": tables.has_gfp("__GFP_NOLOCKDEP"),
        "CONFIG_KASAN_HW_TAGS": tables.has_gfp("__GFP_SKIP_ZERO"),
        **{f"CONFIG_{name}": name in zones for name in ("ZONE_DMA", "ZONE_DMA32", "ZONE_DEVICE")},
        "CONFIG_HIGHMEM": "ZONE_HIGHMEM" in zones,
        **dict.fromkeys(_TAKEN_FOR_GRANTED, 0),
    }


def _said_by_features(features: Features) -> Said:
    said = {
        "MAX_PAGE_ORDER": features.max_order,
        "CONFIG_CMA": features.config_cma,
        "CONFIG_CPUSETS": features.config_cpusets,
        "CONFIG_NUMA": features.config_numa,
        "CONFIG_PREEMPT_RT": features.config_preempt_rt,
        "SOFTIRQ_OFFSET": SOFTIRQ_OFFSET,
        "SOFTIRQ_DISABLE_OFFSET": SOFTIRQ_DISABLE_OFFSET,
        "HARDIRQ_OFFSET": preempt_count(features, "hardirq"),
        "NMI_OFFSET": preempt_count(features, "nmi"),
        features.context_test: features.interrupt_mask,
    }
    if features.nolock != "none":
        *costly, largest = features.nolock_orders
        said["PAGE_ALLOC_COSTLY_ORDER"] = len(costly) - 1
        said["HPAGE_PMD_ORDER"] = largest
        said["CONFIG_TRANSPARENT_HUGEPAGE"] = 1
    return said


def said_of_mask(mask: int) -> Said:
    """Return what is said by the gfp bits (`gfp_t`) that the kernel knows, once it has booted."""
    return {"__GFP_BITS_MASK": mask, "__GFP_BITS_SHIFT": mask.bit_length()}


def said_by_btf(btf: Btf, names: Iterable[str]) -> Said:
    """Return the sizes and offsets that are asked for as `sizeof STRUCT` and `offsetof STRUCT.MEMBER`."""
    said = {"sizeof nodemask_t": btf.member_size("task_struct", "mems_allowed")}
    for name in names:
        kind, _, what = name.partition(" ")
        if kind == "sizeof" and what != "nodemask_t":
            said[name] = btf.size(what)
        elif kind == "offsetof":
            said[name] = btf.offset(*what.split("."))
    return said


def said_by_machine(machine: Machine, zones: int) -> Said:
    """Return what a machine says of its nodes.

    Args:
        machine: the machine.
        zones: MAX_NR_ZONES, with which the module makes one number of a node and a zone.
    """
    said = {"num_online_nodes()": machine.nr_online_nodes, "cpusets": machine.cpusets_enabled}
    for node in machine.nodes:
        said.update({f"present_pages[{node.nid}][{zone.index}]": zone.present_pages for zone in node.zones})
        for kind, lists in enumerate((machine.fallback, machine.nofallback)):
            list_name = f"zonelist[{node.nid}][{kind}]"
            said[f"{list_name}.length"] = len(lists[node.nid])
            said.update({f"{list_name}[{at}]": ref.node * zones + ref.zone for at, ref in enumerate(lists[node.nid])})
        if machine.topology is not None:
            for other in machine.nodes:
                distance = machine.topology.node_distance(node.nid, other.nid)
                said[f"node_distance[{node.nid}][{other.nid}]"] = distance
    if machine.topology is not None:
        said["MAX_NUMNODES"] = machine.topology.max_numnodes
        said["NODES_SHIFT"] = machine.topology.max_numnodes.bit_length() - 1
    return said


def said_by_page_flags(flags: PageFlags) -> Said:
    """Return what is said of where a page's flags hold its node and zone."""
    return {
        "NODES_PGSHIFT": flags.nodes_pgshift,
        "ZONES_PGSHIFT": flags.zones_pgshift,
        "ZONES_MASK": flags.zones_mask,
    }


def compare_live(values: Mapping[str, int]) -> Comparison:
    """Compare the kernel's values with what kalloctrace reads of the running kernel and machine."""
    live = LiveKernel()
    machine = live.machine_now()
    said = {
        **said_by_snapshot(live.snapshot),
        **said_of_mask(machine.gfp_allowed_mask),
        **said_by_btf(live.btf, values),
        **said_by_machine(machine, values["MAX_NR_ZONES"]),
        **(said_by_page_flags(live.page_flags) if live.page_flags else {}),
    }
    return compare(with_tests(values), said)


def compare_builtin(values: Mapping[str, int], release: str) -> Comparison:
    """Compare the kernel's values with what is built in for a release.

    Args:
        values: the values.
        release: `uname -r`, or a name such as `5.10`.
    """
    snapshot = builtin_snapshot(release)
    said = {**said_by_snapshot(snapshot), **said_of_mask(default_allowed_mask(snapshot.tables))}
    return compare(with_tests(values), said)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Compares the kernel's values with kalloctrace's.", allow_abbrev=False)
    parser.add_argument("--module", type=Path, metavar="PATH", help="load it, unless it is loaded")
    options = parser.parse_args(arguments)
    if options.module is not None:
        load(options.module)
    values, uname = kernel_values(), os.uname()
    results = {"live": compare_live(values)}
    if known_release(uname.release, uname.version) is not None:
        results["builtin"] = compare_builtin(values, uname.release)
    found = {name: comparison.to_json() for name, comparison in results.items()}
    sys.stdout.write(json.dumps({"release": uname.release, **found}) + "\n")
    return 1 if any(comparison.differences for comparison in results.values()) else 0


def _is_gfp_bit(name: str) -> bool:
    return name.startswith("__GFP_") and not name.startswith("__GFP_BITS_")


if __name__ == "__main__":
    sys.exit(main())
