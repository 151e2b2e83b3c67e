# SPDX-License-Identifier: MIT
"""Programs and links: what the kernel is asked for, and what is read from it. Guests attach them."""

import ctypes
import errno
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kalloctrace import system_calls
from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.held_file import HeldFile
from kalloctrace.probe.attach import links
from kalloctrace.probe.attach.kprobes import Hook
from kalloctrace.probe.attach.links import Links
from kalloctrace.probe.attach.programs import load_program
from kalloctrace.probe.maps.single_value import create_single_value

BPF, PERF_EVENT_OPEN = 321, 298
MAP_CREATE, PROG_LOAD, GET_INFO, LINK_CREATE = 0, 5, 15, 28
ADDRESSES = {"a": 0xFFFF_FFFF_8100_0000, "b": 0xFFFF_FFFF_8200_0000}

HOT, RETURN = Hook("a", "on_a"), Hook("b", "on_b_return", at_return=True)
COLD = Hook("b", "on_cold", hot=False, offset=0x99)


class Kernel:
    """Stands for bpf(2) and perf_event_open(2): keeps what it was asked, and opens a file for each."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, bytes]] = []
        self.opened: list[int] = []
        self.refused: set[int] = set()
        self.error = errno.EINVAL

    def __call__(self, name: str, number: int, *arguments: Any) -> int:  # noqa: ANN401 as ctypes
        """Make the call."""
        if number == PERF_EVENT_OPEN:
            self.calls.append((number, 0, bytes(arguments[0])))
            return self._open()
        command, attr, size = arguments
        assert (name, number) == ("bpf", BPF)
        self.calls.append((number, command, bytes(attr)[:size]))
        if command in self.refused:
            raise OSError(self.error, f"bpf: {os.strerror(self.error)}")
        return self._open()

    def _open(self) -> int:
        self.opened.append(os.open("/dev/null", os.O_RDONLY))
        return self.opened[-1]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kernel]:
    """Replace the system calls; close what is still open."""
    replacement = Kernel()
    monkeypatch.setattr(system_calls, "system_call", replacement)
    (tmp_path / "type").write_text("8\n")
    monkeypatch.setattr(links, "_PMU", tmp_path / "type")
    yield replacement
    for file in replacement.opened:
        if is_open(file):
            os.close(file)


def is_open(file: int) -> bool:
    """Return whether a file is open."""
    return Path(f"/proc/self/fd/{file}").exists()


def word(attr: bytes, offset: int, size: int = 4) -> int:
    """Return a member of a structure of include/uapi/linux of 7.3."""
    return int.from_bytes(attr[offset : offset + size], "little")


def test_program_is_loaded_for_its_attachment(kernel: Kernel) -> None:
    """BPF_PROG_LOAD: prog_type, insn_cnt, prog_name at 48, expected_attach_type at 68, attach_btf_id at 108."""
    load_program(bytes(16), 26, name="on_freelist_of_long", attach_type=24, btf_id=4711)
    ((_, command, attr),) = kernel.calls
    assert command == PROG_LOAD
    assert (word(attr, 0), word(attr, 4)) == (26, 2)
    assert (word(attr, 68), word(attr, 108)) == (24, 4711)
    assert word(attr, 8, 8) != 0
    assert word(attr, 16, 8) != 0
    assert attr[48:64] == b"on_freelist_of_\0"
    # No other member is set: the kernel refuses what it does not know.
    assert set(attr[24:48] + attr[64:68] + attr[72:108] + attr[112:]) == {0}


def test_refused_program_is_loaded_again_for_the_verifiers_words(kernel: Kernel) -> None:
    """The log costs time, so only a program that fails asks for it."""
    kernel.refused.add(PROG_LOAD)
    with pytest.raises(OSError, match="on_a: bpf: Invalid argument") as caught:
        load_program(bytes(16), 2, name="on_a")
    assert caught.value.errno == errno.EINVAL
    first, second = (attr for _, _, attr in kernel.calls)
    assert word(first, 24) == 0
    assert (word(second, 24), word(second, 32, 8) != 0) == (1, True)


def test_map_of_a_single_value(kernel: Kernel) -> None:
    """BPF_MAP_CREATE: an array of one element that can be mapped into memory."""
    create_single_value("frame_offsets_of_all", 4096)
    ((_, command, attr),) = kernel.calls
    assert command == MAP_CREATE
    assert tuple(word(attr, at) for at in range(0, 20, 4)) == (2, 4, 4096, 1, 1 << 10)
    assert attr[28:44] == b"frame_offsets_o\0"


def test_limit_of_locked_memory_is_raised_where_it_holds(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 5.11 maps count as locked memory."""
    raised: list[tuple[int, tuple[int, int]]] = []

    def raise_limit(which: int, limits: tuple[int, int]) -> None:
        raised.append((which, limits))
        kernel.refused.clear()

    monkeypatch.setattr(resource, "setrlimit", raise_limit)
    kernel.refused.add(MAP_CREATE)
    kernel.error = errno.EPERM
    create_single_value("slots", 4096)
    assert raised == [(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))]
    assert len(kernel.calls) == 2


@pytest.mark.parametrize(("hook", "flags"), [(HOT, 0), (RETURN, 1)])
def test_hot_function_gets_a_link_of_its_own(kernel: Kernel, hook: Hook, flags: int) -> None:
    """BPF_LINK_CREATE of BPF_TRACE_KPROBE_MULTI: flags at 16, cnt at 20, addrs at 32."""
    attached = Links({hook: 77}, ADDRESSES.__getitem__)
    ((_, command, attr),) = kernel.calls
    assert command == LINK_CREATE
    assert (word(attr, 0), word(attr, 8), word(attr, 12)) == (77, 42, 0)
    assert (word(attr, 16), word(attr, 20), word(attr, 24, 8)) == (flags, 1, 0)
    assert word(attr, 32, 8) != 0
    attached.close()
    assert not any(is_open(file) for file in kernel.opened)


def test_instruction_gets_a_perf_event_without_a_definition(kernel: Kernel) -> None:
    """`struct perf_event_attr`: type, config 0, kprobe_addr at 64; then a link of BPF_PERF_EVENT to it."""
    attached = Links({COLD: 77}, ADDRESSES.__getitem__)
    (event, _, attr), (_, command, link) = kernel.calls
    assert event == PERF_EVENT_OPEN
    assert (word(attr, 0), word(attr, 4), word(attr, 8, 8)) == (8, 72, 0)
    assert word(attr, 64, 8) == ADDRESSES["b"] + 0x99
    assert command == LINK_CREATE
    assert (word(link, 0), word(link, 4), word(link, 8)) == (77, kernel.opened[0], 41)
    attached.close()
    assert not any(is_open(file) for file in kernel.opened)


def test_refused_link_leaves_nothing(kernel: Kernel) -> None:
    """The error names the function; what was attached before is closed."""
    kernel.refused.add(LINK_CREATE)
    with pytest.raises(KalloctraceError) as caught:
        Links({COLD: 77}, ADDRESSES.__getitem__)
    assert caught.value.what == "cannot attach to b"
    assert not any(is_open(file) for file in kernel.opened)


def test_misses_are_read_from_the_file(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer kernels show them there, so that no bpf(2) call is made while capturing."""
    attached = Links({HOT: 77}, ADDRESSES.__getitem__)
    monkeypatch.setattr(HeldFile, "read", lambda _: b"link_type:\tkprobe_multi\nkprobe_cnt:\t1\nmissed:\t12\n")
    assert attached.missed() == {"on_a": 12}
    assert len(kernel.calls) == 1


@pytest.mark.parametrize(("hook", "offset"), [(HOT, 32), (COLD, 48)])
def test_misses_are_asked_for_where_the_file_lacks_them(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, hook: Hook, offset: int
) -> None:
    """BPF_OBJ_GET_INFO_BY_FD: `struct bpf_link_info` has kprobe_multi.missed at 32, perf_event.kprobe.missed at 48."""
    attached = Links({hook: 77}, ADDRESSES.__getitem__)
    monkeypatch.setattr(HeldFile, "read", lambda _: b"link_type:\tkprobe_multi\nlink_id:\t3\n")
    filled = bytearray(256)
    struct.pack_into("<Q", filled, offset, 4321)
    buffer = ctypes.create_string_buffer(bytes(filled), len(filled))
    monkeypatch.setattr(ctypes, "create_string_buffer", lambda *_: buffer)
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(links, "bpf", lambda command, _, *values: asked.append((command, *values)))
    assert attached.missed() == {hook.program: 4321}
    assert asked[0][:3] == (GET_INFO, kernel.opened[-1], 256)
