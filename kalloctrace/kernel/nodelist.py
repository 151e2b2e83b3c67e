# SPDX-License-Identifier: MIT
"""Sets of nodes: as the kernel's list format ("0-1,3"), and as a bit mask in which bit n stands for node n."""

MAX_NUMNODES = 1024
"""The most nodes that a kernel is built for (CONFIG_NODES_SHIFT=10): a larger id is damaged text, not a node."""


def parse_nodelist(text: str) -> int:
    """Return the bit mask of a list such as "0-1,3"; empty text gives 0.

    Raises:
        ValueError: the text is not such a list.
    """
    nodes = 0
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < MAX_NUMNODES:
            raise ValueError(f"{part!r} is no range of nodes")
        nodes |= (1 << (high + 1)) - (1 << low)
    return nodes


def format_nodelist(nodes: int) -> str:
    """Return a bit mask of nodes in the kernel's list format, with adjacent nodes as ranges."""
    ranges = []
    nid = 0
    while nodes >> nid:
        if nodes >> nid & 1:
            first = nid
            while nodes >> (nid + 1) & 1:
                nid += 1
            ranges.append(str(first) if nid == first else f"{first}-{nid}")
        nid += 1
    return ",".join(ranges)


def node_ids(nodes: int) -> tuple[int, ...]:
    """Return the node ids of a bit mask in ascending order."""
    return tuple(nid for nid in range(nodes.bit_length()) if nodes >> nid & 1)
