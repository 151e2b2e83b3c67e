# SPDX-License-Identifier: MIT
"""The short answer of `explain`: it fits on a terminal, and names the rules that decided it."""

import io
import os
import pty
import random
import struct
import termios
from fcntl import ioctl
from typing import Any

import pytest

from kalloctrace.console import Console
from kalloctrace.explain.answer_text import LINES, write_answer
from kalloctrace.explain.inputs import decides
from kalloctrace.explain.request import Answer, BadRequestError, WhatIf
from kalloctrace.flags.builtin import builtin_kernels

WIDTH = 80
MACHINES = (
    {"0": ["DMA", "DMA32", "Normal"]},
    {"0": ["DMA", "DMA32", "Normal"], "1": ["Normal", "Movable"]},
    {"0": ["DMA", "DMA32", "Normal"], "1000": ["Normal", "Movable"], "1022": ["Normal"]},
)
EVERY_OTHER = list(range(0, 1000, 2))


def ask(kernel: str, gfp: int, order: int = 0, **more: Any) -> Answer:  # noqa: ANN401  (whatever a request holds)
    """Answer a request on the kernel's usual machine."""
    return WhatIf().answer({"kernel": kernel, "gfp": gfp, "order": order, **more})


def text_of(answer: Answer) -> str:
    """Return the answer as text."""
    stream = io.StringIO()
    write_answer("6.12.117+deb13-amd64", answer, Console(stream))
    return stream.getvalue()


def drawn(source: random.Random) -> dict[str, Any]:
    """Return a request with any bits, on any machine."""
    nodes = source.choice(MACHINES)
    return {
        "kernel": source.choice(builtin_kernels()),
        "gfp": source.choice([source.getrandbits(25), source.getrandbits(32), 0xFFFFFFFF, 0xCC0, 0x100CCA]),
        "order": source.choice([0, 1, 3, 9, 10, 11]),
        "preferred_nid": int(source.choice(list(nodes))),
        "nodemask": source.choice([None, [0], EVERY_OTHER]),
        "entry": source.choice(["normal", "normal", "nolock"]),
        "task_flags": source.choice([0, 0xFFFFFFFF, source.getrandbits(32)]),
        "context": source.choice(["task", "softirq", "hardirq", "nmi"]),
        "machine": {
            "nodes": nodes,
            "cpusets_enabled": source.random() < 0.7,
            "mems_allowed": source.choice([[0], [1000], EVERY_OTHER]),
            "config_cma": source.random() < 0.7,
            "defrag_mode": source.random() < 0.3,
            "gfp_allowed_mask": source.choice([0x1FFFFFF, 0xFFF33F, 0x7FFFFF]),
        },
    }


@pytest.mark.parametrize("seed", range(8))
def test_every_answer_fits_and_names_what_decided(seed: int) -> None:
    """Whatever is asked: 24 lines of 80 columns, the masks in hex, and each deciding rule's function."""
    source, what_if, answered = random.Random(seed), WhatIf(), 0  # noqa: S311  (the same requests on every run)
    while answered < 100:
        try:
            answer = what_if.answer(drawn(source))
        except BadRequestError:
            continue
        answered += 1
        text = text_of(answer)
        lines = text.splitlines()
        assert 0 < len(lines) <= LINES
        assert max(map(len, lines)) <= WIDTH
        done = answer.preparation
        assert lines[0].startswith(done.outcome)
        assert all(f"  {step.function}: " in text for step in done.steps if decides(answer, step.rule))
        if done.outcome == "prepared":
            assert f"{done.gfp:#x}" in text
            assert f"{done.alloc_flags:#x}" in text


ALWAYS = ("gfp_zone", "preferred_zone", "nofragment")


@pytest.mark.parametrize(
    ("answer", "more"),
    [
        (ask("6.12", 0xCC0), ()),
        (ask("6.12", 0x80000CC0), ("gfp_allowed_mask",)),
        (ask("6.12", 0xCC0, task_flags=0x80000), ("gfp_context",)),
        (ask("5.10", 0xCC0, task_flags=0x80000), ()),
        (ask("6.12", 0xC00, task_flags=0x80000), ()),
        (ask("6.12", 0x200CC0), ("zonelist",)),
        (ask("6.12", 0x100CCA), ("gfp_migratetype",)),
        (ask("7.2", 0x100CCA), ("gfp_migratetype", "cma")),
        (ask("7.2", 0xCD0), ("gfp_migratetype",)),
        (ask("6.12", 0xCC0, machine={"cpusets_enabled": True}), ("cpuset",)),
        (ask("6.12", 0x1CC0), ("spread_dirty_pages",)),
        (ask("7.3", 0x820, 1), ("highatomic",)),
        (ask("7.2", 0x820, 1), ()),
        (ask("7.3", 0x820, 0), ()),
    ],
)
def test_what_decides_follows_from_the_kernel_s_rules(answer: Answer, more: tuple[str, ...]) -> None:
    """A rule decides where the kernel's condition holds (kernel facts, section 4), and the zone always is decided."""
    assert {step.rule for step in answer.preparation.steps if decides(answer, step.rule)} == {*ALWAYS, *more}


def test_of_a_rejection_the_rejecting_rule_decides() -> None:
    """No other step matters for a request that is rejected."""
    answer = ask("6.12", 0xCC0, 11)
    assert [step.rule for step in answer.preparation.steps if decides(answer, step.rule)] == ["order"]


def test_a_console_is_as_wide_as_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walkthrough uses the columns that there are, or that COLUMNS names."""
    monkeypatch.delenv("COLUMNS", raising=False)
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 133, 0, 0))
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb"):
        assert Console(stream).columns == 133
        monkeypatch.setenv("COLUMNS", "100")
        assert Console(stream).columns == 100
    assert Console(io.StringIO()).columns == WIDTH
