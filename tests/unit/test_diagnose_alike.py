# SPDX-License-Identifier: MIT
"""Failures that are alike are reported once, with their number and times."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.diagnose import alike
from kalloctrace.diagnose.alike import AlikeFailures, Moment, alike_json, group_alike
from kalloctrace.diagnose.from_log import explain_failure
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.logs.messages import read_messages

DATA = Path(__file__).parent / "data" / "failures"


def reports(**changes: object) -> list[LoggedFailure]:
    """Return the reports of a log three times over, as if it had times and the second of each other members."""
    text = (DATA / "6.19-lowmem-reserve.log").read_text()
    found = list(find_failures(read_messages((text * 3).split("\n"))))
    for number, report in enumerate(found):
        report.time, report.wall = 10.0 + number, f"12:00:0{number}"
    for name, value in changes.items():
        setattr(found[1], name, value)
    return found


def grouped(found: Iterable[LoggedFailure], most: int = 10) -> AlikeFailures:
    """Return the groups of reports."""
    return group_alike(found, explain_failure, most)


def test_alike_failures_are_one_group() -> None:
    """A group has the first failure, the lines of all, and the times of the first and the last."""
    found = reports()
    (one, other) = grouped(found).groups
    assert [(group.failure.logged, group.count, list(group.lines)) for group in (one, other)] == [
        (found[0], 3, [2, 37, 72]),
        (found[1], 3, [22, 57, 92]),
    ]
    assert (one.first, one.last) == (Moment(10.0, "12:00:00"), Moment(14.0, "12:00:04"))
    assert (other.first, other.last) == (Moment(11.0, "12:00:01"), Moment(15.0, "12:00:05"))


@pytest.mark.parametrize(
    ("name", "value"), [("event", "stall"), ("order", 2), ("constraint", "cpuset"), ("zones", []), ("release", None)]
)
def test_what_sets_groups_apart(name: str, value: object) -> None:
    """Failures of another event, order, constraint, conclusion or kernel are a group of their own."""
    assert len(grouped(reports(**{name: value})).groups) == 3


@pytest.mark.parametrize(("name", "value"), [("comm", "other"), ("pid", 7), ("host", "a"), ("waited", "1ms")])
def test_what_does_not_set_groups_apart(name: str, value: object) -> None:
    """The task, its number and the machine do not matter."""
    assert len(grouped(reports(**{name: value})).groups) == 2


def constraints(*lines: str) -> list[str]:
    """Return what bound the requests of a log."""
    found = grouped(find_failures(read_messages(lines))).groups
    return [alike_json(group, "")["constraint"] for group in found]


FAILED = "web: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask={},cpuset={},mems_allowed={}"
CPU = "CPU: 1 PID: 7 Comm: web Not tainted 6.6.30 #1"
NODE_0 = "Node 0 Normal free:100kB boost:0kB min:4000kB low:5000kB high:6000kB"
NODE_1 = NODE_0.replace("Node 0", "Node 1")


@pytest.mark.parametrize(
    ("nodemask", "cpuset", "allowed", "nodes", "expected"),
    [
        ("(null)", "/", "0-1", (NODE_0, NODE_1), "none"),
        ("(null)", "/", "0-1", (), "none"),
        ("1", "/", "0-1", (NODE_1,), "mempolicy"),
        ("1", "/", "1", (NODE_0, NODE_1), "mempolicy"),
        ("0-1", "/", "0-1", (NODE_0, NODE_1), "none"),
        ("1", "/", "1", (NODE_1,), "none"),
        ("(null)", "db", "1", (NODE_0, NODE_1), "cpuset"),
        ("(null)", "db", "1", (NODE_1,), "none"),
    ],
)
def test_what_bound_a_failure(nodemask: str, cpuset: str, allowed: str, nodes: tuple[str, ...], expected: str) -> None:
    """Only the OOM killer prints it; elsewhere its rule holds for the nodes that the log shows."""
    first = FAILED.replace("GFP_KERNEL", "GFP_KERNEL|__GFP_HARDWALL").format(nodemask, cpuset, allowed)
    assert constraints(first, CPU, "Mem-Info:", *nodes) == [expected]


def test_what_bound_an_oom_kill() -> None:
    """What the OOM killer prints holds; a report without it is not bound by anything that the log shows."""
    first = "web invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    last = "oom-kill:constraint=CONSTRAINT_{},nodemask=(null),cpuset=/,mems_allowed=0-1,global_oom,task=web,pid=7,uid=0"
    printed = ("NONE", "CPUSET", "MEMORY_POLICY", "MEMCG")
    assert [constraints(first, CPU, last.format(each)) for each in printed] == [
        ["none"],
        ["cpuset"],
        ["mempolicy"],
        ["memcg"],
    ]
    assert constraints(first, CPU) == ["none"]


def test_order_of_the_reports_does_not_matter() -> None:
    """Reports of several CPUs may end in another order than they began."""
    found, expected = reports(), grouped(reports())
    got = grouped([found[4], found[1], found[5], found[0], found[3], found[2]])
    assert [alike_json(group, "log") for group in got.groups] == [alike_json(group, "log") for group in expected.groups]


def test_newest_first_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each report is above the one before it, a group is put in order once, not with each report."""
    ordered: list[int] = []

    def counting(items: Iterable[Any], key: Callable[[Any], int] | None = None) -> list[Any]:
        found = sorted(items, key=key)
        ordered.append(len(found))
        return found

    monkeypatch.setattr(alike, "sorted", counting, raising=False)
    found, many = reports()[0], 400
    logged = [replace(found, line=line) for line in range(many, 0, -1)]
    (group,) = grouped(logged).groups
    assert list(group.lines) == list(range(1, many + 1))
    assert (group.failure.logged.line, group.count) == (1, many)
    assert sum(ordered) == many + 1


def test_number_of_groups_is_limited() -> None:
    """Further groups are only counted."""
    found = grouped(reports(order=2), most=1)
    assert ([group.count for group in found.groups], found.beyond) == ([3], 3)


def test_object_of_a_group() -> None:
    """It has what all have in common, and the number, lines and times."""
    made = alike_json(grouped(reports()).groups[0], "kern.log")
    assert (made["type"], made["line"], made["log"], made["count"], made["lines"]) == (
        "failure",
        2,
        "kern.log",
        3,
        [2, 37, 72],
    )
    assert (made["first"], made["last"], made["first_text"], made["last_text"]) == (10.0, 14.0, "12:00:00", "12:00:04")
    assert (made["constraint"], made["order_shown"]) == ("none", True)
