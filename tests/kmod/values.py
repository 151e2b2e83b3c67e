# SPDX-License-Identifier: MIT
"""Compares the kernel's own values, which the module prints, with kalloctrace's values for the same kernel.

Run as root in a guest that has the module:

    python values.py --module PATH

It prints differences from the values that kalloctrace reads from the running kernel, and from its built-in values if
it has any for the release. It exits with 1 if there are differences. Values that only one side has are listed and not
compared.
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

Values = dict[str, int]

_TAKEN_FOR_GRANTED = ("CONFIG_DEBUG_VM", "CONFIG_FAIL_PAGE_ALLOC")
"""Options that the model does not implement; they are off in Debian's kernels."""


class Difference(NamedTuple):
    """A value that differs.

    Attributes:
        name: the kernel's name for it.
        kernel: the kernel's value.
        ours: kalloctrace's value; None if it knows no such flag.
    """

    name: str
    kernel: int
    ours: int | None


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison.

    Attributes:
        equal: the number of equal values.
        differences: the values that differ.
        only_kernel: names of values that kalloctrace does not have.
        only_ours: names of values that the module does not print.
    """

    equal: int
    differences: tuple[Difference, ...]
    only_kernel: tuple[str, ...]
    only_ours: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the comparison as JSON values."""
        differences = [difference._asdict() for difference in self.differences]
        return {
            "equal": self.equal,
            "differences": differences,
            "only_kernel": list(self.only_kernel),
            "only_ours": list(self.only_ours),
        }


def compare(values: Mapping[str, int], ours: Mapping[str, int]) -> Comparison:
    """Compare the kernel's values, from `with_tests`, with kalloctrace's.

    A gfp flag that kalloctrace does not know must have the value 0.
    """
    differences = [Difference(name, values[name], ours[name]) for name in values.keys() & ours.keys()]
    unknown = [Difference(name, values[name], None) for name in values.keys() - ours.keys() if _is_gfp_bit(name)]
    wrong = [one for one in differences if one.kernel != one.ours] + [one for one in unknown if one.kernel]
    return Comparison(
        equal=len(differences) + len(unknown) - len(wrong),
        differences=tuple(sorted(wrong)),
        only_kernel=tuple(name for name in values if name not in ours and not _is_gfp_bit(name)),
        only_ours=tuple(name for name in ours if name not in values),
    )


def with_tests(values: Mapping[str, int]) -> Values:
    """Return the kernel's values with the masks of its context tests, which are computed from them.

    Source: in_interrupt() and in_task() in include/linux/preempt.h of 5.10.262-1, 6.1.192-2 and 7.3.4-1~bpo13+1.
    """
    upper = values["HARDIRQ_MASK"] | values["NMI_MASK"]
    tests = {"in_interrupt": values["SOFTIRQ_MASK"] | upper, "in_task": values["SOFTIRQ_OFFSET"] | upper}
    return {**values, **tests}


def values_of_snapshot(snapshot: Snapshot) -> Values:
    """Return the values in a snapshot that do not depend on the machine."""
    table = enumerate(Kernel.of(snapshot).gfp_zone_table)
    zones = {f"gfp_zone({modifiers})": zone for modifiers, zone in table}
    return {**_values_of_tables(snapshot.tables), **_values_of_features(snapshot.features), **zones}


def _values_of_tables(tables: FlagTables) -> Values:
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


def _values_of_features(features: Features) -> Values:
    ours = {
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
        ours["PAGE_ALLOC_COSTLY_ORDER"] = len(costly) - 1
        ours["HPAGE_PMD_ORDER"] = largest
        ours["CONFIG_TRANSPARENT_HUGEPAGE"] = 1
    return ours


def values_of_mask(mask: int) -> Values:
    """Return the values that follow from gfp_allowed_mask of a booted kernel."""
    return {"__GFP_BITS_MASK": mask, "__GFP_BITS_SHIFT": mask.bit_length()}


def values_of_btf(btf: Btf, names: Iterable[str]) -> Values:
    """Return the sizes and offsets named `sizeof STRUCT` and `offsetof STRUCT.MEMBER`."""
    ours = {"sizeof nodemask_t": btf.member_size("task_struct", "mems_allowed")}
    for name in names:
        kind, _, what = name.partition(" ")
        if kind == "sizeof" and what != "nodemask_t":
            ours[name] = btf.size(what)
        elif kind == "offsetof":
            ours[name] = btf.offset(*what.split("."))
    return ours


def values_of_machine(machine: Machine, zones: int) -> Values:
    """Return the values of a machine's nodes.

    Args:
        machine: the machine.
        zones: MAX_NR_ZONES; the module prints node * MAX_NR_ZONES + zone.
    """
    ours = {"num_online_nodes()": machine.nr_online_nodes, "cpusets": machine.cpusets_enabled}
    for node in machine.nodes:
        ours.update({f"present_pages[{node.nid}][{zone.index}]": zone.present_pages for zone in node.zones})
        for kind, lists in enumerate((machine.fallback, machine.nofallback)):
            list_name = f"zonelist[{node.nid}][{kind}]"
            ours[f"{list_name}.length"] = len(lists[node.nid])
            ours.update({f"{list_name}[{at}]": ref.node * zones + ref.zone for at, ref in enumerate(lists[node.nid])})
        if machine.topology is not None:
            for other in machine.nodes:
                distance = machine.topology.node_distance(node.nid, other.nid)
                ours[f"node_distance[{node.nid}][{other.nid}]"] = distance
    if machine.topology is not None:
        ours["MAX_NUMNODES"] = machine.topology.max_numnodes
        ours["NODES_SHIFT"] = machine.topology.max_numnodes.bit_length() - 1
    return ours


def values_of_page_flags(flags: PageFlags) -> Values:
    """Return the positions of node and zone in page flags."""
    return {
        "NODES_PGSHIFT": flags.nodes_pgshift,
        "ZONES_PGSHIFT": flags.zones_pgshift,
        "ZONES_MASK": flags.zones_mask,
    }


def compare_live(values: Mapping[str, int]) -> Comparison:
    """Compare the kernel's values with those that kalloctrace reads from the running kernel and machine."""
    live = LiveKernel()
    machine = live.machine_now()
    ours = {
        **values_of_snapshot(live.snapshot),
        **values_of_mask(machine.gfp_allowed_mask),
        **values_of_btf(live.btf, values),
        **values_of_machine(machine, values["MAX_NR_ZONES"]),
        **(values_of_page_flags(live.page_flags) if live.page_flags else {}),
    }
    return compare(with_tests(values), ours)


def compare_builtin(values: Mapping[str, int], release: str) -> Comparison:
    """Compare the kernel's values with the built-in ones of a release.

    Args:
        values: the values.
        release: `uname -r`, or a name such as `5.10`.
    """
    snapshot = builtin_snapshot(release)
    ours = {**values_of_snapshot(snapshot), **values_of_mask(default_allowed_mask(snapshot.tables))}
    return compare(with_tests(values), ours)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; return 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Compares the kernel's values with kalloctrace's.", allow_abbrev=False)
    parser.add_argument("--module", type=Path, metavar="PATH", help="load the module unless it is loaded")
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
