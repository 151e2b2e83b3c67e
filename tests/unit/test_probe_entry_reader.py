# SPDX-License-Identifier: MIT
"""The code of the entry, as it lay in the memory of each kernel: `starts` are objdump's (GNU Binutils 2.40)."""

import json
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.probe.attach.entry_code import Addresses, EntryCode, RejectBlock, ScopeBlock
from kalloctrace.probe.attach.entry_reader import read_entry_code
from kalloctrace.probe.attach.x86 import UnknownCodeError, begins_at, copied, instructions, memory, register, written

FOLDER = Path(__file__).parent / "data/entry_code"
KERNELS = sorted(file.stem for file in FOLDER.glob("*.json"))

SCOPES = 0x100C0000
"""PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO and PF_MEMALLOC_PIN: include/linux/sched.h of 6.1 to 7.3."""
FOUR = {"gfp_mask": "bx", "order": "bp", "preferred_nid": "ax", "nodemask": "r12"}
FIVE = {"gfp_mask": "bx", "order": "r12", "preferred_nid": "si", "nodemask": "r14", "alloc_flags": "bp"}
EXPECTED = {
    "6.12": EntryCode(0x166, ScopeBlock(0x2B1, "bx", SCOPES), RejectBlock(0x2A9, FOUR)),
    "7.3": EntryCode(0x1C1, ScopeBlock(0x31F, "bx", SCOPES), RejectBlock(0x241, FIVE)),
}
"""The call and the blocks of each kernel, as read in objdump's listing."""


def recorded(kernel: str) -> dict[str, Any]:
    """Return the recorded code of a kernel's entry, with the addresses in it."""
    found: dict[str, Any] = json.loads((FOLDER / f"{kernel}.json").read_text())
    return {**found, "code": bytes.fromhex(found["code"])}


def read(kernel: str, code: bytes | None = None, mask: int = 0) -> EntryCode:
    """Read a kernel's entry, or other code in its place; `mask` is added to the address of gfp_allowed_mask."""
    entry = recorded(kernel)
    at = Addresses(entry["address"], entry["freelist"], entry["gfp_allowed_mask"] + mask)
    return read_entry_code(code or entry["code"], at, builtin_features(kernel))


@pytest.mark.parametrize("kernel", KERNELS)
def test_instructions_begin_where_objdump_says(kernel: str) -> None:
    """Each instruction of the function is as long as another decoder says."""
    entry = recorded(kernel)
    assert [one.address for one in instructions(entry["code"])] == entry["starts"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_call_and_blocks_are_found(kernel: str) -> None:
    """The offsets and registers are those that a person reads in the listing."""
    found = read(kernel)
    assert found == EXPECTED[kernel]
    assert found.returns_to == found.freelist + 5


def test_a_second_call_is_refused() -> None:
    """With two calls the return address would not tell the first one."""
    entry = recorded("7.3")
    end = entry["address"] + len(entry["code"])
    call = b"\xe8" + (entry["freelist"] - end - 5).to_bytes(4, "little", signed=True)
    with pytest.raises(KalloctraceError, match="cannot use one probe") as error:
        read("7.3", entry["code"] + call)
    assert "2 calls of get_page_from_freelist" in error.value.why


def test_without_the_mask_no_scope_block_is_found() -> None:
    """The register with the mask is known by gfp_allowed_mask, which is applied to it before."""
    assert read("7.3", mask=4).scope is None


def test_unknown_code_has_no_blocks() -> None:
    """A probe is placed only where every instruction before is known."""
    # An opcode that no processor has, in place of the first instruction.
    found = read("7.3", bytes.fromhex("0f0490") + recorded("7.3")["code"][3:])
    assert (found.scope, found.reject) == (None, None)


def test_argument_that_is_lost_has_no_reject_block() -> None:
    """The nodemask is not kept, and its register is used otherwise."""
    code = recorded("7.3")["code"]
    # mov %rcx, %r14; mov $6, %ecx
    kept = bytes.fromhex("4989ceb906000000")
    assert code.count(kept) == 1
    assert read("7.3", code.replace(kept, bytes.fromhex("0f1f00b906000000"))).reject is None


def test_other_limit_has_no_reject_block() -> None:
    """The order is compared with the largest one of the kernel."""
    code = recorded("7.3")["code"]
    limit = bytes.fromhex("4183fc0a")
    assert code.count(limit) == 2
    assert read("7.3", code.replace(limit, bytes.fromhex("4183fc0b"))).reject is None


@pytest.mark.parametrize(
    ("code", "changed", "moved"),
    [
        # mov %edi, %ebx; mov %rcx, %r14; mov 8(%rsp), %eax; movslq %edx, %rsi; mov %sil, %r9b
        ("89fb", {"bx"}, ("di", "bx")),
        ("4989ce", {"r14"}, ("cx", "r14")),
        ("8b442408", {"ax"}, None),
        ("4863f2", {"si"}, ("dx", "si")),
        ("4188f1", {"r9"}, None),
        # mov %eax, 8(%rsp); push %r15; pop %r15; mov $6, %ecx; mov $1, %bh
        ("89442408", set(), None),
        ("4157", {"sp"}, None),
        ("415f", {"r15", "sp"}, None),
        ("b906000000", {"cx"}, None),
        ("b701", {"bx"}, None),
        # or $1, %r15d; cmp $10, %r12d; test $0x20, %bh; xor %eax, %eax; and $0x400, %eax; and 0(%rip), %ebx
        ("4183cf01", {"r15"}, None),
        ("4183fc0a", set(), None),
        ("f6c720", set(), None),
        ("31c0", {"ax"}, None),
        ("2500040000", {"ax"}, None),
        ("231d00000000", {"bx"}, None),
        # cmp %eax, %edi; lea 8(%rsp), %r13; rep stos; rep movsb; sete %al; movzbl %al, %eax; cmovne %r10d, %eax
        ("39c7", set(), None),
        ("4c8d6c2408", {"r13"}, None),
        ("f348ab", {"cx", "di"}, None),
        ("f3a4", {"cx", "si", "di"}, None),
        ("0f94c0", {"ax"}, None),
        ("0fb6c0", {"ax"}, None),
        ("410f45c2", {"ax"}, None),
        # shl $7, %eax; jne; endbr64; nopl 0(%rax); neg %eax; xchg %eax, %edx; bts %eax, %ecx; imul %ebx
        ("c1e007", {"ax"}, None),
        ("7500", set(), None),
        ("f30f1efa", set(), None),
        ("0f1f4000", set(), None),
        ("f7d8", {"ax"}, None),
        ("92", {"ax", "dx"}, None),
        ("0fabc1", {"cx"}, None),
        ("f7eb", {"ax", "dx"}, None),
        # rdtsc; cpuid
        ("0f31", {"ax", "dx"}, None),
        ("0fa2", {"ax", "bx", "cx", "dx"}, None),
        # call, call *%rax: a function may change any; lock cmpxchg %rsi, (%rdi): not known
        ("e800000000", None, None),
        ("ffd0", None, None),
        ("f0480fb137", None, None),
    ],
)
def test_what_an_instruction_changes(code: str, changed: set[str] | None, moved: tuple[str, str] | None) -> None:
    """As Intel's manual has it (volume 2); a part of a register counts as the register."""
    (one,) = instructions(bytes.fromhex(code))
    assert (written(one), copied(one)) == (changed, moved)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # and ebx, [rip + 0x10]; cmp dword [rip + 0x10], 1: relative to the end, behind the immediate operand
        ("231d10000000", ["bx", 0x18]),
        ("833d1000000001", [0x19, None]),
        # mov rsi, [rsi * 8 - 0x10]; test r11d, 0x100c0000; movq xmm0, rax
        ("488b34f5f0ffffff", ["si", None]),
        ("41f7c300000c10", ["r11", None]),
        ("66480f6ec0", [None, "ax"]),
    ],
)
def test_operands(code: str, expected: list[int | str | None]) -> None:
    """Registers have the names of `struct pt_regs`, and memory beside the code has its offset."""
    (one,) = instructions(b"\x90\x90" + bytes.fromhex(code), 2)
    assert [register(one, operand) or memory(one, operand) for operand in one.operands] == expected


@pytest.mark.parametrize("code", ["66", "48", "0f", "8b", "8b44", "8b4424", "e8000000", "231d000000", "a90000", "0f04"])
def test_code_that_ends_within_an_instruction_is_not_known(code: str) -> None:
    """Its length is not guessed."""
    data = b"\x90" + bytes.fromhex(code)
    assert (begins_at(data, 0), begins_at(data, 1), begins_at(data, len(data))) == (True, False, False)
    with pytest.raises(UnknownCodeError, match=f"^{bytes.fromhex(code).hex(' ')}$"):
        list(instructions(data))
