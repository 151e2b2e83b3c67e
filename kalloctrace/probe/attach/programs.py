# SPDX-License-Identifier: MIT
"""Loads BPF programs from their instructions, and attaches those of tracepoints and trampolines."""

import ctypes

from kalloctrace.errors import KalloctraceError
from kalloctrace.system_calls import bpf

# include/uapi/linux/bpf.h: enum bpf_cmd, enum bpf_prog_type, enum bpf_attach_type
_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17
TYPE_KPROBE, TYPE_RAW_TRACEPOINT, TYPE_TRACING = 2, 17, 26
TRACE_FENTRY, TRACE_FEXIT, PERF_EVENT, TRACE_KPROBE_MULTI = 24, 25, 41, 42

INSTRUCTION_BYTES = 8
_NAME_BYTES = 15
_LOG_BYTES = 1 << 20
_LOG_LINES = 5

# prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, …, prog_name, …, expected_attach_type, …,
# attach_btf_id
_LAYOUT = "<IIQQ IIQ 8x 16s 4x I 36x I"


def load_program(instructions: bytes, kind: int, *, name: str, attach_type: int = 0, btf_id: int = 0) -> int:
    """Load a program, and return its file.

    Args:
        instructions: its code; maps are named by their files in it.
        kind: TYPE_*.
        name: as the kernel shows it, up to 15 bytes.
        attach_type: how it will be attached, where the kernel must know this before.
        btf_id: the function that a program of TYPE_TRACING is for.

    Raises:
        OSError: the kernel refused; its text ends with what the verifier said.
    """
    code, license_ = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_BYTES)

    def load(level: int) -> int:
        logged = (level, _LOG_BYTES, ctypes.addressof(log)) if level else (0, 0, 0)
        head = (kind, len(instructions) // INSTRUCTION_BYTES, ctypes.addressof(code), ctypes.addressof(license_))
        return bpf(_PROG_LOAD, _LAYOUT, *head, *logged, name.encode()[:_NAME_BYTES], attach_type, btf_id)

    try:
        return load(0)
    except OSError as error:
        number = error.errno
    try:
        return load(1)
    except OSError as error:
        said = log.value.decode(errors="replace").strip().splitlines()[-_LOG_LINES:]
        raise OSError(number, "; ".join([f"{name}: {error.strerror}", *said])) from error


def link_program(program: int, tracepoint: str = "") -> int:
    """Attach a program to a raw tracepoint, or by a trampoline to the function that it was loaded for; return the link.

    Args:
        program: its file.
        tracepoint: the name of the tracepoint; empty for a trampoline.

    Raises:
        OSError: the kernel refused.
    """
    name = ctypes.create_string_buffer(tracepoint.encode())
    return bpf(_RAW_TRACEPOINT_OPEN, "<QI", ctypes.addressof(name) if tracepoint else 0, program)


def not_loaded(why: str) -> KalloctraceError:
    """Return the error for a program, or maps, that the kernel or the compiler refused, with their reason."""
    return KalloctraceError("cannot load the BPF program", why, "see what is missing: kalloctrace doctor")
