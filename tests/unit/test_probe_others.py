# SPDX-License-Identifier: MIT
"""Who else traces the allocator or uses BPF, from the kernel's lists."""

import os
from pathlib import Path

from kalloctrace.probe.attach.others import bpf_processes, tracers

FUNCTIONS = ("get_page_from_freelist", "__alloc_pages_noprof")


def test_what_is_attached_to_a_function_is_listed(tmp_path: Path) -> None:
    """By ftrace (also fentry and kprobe.multi), and by kprobes, at any instruction; other functions do not count."""
    (tmp_path / "enabled_functions").write_text(
        "get_page_from_freelist (1) R       \ttramp: 0xffffffffc0a0d000 (bpf_trampoline) ->bpf_tramp+0x0/0x60\n"
        "get_page_from_freelist_other (1) R\n"
        "vfs_read (1)\n"
    )
    kprobes = tmp_path / "list"
    kprobes.write_text(
        "ffffffff81341230  k  __alloc_pages_noprof+0x9    [OPTIMIZED]\nffffffff81341240  r  vfs_open+0x0    [FTRACE]\n"
    )
    ftrace, kprobe = tracers(FUNCTIONS, [tmp_path / "absent", tmp_path], kprobes)
    assert ftrace.startswith("get_page_from_freelist (1) R")
    assert kprobe == "k __alloc_pages_noprof+0x9 [OPTIMIZED]"


def test_without_the_lists_nothing_is_known(tmp_path: Path) -> None:
    """Tracefs and debugfs may be missing."""
    assert tracers(FUNCTIONS, [tmp_path], tmp_path / "list") == []


def test_processes_with_bpf_files_are_listed(tmp_path: Path) -> None:
    """Programs, maps and links; this process, and others' files, do not count."""
    for pid, comm, target in (
        (12, "bpftrace", "anon_inode:bpf-prog"),
        (9, "systemd", "anon_inode:bpf_link"),
        (13, "map", "anon_inode:bpf-map"),
        (14, "bash", "anon_inode:[eventpoll]"),
        (os.getpid(), "self", "anon_inode:bpf-prog"),
    ):
        files = tmp_path / str(pid) / "fd"
        files.mkdir(parents=True)
        (files / "3").symlink_to(target)
        (files.parent / "comm").write_text(f"{comm}\n")
    (tmp_path / "15").mkdir()
    (tmp_path / "version").write_text("Linux")
    assert bpf_processes(tmp_path) == ["systemd (9)", "bpftrace (12)", "map (13)"]
