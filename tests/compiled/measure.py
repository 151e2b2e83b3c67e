# SPDX-License-Identifier: MIT
"""Executes the functions of one kernel's image and compares the model with them."""

import json
import random
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.lab.kernels import obtain
from kalloctrace.model import watermark
from kalloctrace.model.watermark import Watermarks
from kalloctrace.verify.slowpath.judge import CallVerdict, judge_slowpath
from tests.broken_watermark import MUTATIONS
from tests.compiled.elf import load
from tests.compiled.entry import EntryFunction, expected
from tests.compiled.image import Image
from tests.compiled.mask_flags import mask_flags
from tests.compiled.rows import Called, to_row, worth_recording
from tests.compiled.slowpath import SlowPath
from tests.compiled.tally import Tally
from tests.compiled.watermark import WatermarkCheck
from tests.compiled.watermark_rows import agrees, kernel_of

RECORDED_CALLS, RECORDED_CHECKS, NOTICING = 100, 40, 2
"""How many calls, checks, and checks for each broken rule are recorded."""


@dataclass(frozen=True)
class Plan:
    """What to do with each kernel.

    Attributes:
        calls: calls of the slow path.
        checks: watermark checks, and requests to the entry function.
        seed: of the random choices.
        record: the folder to write `slowpath/KERNEL.json` and `watermark/KERNEL.json` in; None to write nothing.
    """

    calls: int
    checks: int
    seed: int
    record: Path | None = None


def measure(name: str, plan: Plan) -> Tally:
    """Execute the functions of a kernel, with a name that `kalloctrace.lab.kernels.obtain` accepts."""
    tally = Tally(name)
    try:
        image = load(obtain(name))
        tally.version = image.version
        snapshot = builtin_snapshot(image.release)
        _slowpath(image, snapshot, plan, tally)
        _entry(image, snapshot, plan, tally)
        _watermarks(image, plan, tally)
    except KalloctraceError as error:
        tally.failure = str(error)
    return tally


def _slowpath(image: Image, snapshot: Snapshot, plan: Plan, tally: Tally) -> None:
    slow_path = SlowPath(image, snapshot, _random(image, plan))
    tally.has_defrag_mode = slow_path.has_defrag_mode
    judged: list[tuple[Called, CallVerdict]] = []
    for called in slow_path.calls(plan.calls):
        kernel = called.on(image.release)
        verdict = judge_slowpath(kernel, called.call)
        tally.count(called, verdict)
        for flags in mask_flags(kernel, called, verdict):
            tally.count_mask(called, flags)
        if plan.record is not None:
            judged.append((called, verdict))
    if plan.record is not None:
        rows = [to_row(called) for called in worth_recording(judged)]
        _write(plan.record / "slowpath" / f"{image.name}.json", rows[:RECORDED_CALLS])


def _entry(image: Image, snapshot: Snapshot, plan: Plan, tally: Tally) -> None:
    for entry, given in EntryFunction(image, snapshot, _random(image, plan)).handed_on(plan.checks):
        tally.count_request(given, expected(image.release, entry))


def _watermarks(image: Image, plan: Plan, tally: Tally) -> None:
    kernel = kernel_of(image.release)
    runs = list(WatermarkCheck(image, _random(image, plan)).runs(plan.checks))
    for run in runs:
        tally.count_check(run, agreed=agrees(kernel, run))
    if plan.record is not None:
        _write(plan.record / "watermark" / f"{image.name}.json", _telling(kernel, runs))


def _telling(kernel: Watermarks, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first runs, and for each broken rule the first few that notice it."""
    chosen = runs[:RECORDED_CHECKS]
    for name, broken in MUTATIONS.values():
        with patch.object(watermark, name, broken):
            noticing = (run for run in runs if not agrees(kernel, run))
            chosen += [run for run in islice(noticing, NOTICING) if run not in chosen]
    return chosen


def _random(image: Image, plan: Plan) -> random.Random:
    return random.Random(f"{image.name} {plan.seed}")  # noqa: S311  (it is to repeat, and no secret)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSON list, one row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
