# SPDX-License-Identifier: MIT
"""The pair of audit.bpf.c, which is loaded beside one probe, and attached only while an audit lasts."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.probe.attach.choice import Shown, Way
from kalloctrace.probe.attach.counts import missed_by_programs
from kalloctrace.probe.attach.links import link_multi, missed_multi
from kalloctrace.probe.attach.programs import (
    TRACE_FENTRY,
    TRACE_KPROBE_MULTI,
    TYPE_KPROBE,
    TYPE_TRACING,
    link_program,
    load_program,
)

ENTRY, FREELIST = "audit_entry", "audit_freelist"
"""The programs of audit.bpf.c."""
NO_WAY = "this kernel is preemptible and has no kprobe.multi, so the pair cannot be attached for a while without loss"
"""Why `audit_way` returns None."""


def audit_way(shown: Shown) -> Way | None:
    """Return how the pair is attached for an audit: so that no call is lost, and that a link is enough.

    Args:
        shown: what the kernel shows.

    Returns:
        None if the kernel has no such way.
    """
    if not shown.preemption.preemptible:
        return "fentry"
    return "multi" if shown.multi else None


class AuditPair:
    """The loaded programs, until `close`. To attach them needs no privilege, only the file of each.

    Args:
        way: how they are attached.
        functions: the function of each program.
        instructions: returns the instructions of a program, by its name.
        address: returns the address of a kernel's function.
        type_id: returns the id of a function in the kernel's types.

    Raises:
        OSError: the kernel refused a program.
    """

    def __init__(
        self,
        way: Way,
        functions: Mapping[str, str],
        instructions: Callable[[str], bytes],
        address: Callable[[str], int],
        type_id: Callable[[str], int],
    ) -> None:
        self._programs: dict[str, int] = {}
        self._links: list[int] = []
        self._fentry = way == "fentry"
        self._addresses = {name: address(function) for name, function in functions.items()}
        self._missed = 0
        try:
            for name, function in functions.items():
                given = (TYPE_TRACING, TRACE_FENTRY, type_id(function)) if self._fentry else _MULTI
                kind, attach_type, btf_id = given
                self._programs[name] = load_program(
                    instructions(name), kind, name=name, attach_type=attach_type, btf_id=btf_id
                )
            self._statistics = {
                name: HeldFile(Path(f"/proc/self/fdinfo/{file}")) for name, file in self._programs.items()
            }
        except BaseException:
            self.close()
            raise

    def attach(self) -> None:
        """Attach both programs.

        Raises:
            OSError: the kernel refused.
        """
        for name, program in self._programs.items():
            link = link_program(program) if self._fentry else link_multi(program, self._addresses[name])
            self._links.append(link)

    def detach(self) -> None:
        """Detach both programs."""
        self._missed += self._missed_by_links()
        for link in self._links:
            os.close(link)
        self._links.clear()

    def missed(self) -> int:
        """Return how many hits the kernel has skipped."""
        return self._missed + self._missed_by_links() + missed_by_programs(self._statistics).total()

    def _missed_by_links(self) -> int:
        return 0 if self._fentry else sum(map(missed_multi, self._links))

    def close(self) -> None:
        """Detach and unload."""
        for file in (*self._links, *self._programs.values()):
            os.close(file)
        self._links.clear()
        self._programs.clear()


_MULTI = (TYPE_KPROBE, TRACE_KPROBE_MULTI, 0)
