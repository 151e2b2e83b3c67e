# SPDX-License-Identifier: MIT
"""The constants with which the program finds the control group of a task."""

from kalloctrace.kernel.btf import Btf
from kalloctrace.kernel.cgroups import Hierarchy

_MEMORY = "memory_cgrp_id"
"""The enumerator of the controller memory, enum cgroup_subsys_id in include/linux/cgroup-defs.h."""


def group_constants(btf: Btf, hierarchy: Hierarchy) -> dict[str, int | str]:
    """Return the constants that cgroup_of() of common.bpf.c uses; none if the kernel has no such hierarchy.

    Args:
        btf: the kernel's types.
        hierarchy: the hierarchy whose groups are recorded.
    """
    subsystems = dict(btf.enum("cgroup_subsys_id") or ())
    if not btf.has_member("task_struct", "cgroups") or (hierarchy.version == "v1" and _MEMORY not in subsystems):
        return {}
    constants: dict[str, int | str] = {
        "TASK_STRUCT__CGROUPS": btf.offset("task_struct", "cgroups"),
        "TASK_STRUCT__COMM": btf.offset("task_struct", "comm"),
        "CGROUP__KN": btf.offset("cgroup", "kn"),
        "KERNFS_NODE__ID": btf.offset("kernfs_node", "id"),
    }
    if hierarchy.version == "v2":
        return {**constants, "CSS_SET__CGROUP": btf.offset("css_set", "dfl_cgrp")}
    state = btf.offset("css_set", "subsys") + 8 * subsystems[_MEMORY]
    return {
        **constants,
        "CSS_SET__CGROUP": state,
        "CGROUP_SUBSYS_STATE__CGROUP": btf.offset("cgroup_subsys_state", "cgroup"),
    }
