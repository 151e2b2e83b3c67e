# SPDX-License-Identifier: MIT
"""Sets of nodes, compiled for this machine; tests/live/in_guest/test_nodemask.py runs the same code in a kernel."""

import ctypes
import subprocess
from pathlib import Path

import pytest

from kalloctrace.probe.layout import bpf_folder

PRELUDE = """
typedef unsigned long long u64;
#define __always_inline inline __attribute__((always_inline))
#include "nodemask.h"
void add(u64 node, u64 *nodes) { node_set(node, nodes); }
"""


@pytest.mark.parametrize("words", range(1, 17))
def test_each_node_has_its_bit_and_no_other(words: int, tmp_path: Path) -> None:
    """Of 1 to 16 words; a node beyond them changes nothing, in the set or behind it."""
    source, library = tmp_path / "nodemask.c", tmp_path / "nodemask.so"
    source.write_text(PRELUDE)
    subprocess.run(
        ["gcc", "-O2", "-shared", "-fPIC", f"-I{bpf_folder()}", f"-DNODEMASK_WORDS={words}", "-o", library, source],
        check=True,
    )
    add = ctypes.CDLL(str(library)).add
    add.argtypes, add.restype = [ctypes.c_uint64, ctypes.POINTER(ctypes.c_uint64)], None
    for node in (*range(64 * 17), 1 << 32, (1 << 64) - 1):
        nodes = (ctypes.c_uint64 * 17)()
        add(node, nodes)
        assert int.from_bytes(bytes(nodes), "little") == (1 << node if node < 64 * words else 0)
    whole = (ctypes.c_uint64 * 17)()
    for node in range(64 * words):
        add(node, whole)
    assert int.from_bytes(bytes(whole), "little") == (1 << 64 * words) - 1
