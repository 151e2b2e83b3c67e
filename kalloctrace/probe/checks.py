# SPDX-License-Identifier: MIT
"""Checks whether this machine can be traced, and how to fix what is missing. `doctor` and `record` run these."""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.builtin import known_release
from kalloctrace.flags.rows import LAST
from kalloctrace.kernel.btf import VMLINUX
from kalloctrace.kernel.kallsyms import KALLSYMS
from kalloctrace.kernel.kcore import MASKED, UNMASK, Kcore
from kalloctrace.kernel.live import TRACEFS, LiveKernel, find_entry
from kalloctrace.kernel.proven import load, proof_status
from kalloctrace.probe.attach.audit import NO_WAY, audit_way
from kalloctrace.probe.attach.bcc_import import find_bcc, import_bcc
from kalloctrace.probe.attach.others import bpf_processes, tracers
from kalloctrace.probe.attach.plan import FREELIST, PREPARE, Plan, make_plan, prototype, shown_by
from kalloctrace.probe.attach.program_cache import kept_programs
from kalloctrace.probe.privileges.capabilities import effective
from kalloctrace.probe.privileges.confine import protections
from kalloctrace.probe.privileges.needed import missing_capabilities, sufficient_capabilities

Status = Literal["pass", "warn", "fail"]

_LOCKDOWN = Path("/sys/kernel/security/lockdown")

_Found = tuple[Status, str, str]
_Look = Callable[[LiveKernel], _Found]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was checked.
        status: capture works despite a `warn`.
        detail: what was found.
        fix: what to do about it; empty if there is nothing to do.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values; `mend` is the former name of `fix`."""
        return {"name": self.name, "status": self.status, "detail": self.detail, "fix": self.fix, "mend": self.fix}


def run_checks(kernel: LiveKernel) -> Iterator[Check]:
    """Run all checks; one that fails does not hide the others.

    Args:
        kernel: the running kernel; the checks read it.
    """
    for name, look in (
        ("kernel", _kernel),
        ("privilege", _privilege),
        ("protections", _protections),
        ("lockdown", _lockdown),
        ("BTF", _btf),
        ("tracefs", _tracefs),
        ("kallsyms", _kallsyms),
        ("kcore", _kcore),
        ("BPF trampoline", _trampoline),
        ("bcc", _bcc),
        ("entry", _entry),
        ("freelist", _freelist),
        ("prepare_alloc_pages", _prepare),
        ("program", _plan),
        ("attachment", _attachment),
        ("flag tables", _flag_tables),
        ("proven", _proven),
    ):
        yield _guarded(name, look, kernel)


def others(kernel: LiveKernel) -> Iterator[Check]:
    """Look for others that make a recording dearer, or miss calls; nothing that they do makes one impossible.

    Args:
        kernel: the running kernel.
    """
    for name, look in (("other tracers", _other_tracers), ("other users of BPF", _other_bpf)):
        yield _guarded(name, look, kernel)


INSTEAD = (
    "record on a real kernel in a virtual machine: "
    "kalloctrace lab run --kernel 6.12 -- kalloctrace record -o my.arrows -- ls"
)
"""What works on every machine."""


def require_live(kernel: LiveKernel) -> None:
    """Raise an error if this machine cannot be traced.

    Args:
        kernel: the running kernel.

    Raises:
        KalloctraceError: with every check that failed.
    """
    failed = [check for check in run_checks(kernel) if check.status == "fail"]
    if failed:
        # One cause, such as a missing privilege, fails several checks in the same words.
        fixes = dict.fromkeys(check.fix for check in failed)
        raise KalloctraceError(
            f"cannot trace this machine ({', '.join(check.name for check in failed)})",
            "; ".join(dict.fromkeys(check.detail for check in failed)),
            f"{'; '.join(fixes)}; or {INSTEAD}",
        )


def _guarded(name: str, look: _Look, kernel: LiveKernel) -> Check:
    try:
        return Check(name, *look(kernel))
    except KalloctraceError as error:
        return Check(name, "fail", error.why, error.fix)
    except OSError as error:
        return Check(
            name, "fail", f"{error.filename}: {error.strerror}", "run it as root, on a kernel that has this file"
        )


def _kernel(_: LiveKernel) -> _Found:
    uname = platform.uname()
    if uname.system != "Linux" or uname.machine != "x86_64":
        return "fail", f"{uname.system} {uname.machine}", "use Linux on x86_64, or: kalloctrace lab run"
    if known_release(uname.release, uname.version) is None:
        fix = "check a recording with `kalloctrace verify` before you rely on it"
        return (
            "warn",
            f"{uname.release} {uname.version}: its rules are taken from its symbols and BTF, and from {LAST.series}",
            fix,
        )
    return "pass", f"{uname.release} {uname.version}", ""


def _privilege(kernel: LiveKernel) -> _Found:
    needed = ", ".join(map(str, sufficient_capabilities(kernel)))
    missing = missing_capabilities(kernel, effective())
    who = f"uid {os.geteuid()}"
    if not missing:
        return "pass", f"{who}; what is needed here: {needed}", ""
    fix = f"run it as root: sudo kalloctrace …; or with the capabilities {needed}"
    return "fail", f"{who} without {', '.join(map(str, missing))}", fix


def _protections(_: LiveKernel) -> _Found:
    found = protections()
    detail = f"after attaching: {', '.join(found)}"
    if not any(one.startswith("Landlock") for one in found):
        detail += "; no Landlock, so only seccomp protects files" if "seccomp" in found else "; nothing protects files"
    if "seccomp" in found:
        return "pass", detail, ""
    return "warn", detail, "use a kernel with CONFIG_SECCOMP_FILTER and CONFIG_SECURITY_LANDLOCK"


def _lockdown(_: LiveKernel) -> _Found:
    if not _LOCKDOWN.exists():
        return "pass", "not in this kernel", ""
    state = _LOCKDOWN.read_text().strip()
    if "[confidentiality]" in state:
        fix = "boot with lockdown=integrity or lockdown=none (and Secure Boot set accordingly)"
        return "fail", f"{state}: BPF programs may not read kernel memory", fix
    return "pass", state, ""


def _btf(kernel: LiveKernel) -> _Found:
    return "pass", f"{VMLINUX}, struct alloc_context of {kernel.btf.size('alloc_context')} bytes", ""


def _tracefs(_: LiveKernel) -> _Found:
    for folder in TRACEFS:
        if (folder / "events/kmem").is_dir():
            return "pass", str(folder), ""
    fix = "mount it: mount -t tracefs nodev /sys/kernel/tracing"
    return "warn", "not mounted or not readable: flag names come from built-in tables", fix


def _kallsyms(kernel: LiveKernel) -> _Found:
    if kernel.symbols.empty():
        return "fail", f"{KALLSYMS} {MASKED}", f"{UNMASK}; kernel.kptr_restrict must not be 2"
    if kernel.symbols.addresses_hidden():
        return "fail", f"{KALLSYMS} shows no addresses", "run as root, or: sysctl kernel.kptr_restrict=1"
    return "pass", f"{KALLSYMS} shows addresses", ""


def _kcore(_: LiveKernel) -> _Found:
    with Kcore():
        return "pass", "/proc/kcore can be read", ""


def _trampoline(kernel: LiveKernel) -> _Found:
    for symbol, option in (
        ("bpf_trampoline_link_prog", "CONFIG_BPF_JIT and CONFIG_DEBUG_INFO_BTF"),
        ("__fentry__", "CONFIG_FUNCTION_TRACER"),
        ("bpf_ringbuf_output", "CONFIG_BPF_SYSCALL, from 5.8 on"),
    ):
        if kernel.symbols.address(symbol) is None:
            return "fail", f"no symbol {symbol}: tracing programs cannot be attached", f"use a kernel with {option}"
    return "pass", "the kernel has fentry, fexit and the BPF ring buffer", ""


def _bcc(_: LiveKernel) -> _Found:
    kept = kept_programs()
    try:
        origin = find_bcc().origin
    except KalloctraceError as error:
        if not kept:
            raise
        detail = f"{error.why}; {len(kept)} compiled programs of this kernel are kept in {kept[0].parent}"
        return "warn", detail, f"to record in another way than before, {error.fix}"
    if kept:
        # To load it takes memory that a recorder then keeps.
        return "pass", f"{origin}; {len(kept)} compiled programs of this kernel are kept", ""
    version = getattr(import_bcc(), "__version__", "of unknown version")
    return "pass", f"{version}, {origin}", ""


def _entry(kernel: LiveKernel) -> _Found:
    return "pass", prototype(kernel.btf, find_entry(kernel.symbols)), ""


def _freelist(kernel: LiveKernel) -> _Found:
    return "pass", prototype(kernel.btf, FREELIST), ""


def _prepare(kernel: LiveKernel) -> _Found:
    if kernel.symbols.address(PREPARE) is None:
        return "pass", f"inlined; its result is traced in {FREELIST}", ""
    return "pass", "a function of its own; traced too", ""


def _plan(kernel: LiveKernel) -> _Found:
    plan = make_plan(kernel)
    if plan.left_out:
        fix = "report the kernel's release: these functions are not supported on it yet"
        return "warn", f"not traced, because of an unknown prototype: {'; '.join(plan.left_out)}", fix
    entries = ", ".join(name for name in (plan.entry, plan.nolock, plan.bulk) if name is not None)
    return "pass", f"{entries} and {FREELIST}; prototypes as expected", ""


def _attachment(kernel: LiveKernel) -> _Found:
    plan = make_plan(kernel)
    chosen = plan.attachment
    if chosen.way == "jump" and not any((folder / "kprobe_events").exists() for folder in TRACEFS):
        fix = "mount tracefs: mount -t tracefs nodev /sys/kernel/tracing; or record with --attach fentry"
        return "warn", f"{chosen}: {chosen.reason}; but there is no kprobe_events", fix
    return "pass", f"{chosen}: {chosen.reason}{_audit(kernel, plan)}", ""


def _audit(kernel: LiveKernel, plan: Plan) -> str:
    """Return how one probe is audited, for people."""
    if plan.one is None:
        return ""
    way = audit_way(shown_by(kernel))
    if way is None:
        return f"; record does not audit it by the pair: {NO_WAY}"
    return f"; record audits it by pair:{way}, shortly before and after; --audit does so meanwhile"


def _other_tracers(kernel: LiveKernel) -> _Found:
    found = tracers((find_entry(kernel.symbols), FREELIST))
    if not found:
        return "pass", "nothing else is attached to these functions", ""
    return "warn", "; ".join(found), "stop these tracers: each makes an allocation dearer"


def _other_bpf(_: LiveKernel) -> _Found:
    found = bpf_processes()
    detail = f"{', '.join(found)}; while one calls bpf(2), kprobes miss calls, which are counted" if found else "none"
    return "pass", detail, ""


def _flag_tables(kernel: LiveKernel) -> _Found:
    tables = kernel.tables
    return "pass", f"{tables.source}, {len(tables.gfp_print)} names of gfp flags", ""


def _proven(kernel: LiveKernel) -> _Found:
    uname = platform.uname()
    found = proof_status(kernel.features, uname.release, uname.version, load())
    if found.covered:
        return "pass", str(found), ""
    return "warn", str(found), "check what you record with kalloctrace verify, and report any mismatch"
