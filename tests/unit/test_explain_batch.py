# SPDX-License-Identifier: MIT
"""Lines of a batch that are no request: each gets an error object, whatever it is."""

import json
import tracemalloc
from typing import Any

import pytest

from kalloctrace.explain.batch import LONGEST, Batch
from kalloctrace.explain.request import WhatIf

REQUEST = {"kernel": "6.12", "gfp": 0xCC0, "order": 0}


def reply(text: str | bytes) -> tuple[dict[str, Any], bool]:
    """Return the answer to one line, and whether the batch has failed."""
    batch = Batch(WhatIf())
    return batch.reply(7, text.encode() if isinstance(text, str) else text), batch.failed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ('{"kernel":"6.12","order":0,"gfp":' + "9" * 5000 + "}", "not JSON"),
        ('{"kernel":"6.12","order":0,"gfp":1e400}', "gfp is not an integer"),
        ('{"kernel":"6.12","order":0,"gfp":NaN}', "gfp is not an integer"),
        ('{"kernel":"6.12","order":0,"gfp":18446744073709551616}', "gfp is out of range"),
        ('{"kernel":"6.12","order":0,"gfp":1,"gfp":2}', "the key gfp is there twice"),
        (
            '{"kernel":"6.12","order":0,"gfp":1,"machine":{"config_cma":true,"config_cma":true}}',
            "config_cma is there",
        ),
        ('{"kernel":"6.12","order":0,"gfp":1,"x":1}', "unknown key x"),
        ('{"kernel":"6.12","order":0,"gfp":1,"machine":[]}', "machine is not an object"),
        ('{"kernel":"6.12","order":0,"gfp":1,"entry":[]}', "entry is []"),
        ('{"kernel":["6.12"],"order":0,"gfp":1}', "kernel is not a string"),
        ('{"kernel":"6.12","order":true,"gfp":1}', "order is not an integer"),
        ('{"kernel":"6.12","order":0,"gfp":1,"machine":{"nodes":{"1024":["Normal"]}}}', "not a node id"),
        ("null", "not an object"),
        ("", "the line is empty"),
        (b"\xff\xfe", "not JSON"),
        (b" " * (LONGEST + 1), "longer than"),
        ('{"kernel":"' + "x" * 100_000 + '"}', "is not built in"),
    ],
)
def test_line_that_is_no_request(text: str | bytes, why: str) -> None:
    """The object names the line and says why, in one short line."""
    answer, failed = reply(text)
    assert (answer["type"], answer["line"], failed) == ("error", 7, True)
    assert why in answer["message"] or answer["message"].endswith("x" * 100)
    assert len(answer["message"]) <= 1000
    assert "\n" not in answer["message"]


def test_machine_with_a_thousand_nodes() -> None:
    """It is answered, and a batch of such machines does not keep them all."""
    batch, kept = Batch(WhatIf()), []
    for number in (1000, 300, 299, 298, 297):
        nodes = {str(nid): ["Normal"] for nid in range(number)}
        answer = batch.reply(1, json.dumps(REQUEST | {"machine": {"nodes": nodes}}).encode())
        assert answer["preferred_zone"] == {"node": 0, "zone": "Normal"}
        if number == 1000:
            tracemalloc.start()
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert kept[-1] - kept[1] < 1 << 20


def test_what_a_line_leaves_out_has_the_kernels_usual_value() -> None:
    """Each optional key, given with its usual value, changes nothing."""
    machine = {
        "cpusets_enabled": False,
        "gfp_allowed_mask": 0x1FFFFFF,
        "page_group_by_mobility_disabled": False,
        "defrag_mode": False,
        "config_cma": False,
        "nodes": {"0": ["DMA", "DMA32", "Normal"]},
        "fallback_order": {"0": [0]},
    }
    usual = {
        "entry": "normal",
        "preferred_nid": 0,
        "nodemask": None,
        "alloc_flags": 0,
        "task_flags": 0,
        "context": "task",
    }
    short, _ = reply(json.dumps(REQUEST))
    assert short["type"] == "preparation"
    for key, value in usual.items():
        assert reply(json.dumps(REQUEST | {key: value}))[0] == short, key
    for key, value in machine.items():
        assert reply(json.dumps(REQUEST | {"machine": {key: value}}))[0] == short, key
