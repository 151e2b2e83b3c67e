# SPDX-License-Identifier: MIT
"""The topology, read from made-up kernel memory."""

import struct
from pathlib import Path

import pytest

from kalloctrace.kernel.kallsyms import Symbols
from kalloctrace.kernel.machine import Topology
from kalloctrace.kernel.memory_layout import read_topology

BASE = 0xFFFF888000000000
TABLE = BASE + 0x100
NAMES = {"numa_distance": BASE, "numa_distance_cnt": BASE + 8, "zonelist_update_seq": BASE + 16}
SIZES = {"zonelist": 16 * (1024 * 5 + 1), "zoneref": 16, "zone": 1472}


class FakeBtf:
    """The sizes of Debian's 5.10: five zones per node, 1024 nodes."""

    def size(self, name: str) -> int:
        """Return a structure's size."""
        return SIZES[name]

    def member_size(self, name: str, member: str) -> int:
        """Return the size of the array of zones."""
        assert (name, member) == ("pglist_data", "node_zones")
        return 5 * SIZES["zone"]

    def offset(self, *_: str) -> int:
        """Return the offset of a member; no zone is read here."""
        return 0


class FakeKcore:
    """Three variables, followed by the table of distances."""

    def __init__(self, table: bytes, sequence: int) -> None:
        known = int(len(table) ** 0.5)
        variables = struct.pack("<QQI", TABLE if known else 0, known, sequence)
        self._memory = variables.ljust(TABLE - BASE, b"\0") + table

    def read(self, address: int, size: int) -> bytes:
        """Read bytes; the table of a kernel without one must not be read."""
        assert BASE <= address < BASE + len(self._memory)
        return self._memory[address - BASE : address - BASE + size]

    def u32(self, address: int) -> int:
        """Read 32 bits."""
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        """Read 64 bits."""
        return int.from_bytes(self.read(address, 8), "little")


def read(folder: Path, table: bytes, sequence: int, *, without: str = "") -> Topology | None:
    """Read the topology of a kernel with this table of distances."""
    kallsyms = folder / "kallsyms"
    kallsyms.write_text("".join(f"{at:x} b {name}\n" for name, at in NAMES.items() if name != without))
    kcore = FakeKcore(table, sequence)
    return read_topology(kcore, FakeBtf(), Symbols(kallsyms), (0, 1, 4), (1,))  # type: ignore[arg-type] # what it calls


def test_distances_are_those_of_the_table(tmp_path: Path) -> None:
    """The table is row by row; a node outside it is remote to others and local to itself."""
    assert read(tmp_path, bytes([10, 17, 18, 10]), 2) == Topology(
        possible=(0, 1, 4),
        distances=((10, 17, 20), (18, 10, 20), (20, 20, 10)),
        cpus=(1,),
        max_numnodes=1024,
        zonelist_builds=1,
    )


def test_distances_without_a_table(tmp_path: Path) -> None:
    """All nodes are equally far apart."""
    found = read(tmp_path, b"", 6)
    assert found is not None
    assert found.distances == ((10, 20, 20), (20, 10, 20), (20, 20, 10))
    assert found.zonelist_builds == 3


@pytest.mark.parametrize("name", NAMES)
def test_kernel_without_a_symbol_has_no_topology(tmp_path: Path, name: str) -> None:
    """An incomplete topology is omitted."""
    assert read(tmp_path, b"", 2, without=name) is None
