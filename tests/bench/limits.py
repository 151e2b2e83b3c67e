# SPDX-License-Identifier: MIT
"""What tracing an allocation may cost on each kernel, and whether the figures of `make bench` meet it.

Every limit compares rows of the boot in which aggregate mode was measured last. What a limit needs and that boot lacks
is said in its place; it is never met.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kalloctrace.bench.tools import PERF_STAT, Row, ours
from tests.bench.rows import APART, BY, DEFAULT, FORMS, WATCHED, floor
from tests.bench.tables import Figures, table

KERNELS = ("5.10", "6.1", "6.12", "6.17", "6.18", "7.2", "7.3")
"""The kernels with a limit."""

EARLIER = Path(__file__).with_name("earlier.json")
"""The pair's figures before it was shortened, by kernel and attachment. Those of 5.10 are compared with the untraced
figure of the whole boot, as `make bench` did on that day."""

_COUNTING = ("5.10", "6.1", "6.12")
_NEARLY_COUNTING = ("7.2", "7.3")
_ABOVE_FLOOR = ("6.17", "6.18")
_WITHOUT_TASK = ("5.10",)
"""No program reaches the task's members through BTF: bpf_get_current_task_btf() came in 5.11."""
_NEARLY = 1.05
_ABOVE = 125
_STREAM = 1.2
_CONSUMER = 170
_PAIR = 0.85
_BY_BTF = 1.1
_BY_COPY = 150
_SAME = 0.02
"""The relative difference of two measurements of the same."""

_AGGREGATE, _STREAMED = DEFAULT
(_WATCHED,) = WATCHED


class Unknown(Exception):  # noqa: N818  (a limit that cannot be judged is no error)
    """A limit cannot be judged; the text says why."""


@dataclass(frozen=True)
class Boot:
    """The figures of one kernel.

    Attributes:
        kernel: its name in the lab.
        rows: by row; of other boots too.
        earlier: the pair's earlier figures on this kernel, by attachment.
    """

    kernel: str
    rows: Mapping[str, Figures]
    earlier: Mapping[str, Figures]

    def figure(self, name: str, which: str) -> float:
        """Return a row's figure, "least", "mean" or "drift".

        Raises:
            Unknown: there is none of this boot.
        """
        row = self.rows.get(name)
        if row is None or row["gap"]:
            raise Unknown(f"{name}: {row['gap'] if row else 'not measured'}")
        if row.get("boot") != self.rows.get(_AGGREGATE.name, row).get("boot"):
            raise Unknown(f"{name}: measured in another boot")
        return float(row[which])


def price(boot: Boot, factor: float = _NEARLY) -> float:
    """Return what an allocation may cost on average, in instructions.

    Args:
        boot: the boot.
        factor: of `perf stat`, on the kernels where it may be above 1.

    Raises:
        Unknown: this kernel has no limit, or what it depends on was not measured.
    """
    if boot.kernel in _COUNTING:
        return boot.figure(PERF_STAT.name, "mean")
    if boot.kernel in _NEARLY_COUNTING:
        return factor * boot.figure(PERF_STAT.name, "mean")
    if boot.kernel in _ABOVE_FLOOR:
        # Not fentry: on these kernels it loses calls.
        return _least(boot, [floor(form, "one").name for form in ("multi", "jump")]) + _ABOVE
    raise Unknown("no limit")


def _least(boot: Boot, names: Sequence[str]) -> float:
    found, missing = [], []
    for name in names:
        try:
            found.append(boot.figure(name, "mean"))
        except Unknown as why:
            missing.append(str(why))
    if not found:
        raise Unknown("; ".join(missing))
    return min(found)


def _pair(form: str) -> Callable[[Boot], tuple[float, float]]:
    def values(boot: Boot) -> tuple[float, float]:
        earlier = boot.earlier.get(form)
        if earlier is None:
            raise Unknown("it had no such attachment" if boot.earlier else "its earlier figure was not measured")
        return boot.figure(ours("aggregate", f"pair:{form}").name, "mean"), _PAIR * earlier["mean"]

    return values


def _aim(boot: Boot) -> tuple[float, float]:
    if boot.kernel not in _NEARLY_COUNTING:
        raise Unknown("as required")
    return boot.figure(_AGGREGATE.name, "mean"), price(boot, 1)


def _by(row: Row) -> Callable[[Boot], tuple[float, float]]:
    def values(boot: Boot) -> tuple[float, float]:
        alone = boot.figure(_AGGREGATE.name, "least")
        most = alone + _BY_COPY if boot.kernel in _WITHOUT_TASK else _BY_BTF * alone
        return boot.figure(row.name, "least"), most

    return values


LIMITS: Mapping[tuple[str, str], Callable[[Boot], tuple[float, float]]] = {
    (
        "aggregate, mean",
        f"`perf stat`; 7.x: {_NEARLY} ×; 6.17, 6.18: the cheapest empty probe that loses nothing + {_ABOVE}",
    ): lambda boot: (boot.figure(_AGGREGATE.name, "mean"), price(boot)),
    ("aggregate, mean", "aim on 7.x: `perf stat`"): _aim,
    ("stream, smallest round", f"{_STREAM} × the first line's limit"): lambda boot: (
        boot.figure(_STREAMED.name, "least"),
        _STREAM * price(boot),
    ),
    ("stream, mean", f"its smallest round + {_CONSUMER}"): lambda boot: (
        boot.figure(_STREAMED.name, "mean"),
        boot.figure(_STREAMED.name, "least") + _CONSUMER,
    ),
    (
        "live, smallest round",
        f"that of aggregate beside the work, and {_SAME:.0%} and what the untraced figures moved",
    ): lambda boot: (
        boot.figure(_WATCHED.name, "least"),
        (1 + _SAME) * (boot.figure(APART.name, "least") + boot.figure(APART.name, "drift"))
        + boot.figure(_WATCHED.name, "drift"),
    ),
    **{
        (
            f"{row.name.rpartition(', ')[2]}, smallest round",
            f"{_BY_BTF} × that of aggregate; 5.10: that + {_BY_COPY}",
        ): _by(row)
        for row in BY
    },
    **{(f"pair:{form}, mean", f"{_PAIR} × its earlier figure"): _pair(form) for form in FORMS},
}
"""What is measured, and at most what; each returns both in instructions, or raises `Unknown`."""


def judged(boot: Boot, limit: Callable[[Boot], tuple[float, float]]) -> str:
    """Return whether a boot meets a limit, or by how much it is over, as text."""
    try:
        found, most = limit(boot)
    except Unknown as why:
        return f"({why})"
    verdict = "PASS" if found <= most else f"**over by {found - most:,.0f}**"
    return f"{verdict} ({found:,.0f} of {most:,.0f})"


def limits_table(figures: Figures) -> str:
    """Return whether each kernel meets each limit."""
    earlier: dict[str, Any] = json.loads(EARLIER.read_text(encoding="utf-8"))
    boots = [
        Boot(name, kernel["rows"], earlier.get(name, {}).get("rows", {})) for name, kernel in figures["kernels"].items()
    ]
    return table(
        ["what", "at most", *(boot.kernel for boot in boots)],
        [[*title, *(judged(boot, limit) for boot in boots)] for title, limit in LIMITS.items()],
    )
