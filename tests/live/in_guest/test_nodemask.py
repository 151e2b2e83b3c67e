# SPDX-License-Identifier: MIT
"""Sets of 1 to 16 words of nodes, in the running kernel: its verifier accepts them, and each node has its own bit."""

import ctypes
import os
import struct
from typing import Any

import pytest

from kalloctrace.kernel.live import LiveKernel
from kalloctrace.probe.attach.bcc_import import import_bcc
from kalloctrace.probe.attach.choice import ASKED
from kalloctrace.probe.attach.plan import make_plan
from kalloctrace.probe.attach.sizes import BULK_PENDING, BULK_RING_BYTES, PENDING
from kalloctrace.probe.layout import bpf_folder, struct_dtype
from kalloctrace.probe.maps.single_value import create_single_value

WORDS = range(1, 17)

_SYS_BPF = 321
_BPF_PROG_TEST_RUN = 10
_TEST_RUN_ATTR = "IIIIQQIIIIQQIIII"
"""prog_fd, retval, data sizes, data, repeat, duration, ctx_size_in, ctx_size_out, ctx_in, ctx_out, flags, cpu, …"""

ONE_SIZE = """
#undef NODEMASK_WORDS
#define NODEMASK_WORDS {words}
#define node_set node_set_{words}
#include "nodemask.h"
#undef node_set
struct nodes_{words} {{ u64 words[{words}]; }};
BPF_ARRAY(nodes_{words}, struct nodes_{words}, 1);
int add_{words}(struct bpf_raw_tracepoint_args *ctx)
{{
	int zero = 0;
	struct nodes_{words} *n = nodes_{words}.lookup(&zero);

	if (n)
		node_set_{words}(ctx->args[0], n->words);
	return 0;
}}
"""

BULK = """
int on_bulk(struct pt_regs *ctx)
{
	return bulk_called(ctx, ctx->sp, ctx->di, ctx->si, ctx->dx, ctx->cx, ctx->r8);
}

int on_bulk_return(struct pt_regs *ctx)
{
	return bulk_returned(ctx->sp - 8, ctx->ax);
}
"""


def compiled(text: str, constants: dict[str, int | str]) -> Any:  # noqa: ANN401 bcc has no types
    """Return a program of bcc's."""
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder())
    flags = [
        f"-D{name}={value:#x}ULL" if isinstance(value, int) else f"-D{name}={value}"
        for name, value in constants.items()
    ]
    return import_bcc().BPF(text=text.encode(), cflags=[f"-I{bpf_folder()}", *flags])


def run_once(program: int, argument: int) -> None:
    """Run a loaded raw tracepoint's program with one argument."""
    context = ctypes.create_string_buffer(struct.pack("Q", argument), 8)
    attr = struct.pack(_TEST_RUN_ATTR, program, *([0] * 7), 8, 0, ctypes.addressof(context), *([0] * 5))
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.syscall(_SYS_BPF, _BPF_PROG_TEST_RUN, ctypes.c_char_p(attr), len(attr))
    assert code == 0, os.strerror(ctypes.get_errno())


@pytest.mark.long
def test_each_node_has_its_bit_and_no_other() -> None:
    """A node beyond the set is left out."""
    bpf = compiled("#include <uapi/linux/ptrace.h>\n" + "".join(ONE_SIZE.format(words=words) for words in WORDS), {})
    zero = ctypes.c_int(0)
    for words in WORDS:
        program, table = bpf.load_func(b"add_%d" % words, bpf.RAW_TRACEPOINT).fd, bpf[b"nodes_%d" % words]
        for node in (*range(64 * words + 64), 1 << 32, (1 << 64) - 1):
            table[zero] = table.Leaf()
            run_once(program, node)
            assert int.from_bytes(bytes(table[zero]), "little") == (1 << node if node < 64 * words else 0), (
                words,
                node,
            )
    bpf.cleanup()


@pytest.mark.parametrize("words", [*(pytest.param(each, marks=pytest.mark.long) for each in (1, 2, 3, 4)), 16])
def test_verifier_accepts_the_bulk_allocators_program(words: int) -> None:
    """Also where the kernel has no such function: the program can be loaded all the same."""
    plan = make_plan(LiveKernel(), "returns", ASKED["pair:jump"])
    slots = create_single_value("slots", struct_dtype("slot", {"NODEMASK_WORDS": words, "BY_WORDS": 0}).itemsize)
    frame_offsets = create_single_value("frame_offsets", struct_dtype("frame_offsets").itemsize)
    constants = {
        **plan.constants,
        "NODEMASK_WORDS": words,
        "BY_WORDS": 0,
        "PENDING": PENDING,
        "RECORDS_PAGES": 1,
        "NR_CPUS": 1,
        "SLOTS_FD": slots,
        "FRAME_OFFSETS_FD": frame_offsets,
        "BULK_PENDING": BULK_PENDING,
        "BULK_RING_PAGES": BULK_RING_BYTES // 4096,
        "BULK_ARGUMENTS": 5,
        "PAGE__FLAGS": 0,
        "NODES_PGSHIFT": 54,
        "ZONES_PGSHIFT": 51,
        "ZONES_MASK": 7,
    }
    text = "".join((bpf_folder() / f"{name}.bpf.c").read_text() for name in ("common", "bulk")) + BULK
    bpf = compiled(text, constants)
    for name in (b"on_bulk", b"on_bulk_return"):
        assert bpf.load_func(name, bpf.KPROBE).fd >= 0
    bpf.cleanup()
    for file in (slots, frame_offsets):
        os.close(file)
