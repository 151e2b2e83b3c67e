# SPDX-License-Identifier: MIT
"""`explain --batch`: a JSON line.

An input that begins with a zero byte is choices that change a well-formed request; the others are the line itself.
"""

import json
from typing import Any

from kalloctrace.explain.batch import Batch
from kalloctrace.explain.request import WhatIf
from tests.fuzz.choices import Choices, change
from tests.fuzz.surface import surface

_BATCH = Batch(WhatIf())
_WORDS = (
    *('{"kernel":"6.12",', '"kernel":"5.10"', '"kernel":"7.3"', '"entry":"nolock"', '"entry":"normal"', '"gfp":3264,'),
    *('"order":0,', '"preferred_nid":', '"nodemask":null', '"nodemask":[0]', '"alloc_flags":', '"task_flags":'),
    *('"numa_node_id":', '"preempt_count":', '"context":"softirq"', '"machine":{', '"cpusets_enabled":true'),
    *('"mems_allowed":[0]', '"gfp_allowed_mask":', '"page_group_by_mobility_disabled":true', '"defrag_mode":true'),
    *('"config_cma":true', '"nodes":{"0":["DMA","DMA32","Normal"]}', '"1":["Movable"]', '"fallback_order":{"0":[0]}'),
    *("NaN", "Infinity", "1e308", "18446744073709551616", "[[[[", "\\ud800", "-1", "{}"),
)
_REQUEST: dict[str, tuple[Any, ...]] = {
    "entry": ("normal", "nolock", "bulk"),
    "preferred_nid": (0, 1, -1),
    "nodemask": (None, [0], [0, 1], [1], []),
    "alloc_flags": (0, 0x800, 0x100, 1 << 20),
    "task_flags": (0, 0x800, 0x40000, 0x80000, 0x10000000),
    "context": ("task", "softirq", "hardirq", "nmi"),
    "preempt_count": (0, 0x100, 0x10000, 0x100000, 1 << 31, 1 << 32),
    "numa_node_id": (0, 1, 1023),
}
_MACHINE: dict[str, tuple[Any, ...]] = {
    "cpusets_enabled": (True, False),
    "mems_allowed": ([0], [1], [0, 1], [1023]),
    "gfp_allowed_mask": ((1 << 32) - 1, 0, ~0xC0 & 0xFFFFFFFF),
    "page_group_by_mobility_disabled": (True, False),
    "defrag_mode": (True, False),
    "config_cma": (True, False),
    "nodes": (
        *({"0": ["DMA", "DMA32", "Normal"], "1": ["Normal", "Movable"]}, {"0": ["Normal"], "1": []}, {"0": []}),
        {"0": ["DMA32"], "1": ["Movable"], "2": ["Normal", "Device"]},
    ),
    "fallback_order": ({"0": [0]}, {"0": [1, 0], "1": [0, 1]}, {"1": [1, 1]}, {"2": [0]}),
}


def _request(choices: Choices) -> bytes:
    """Return a request with some of the members that it may have, or with other values."""
    request: Any = {
        "kernel": choices.of(("6.12", "5.10", "6.1", "6.17", "7.3")),
        "gfp": choices.of((0xCC0, 0xDC0, 0x820, 0x100CCA, 0x140DCA, 0xC40, 0x400CC0, 0x6C00, (1 << 32) - 1))
        ^ (1 << choices.below(33)) & ~(1 << 32),
        "order": choices.of((0, 1, 3, 9, 10, 11)),
    }
    request |= {name: choices.of(values) for name, values in _REQUEST.items() if choices.below(3) == 1}
    if choices.below(2):
        request["machine"] = {name: choices.of(values) for name, values in _MACHINE.items() if choices.below(3) == 1}
    while choices.below(4) == 1:
        request = change(request, choices)
    return json.dumps(request).encode()


@surface(max_len=512, covers=("explain/batch.py", "explain/request.py", "model/page_alloc.py"), words=_WORDS)
def fuzz_batch(data: bytes) -> None:
    """Every line gets one object: the answer, or why there is none."""
    line = _request(Choices(data[1:])) if data.startswith(b"\0") else data
    answer = json.dumps(_BATCH.reply(1, line), allow_nan=False)
    assert answer.startswith(('{"type": "preparation"', '{"type": "error", "line": 1'))
