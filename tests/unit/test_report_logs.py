# SPDX-License-Identifier: MIT
"""The table of many logs."""

import io
from typing import Any, get_args

import pytest

from kalloctrace.console import Console
from kalloctrace.diagnose.from_log import FailureConclusion
from kalloctrace.diagnose.reports.model import Event
from kalloctrace.report.logs import CONCLUSIONS, EVENTS, Kind, LogTable, time_text, write_table
from kalloctrace.text import COLUMNS

DAY = 86_400


def group(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 any member of the object
    """Return what the table reads of an object of `explain --json`."""
    plain = {"event": "oom", "order": 0, "order_shown": True, "kernel": "6.1.0", "caller": None, "log": "a", "count": 2}
    return {**plain, "first": 1.0, "last": 2.0, "first_text": None, "last_text": None, **changes}


def table(*groups: dict[str, Any]) -> LogTable:
    """Return the table of groups."""
    made = LogTable()
    for one in groups:
        made.add(one)
    return made


def test_a_row_is_a_kind() -> None:
    """The event, caller, order and kernel make a row; the most frequent is first."""
    btrfs = {"function": "btrfs_lookup_bio_sums", "module": "btrfs", "subsystem": "btrfs"}
    rows = table(
        *(group(), group(log="b"), group(order=4, caller=btrfs, count=9)),
        *(group(kernel=None), group(event="stall", count=1)),
    ).sorted()
    assert [(kind, row.count, len(row.logs)) for kind, row in rows] == [
        (Kind("oom", "btrfs_lookup_bio_sums", 4, "6.1.0"), 9, 1),
        (Kind("oom", None, 0, "6.1.0"), 4, 2),
        (Kind("oom", None, 0, None), 2, 1),
        (Kind("stall", None, 0, "6.1.0"), 1, 1),
    ]


@pytest.mark.parametrize(
    ("log", "first", "text", "expected"),
    [
        ("a", 9.0, None, ("1.000 s", "10.000 s")),
        ("b", 9.0, None, ("", "")),
        ("b", 9.0, "Jan  1 00:00:09", ("", "")),
    ],
)
def test_times_since_boot(log: str, first: float, text: str | None, expected: tuple[str, str]) -> None:
    """Those of one log are ordered, those of two logs cannot be."""
    later = group(log=log, first=first, last=first + 1, first_text=text, last_text=text)
    ((_, row),) = table(group(), later).sorted()
    assert (time_text(row.first), time_text(row.last)) == expected


@pytest.mark.parametrize(("apart", "expected"), [(30 * DAY, ("early", "late")), (300 * DAY, ("", ""))])
def test_times_of_day(apart: float, expected: tuple[str, str]) -> None:
    """Those of several logs are ordered, whatever the order of the logs, unless they may be of two years."""
    late = group(first=apart + 1, last=apart + 1, first_text="late", last_text="late")
    early = group(log="b", first=1.0, last=1.0, first_text="early", last_text="early")
    ((_, row),) = table(late, early).sorted()
    assert (time_text(row.first), time_text(row.last)) == expected


@pytest.mark.parametrize(
    ("order", "shown", "expected"), [(0, True, 0), (3, True, 3), (0, False, None), (-1, True, None)]
)
def test_order(order: int, shown: bool, expected: int | None) -> None:
    """A report of a range of pages, of a state or of a person's OOM kill has no order, which is not order 0."""
    made = table(group(order=order, order_shown=shown), group())
    assert [kind.order for kind, _ in made.sorted()] == list(dict.fromkeys((expected, 0)))
    stream = io.StringIO()
    write_table(made, 1, Console(stream))
    cells = stream.getvalue().splitlines()[3].split()
    assert cells[2:5] == ["OOM", "killer", "6.1.0" if expected is None else str(expected)]


def test_every_event_and_conclusion_has_words() -> None:
    """No row shows a value of the JSON object."""
    assert set(EVENTS) == set(get_args(Event))
    assert set(CONCLUSIONS) == {name for part in get_args(FailureConclusion) for name in get_args(part)}


def test_columns_without_values_are_left_out() -> None:
    """Where no caller and no time is known, there is no such column."""
    stream = io.StringIO()
    write_table(table(group(first=None, last=None)), 3, Console(stream))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "2 failures in 1 of 3 logs"
    assert lines[2].split() == ["count", "logs", "what", "order", "kernel"]


def test_the_table_fits_80_columns() -> None:
    """Also with long names and dates, each kind is one row of a table, and no word of up to 32 characters is broken."""
    function = "do_huge_pmd_anonymous_page"
    caller = {"function": function, "module": None, "subsystem": None}
    date = "2026-11-12T08:15:33.100000+01:00"
    made = table(
        group(caller=caller, kernel="6.12.118+deb13-amd64", first=1.0, last=1.0, first_text=date, last_text=date),
        group(order=9),
    )
    stream = io.StringIO()
    write_table(made, 2, Console(stream))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[2].split() == ["count", "logs", "what", "order", "caller,", "kernel", "first,", "last"]
    for word in (function, "6.12.118+deb13-amd64", "08:15:33+01:00"):
        assert any(word in line for line in lines)
