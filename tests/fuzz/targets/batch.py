# SPDX-License-Identifier: MIT
"""`explain --batch`: a JSON line."""

import json

from kalloctrace.explain.batch import Batch
from kalloctrace.explain.request import WhatIf
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


@surface(max_len=512, covers=("explain/batch.py", "explain/request.py", "model/page_alloc.py"), words=_WORDS)
def fuzz_batch(data: bytes) -> None:
    """Every line gets one object: the answer, or why there is none."""
    answer = json.dumps(_BATCH.reply(1, data), allow_nan=False)
    assert answer.startswith(('{"type": "preparation"', '{"type": "error", "line": 1'))
