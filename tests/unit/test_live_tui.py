# SPDX-License-Identifier: MIT
"""The live screen: what it shows at 80 and 200 columns, and what its keys do."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.text import Text
from textual.pilot import Pilot

from kalloctrace.live.table import By
from kalloctrace.live.tui import LiveApp, Rows
from kalloctrace.live.tui_screens import Detail, Help
from kalloctrace.live.view import View
from kalloctrace.signals import Ending
from kalloctrace.trace.observation import Observation
from kalloctrace.trace.reader import TraceReader
from kalloctrace.trace.replay import Replay
from kalloctrace.verify.verification import verify_trace
from tests import played
from tests.screen_text import assert_as_kept, lines_of
from tests.traces import RECORDED

UNDER_PRESSURE = RECORDED.parents[1] / "6.12" / "slow-stream.arrows"
NEVER = 3600
"""An interval longer than any test."""
SMALL, LARGE = (80, 24), (200, 50)
Steps = Callable[[LiveApp, "Pilot[None]"], Awaitable[None]]


class Stepped(Replay):
    """A replay whose time advances only when a test says so."""

    lost = 0
    slow: int | None = None
    failed: int | None = None

    def drain(self) -> None:
        """Do not advance the time."""

    def observe(self) -> Observation:
        """Return the observation, with losses that the test adds."""
        seen = super().observe()
        return replace(seen, totals=replace(seen.totals, dropped=self.lost, slow=self.slow, slow_failed=self.failed))


@pytest.fixture
def wrong(tmp_path: Path) -> Iterator[Stepped]:
    """Replay a stream whose last call is a mismatch."""
    with Stepped(played.trace(tmp_path / "wrong.arrows", wrong=True), played.Clock()) as replay:
        yield replay


@pytest.fixture
def pressed() -> Iterator[Stepped]:
    """Replay a real recording with a slow path and failures."""
    with Stepped(UNDER_PRESSURE, played.Clock()) as replay:
        replay.slow, replay.failed = 224, 105
        yield replay


@pytest.fixture
def real() -> Iterator[Stepped]:
    """Replay a real recording."""
    with Stepped(RECORDED, played.Clock()) as replay:
        yield replay


def run(source: Stepped, steps: Steps, *, size: tuple[int, int] = SMALL, by: By = "request") -> LiveApp:
    """Run the screen and execute steps on it."""
    view = View(source.snapshot, by)
    view.describe(source.recording)
    app = LiveApp(source, view, Ending(), interval=NEVER, replayed="a.arrows")

    async def session() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(session())
    if app.failure is not None:
        raise app.failure
    return app


def advanced(source: Stepped, *steps: float) -> Steps:
    """Return steps that advance a trace and refresh the screen."""

    async def play(app: LiveApp, pilot: "Pilot[None]") -> None:
        for step in steps:
            source.advance(step)
            app.tick()
            await pilot.pause()

    return play


def table_of(app: LiveApp) -> Rows:
    """Return the table."""
    return app.screen_stack[0].query_one(Rows)


def column(app: LiveApp, name: str) -> list[Text]:
    """Return the cells of a column."""
    return list(table_of(app).get_column(name))


def texts(app: LiveApp, name: str) -> list[str]:
    """Return the texts of a column."""
    return [cell.plain.strip() for cell in column(app, name)]


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80", "200"])
@pytest.mark.parametrize("by", ["request", "task"])
def test_real_recording_on_the_screen(real: Stepped, by: By, size: tuple[int, int]) -> None:
    """The screen is as kept."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(real, 8.0, 1.0)(app, pilot)
        assert_as_kept(app, f"{by}-{size[0]}")

    run(real, look, size=size, by=by)


@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["80", "200"])
def test_mismatch_loss_and_stacks_on_the_screen(wrong: Stepped, size: tuple[int, int]) -> None:
    """The screen is as kept; the verdict and the loss are red."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        wrong.lost = 5
        await advanced(wrong, 1.0, 2.0)(app, pilot)
        assert_as_kept(app, f"stack-{size[0]}")
        styles = {cell.plain.strip(): str(cell.style) for cell in column(app, "verdict")}
        assert "red" in styles["MISMATCH"]
        assert "red" not in styles["ok"]

    run(wrong, look, size=size, by="stack")


def test_slow_path_and_failures_are_visible(wrong: Stepped) -> None:
    """The numbers are complete, also at 80 columns."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        wrong.slow, wrong.failed = 123_456, 7_890
        await advanced(wrong, 3.0)(app, pilot)
        assert lines_of(app)[1] == "failed 7,890 calls, 2,630/s █  slow 123,456 calls, 41,152/s █"

    run(wrong, look)


def test_row_is_explained(wrong: Stepped) -> None:
    """Enter shows the steps and the field that differs, Escape goes back, and the loss stays visible."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        wrong.lost = 7
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("greater_than_sign", "greater_than_sign")
        while app.view.sort != "verdict":
            await pilot.press("greater_than_sign")
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, Detail)
        assert_as_kept(app, "detail-80")
        assert any("lost 7" in line for line in lines_of(app))
        assert any("MISMATCH in alloc_flags" in line for line in lines_of(app))
        await pilot.press("pagedown", "pagedown")
        assert any("first_zones_zonelist" in line for line in lines_of(app))
        wrong.lost = 8
        app.tick()
        await pilot.pause()
        assert any("lost 8" in line for line in lines_of(app))
        await pilot.press("escape")
        assert not isinstance(app.screen, Detail)

    run(wrong, look)


def test_allocations_of_a_row_are_turned_over(real: Stepped) -> None:
    """N shows one allocation after the other, and the first again after the last."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(real, 1000.0)(app, pilot)
        await pilot.press("enter")
        await pilot.pause()
        count = len(app.view.members(app.view.rows()[0]))
        assert count > 1
        for position in range(count + 1):
            assert any(f"allocation {position % count + 1} of {count} " in line for line in lines_of(app))
            await pilot.press("n")
            await pilot.pause()

    run(real, look)


def test_sort_keys(wrong: Stepped) -> None:
    """Keys sort by the column to the left or right, or reverse the order."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("greater_than_sign")
        assert texts(app, "count") == ["25", "10", "1"]
        await pilot.press("r")
        assert texts(app, "count") == ["1", "10", "25"]
        await pilot.press("less_than_sign")
        assert app.view.sort == "rate"

    run(wrong, look, by="task", size=LARGE)


def test_heading_that_is_clicked_sorts(wrong: Stepped) -> None:
    """A click on a heading sorts as the key does."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.click(Rows, offset=(13, 0))
        await pilot.pause()
        assert app.view.sort == "count"

    run(wrong, look)


def test_keys_of_questions(pressed: Stepped) -> None:
    """F and S select calls and the head says so; capitals sort, and the column to sort by is on the narrow screen."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(pressed, 1000.0)(app, pilot)
        everything = len(app.view.rows())
        for key, name in (("F", "failed"), ("T", "time"), ("B", "bytes"), ("C", "count")):
            await pilot.press(key)
            await pilot.pause()
            assert app.view.sort == name
            member = {"time": "slow_ns"}.get(name, name)
            values = [getattr(row, member) for row in app.view.rows()]
            assert values == sorted(values, reverse=True)
            assert len(texts(app, name)) == everything
        await pilot.press("f")
        await pilot.pause()
        assert any("only failed calls" in line for line in lines_of(app))
        assert sum(row.count for row in app.view.rows()) == 105
        await pilot.press("s")
        await pilot.pause()
        text = " ".join(lines_of(app))
        assert "only failed calls" in text
        assert "only calls longer than 0 ms in the slow path" in text
        await pilot.press("f")
        await pilot.pause()
        assert sum(row.count for row in app.view.rows()) == 224
        await pilot.press("s")
        await pilot.pause()
        assert len(app.view.rows()) == everything
        assert not any("only " in line for line in lines_of(app)[:4])

    run(pressed, look)


def test_keys_of_questions_that_the_trace_cannot_answer(real: Stepped) -> None:
    """The reason is on the screen, and nothing changes."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(real, 9.0)(app, pilot)
        for key, what in (("s", "cannot select slow calls"), ("T", "cannot sort by time")):
            await pilot.press(key)
            await pilot.pause()
            text = " ".join(lines_of(app))
            assert what in text
            assert "its slow path was not recorded" in text
        assert app.view.sort == "rate"
        assert app.view.restrictions == []

    run(real, look)


def test_filter_keys(wrong: Stepped) -> None:
    """Matching rows stay; an invalid filter shows its error and changes nothing; Escape shows all rows again."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("slash", *"comm=sh", "enter")
        await pilot.pause()
        assert texts(app, "comm") == ["sh", "sh"]
        assert any("filter: comm=sh" in line for line in lines_of(app))
        await pilot.press("slash", "space", *"oder=1", "enter")
        await pilot.pause()
        assert any("cannot filter by 'oder=1'" in line for line in lines_of(app))
        await pilot.press("escape")
        await pilot.pause()
        assert texts(app, "comm") == ["sh", "sh"]
        await pilot.press("escape")
        await pilot.pause()
        assert len(texts(app, "comm")) == 3

    run(wrong, look, by="task")


def test_pause_stands_still_and_counts_on(wrong: Stepped) -> None:
    """Calls made meanwhile appear afterwards."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 0.95)(app, pilot)
        await pilot.press("space")
        await advanced(wrong, 2.0)(app, pilot)
        assert texts(app, "count") == ["10"]
        assert any("PAUSED" in line for line in lines_of(app))
        await pilot.press("space")
        await pilot.pause()
        assert sorted(texts(app, "count")) == ["1", "35"]
        assert not any("PAUSED" in line for line in lines_of(app))

    run(wrong, look)


def test_rows_stand_for_more_or_less(wrong: Stepped) -> None:
    """The key cycles through request, task and stack."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        seen = []
        for _ in range(3):
            await pilot.press("b")
            seen.append((app.view.by, len(texts(app, "rate"))))
        assert seen == [("task", 3), ("stack", 3), ("request", 2)]

    run(wrong, look)


def test_aggregate_does_not_pretend_to_know_who_asks(wrong: Stepped) -> None:
    """The key shows what to do instead."""
    wrong.recording = {"mode": "aggregate"}

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("b")
        await pilot.pause()
        assert app.view.by == "request"
        assert any("--by task" in line for line in lines_of(app))

    run(wrong, look)


def test_session_is_written(wrong: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written trace verifies with the numbers of the screen."""
    monkeypatch.chdir(tmp_path)

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("w")
        await pilot.pause()

    (path,) = run(wrong, look).written
    with TraceReader(path) as reader:
        verdict = verify_trace(reader)
    assert (verdict.allocations, verdict.mismatched) == (36, 1)


def test_folder_that_cannot_be_written_is_reported(
    wrong: Stepped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is shown, and the screen keeps running."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        await pilot.press("w")
        await pilot.pause()
        assert any("cannot write" in line for line in lines_of(app))

    assert run(wrong, look).written == []


def test_help_fits_80_columns(real: Stepped) -> None:
    """Help has the keys, and the short names that are on the screen."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(real, 9.0)(app, pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, Help)
        assert_as_kept(app, "help-80")
        await pilot.press("end")
        await pilot.press("q")
        assert not isinstance(app.screen, Help)
        assert app.reason == ""

    run(real, look)


def test_chosen_row_is_followed(wrong: Stepped) -> None:
    """The cursor follows a selected row; on the first line it stays there."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 1.95)(app, pilot)
        assert texts(app, "comm") == ["python", "sh"]
        await pilot.press("down")
        await advanced(wrong, 1.0)(app, pilot)
        assert texts(app, "comm")[0] == "sh"
        assert table_of(app).cursor_row == 0
        for key in ("greater_than_sign", "r", "less_than_sign"):
            await pilot.press(key)
            await pilot.pause()
            chosen = table_of(app).cursor_row
            assert (texts(app, "comm")[chosen], texts(app, "verdict")[chosen]) == ("sh", "ok")

    run(wrong, look, by="task")


def test_selected_row_is_shown_in_full(wrong: Stepped) -> None:
    """The lines below the table have the kernel's names of the row under the cursor, at 80 columns too."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 3.0)(app, pilot)
        seen = []
        for key in ("up", "down"):
            await pilot.press(key)
            await pilot.pause()
            seen.append(" ".join(lines_of(app)))
        assert "alloc_flags=ALLOC_WMARK_LOW" in seen[0]
        assert "calls=35" in seen[0]
        assert "verdict=ok" in seen[0]
        assert "calls=1 " in seen[1]
        assert "verdict=MISMATCH" in seen[1]

    run(wrong, look)


def test_head_says_what_is_wrong_first(wrong: Stepped) -> None:
    """Failed calls with their rate and history come before all other counts, and the colours have reasons."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(wrong, 1.0)(app, pilot)
        wrong.slow, wrong.failed = 8, 4
        await advanced(wrong, 2.0)(app, pilot)
        lines = lines_of(app)
        assert lines[1].startswith("failed 4 calls (11%), 2.0/s")
        assert "█  slow 8 calls (22%), 4.0/s" in lines[1]
        assert any("failed: the call got no page" in line for line in lines)
        assert any(line.startswith("of the whole trace:  lost 0 calls") for line in lines)

    run(wrong, look)


def test_head_has_what_a_person_wants_first(pressed: Stepped) -> None:
    """Failed calls and their share, time in the slow path, the slowest call, losses, then the model's verdict."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(pressed, 1000.0)(app, pilot)
        text = "\n".join(lines_of(app)[:8])
        failed, slow = "failed 105 calls (43%)", "slow path 53.5 ms in all"
        words = (failed, slow, "the slowest 17.2 ms", "lost 0 calls", "model: matched")
        places = [text.find(word) for word in words]
        assert -1 not in places, text
        assert places == sorted(places)

    run(pressed, look)


def test_narrower_screen_has_fewer_columns(real: Stepped) -> None:
    """The columns fit the new size at once."""

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        await advanced(real, 9.0)(app, pilot)
        wide = len(table_of(app).columns)
        await pilot.resize_terminal(50, 20)
        await pilot.pause()
        await pilot.pause()
        assert 3 <= len(table_of(app).columns) < wide
        assert max(map(len, lines_of(app))) <= 50

    run(real, look)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_keys_that_end_it(wrong: Stepped, key: str) -> None:
    """A signal ends the screen and restores the terminal."""

    async def look(_: LiveApp, pilot: "Pilot[None]") -> None:
        await pilot.press(key)

    assert run(wrong, look).reason == "the user ended it"


def test_failure_ends_the_screen_first(wrong: Stepped, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised after the terminal is restored."""

    def fail() -> Observation:
        raise OSError("the buffer is gone")

    async def look(app: LiveApp, pilot: "Pilot[None]") -> None:
        monkeypatch.setattr(wrong, "observe", fail)
        app._interval_over()  # noqa: SLF001 - as the timer does
        await pilot.pause()

    with pytest.raises(OSError, match="buffer is gone"):
        run(wrong, look)
