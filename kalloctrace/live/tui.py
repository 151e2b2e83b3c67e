# SPDX-License-Identifier: MIT
"""The live screen: a table that updates, and always shows what was lost."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.events import Resize
from textual.widgets import DataTable, Footer, Input, Static

from kalloctrace.errors import KalloctraceError
from kalloctrace.live.columns import GAP, Cells, PlacedColumn, place_columns
from kalloctrace.live.detail import detail
from kalloctrace.live.keys import RequestKey, TaskKey
from kalloctrace.live.table import By, LiveRow, SortName
from kalloctrace.live.terminal import TerminalDriver
from kalloctrace.live.text import Part, clock, count_groups, legend_lines, mode_text, padded, row_words, wrapped
from kalloctrace.live.tui_screens import STYLES, Detail, Head, Help
from kalloctrace.live.view import View
from kalloctrace.probe.recorder import DRAIN_INTERVAL
from kalloctrace.signals import Ending
from kalloctrace.styled import StyledText, styled, styled_lines
from kalloctrace.text import printable
from kalloctrace.trace.observation import Source
from kalloctrace.trace.writer import default_name

MAX_ROWS = 200
_LEGEND_SHARE = 10
"""At most one line in this many is legend."""
_ROW_SHARE = 4
"""At most one line in this many shows the selected row in full."""
_VERDICT_STYLES = {"ok": "green", "unknown": "bold yellow", "MISMATCH": "bold white on red"}
_TABLE_ACTIONS = {
    "pause",
    "filter",
    "sort",
    "sort_by",
    "failed",
    "slow",
    "reverse",
    "by",
    "write",
    "legend",
    "help",
    "no_filter",
}


class Rows(DataTable[StyledText]):
    """The table."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Explain")]


class LiveApp(App[None]):
    """Shows a recording in progress.

    Attributes:
        view: the table, filtered and sorted.
        ending: ends the screen from outside.
        reason: why the screen ended; empty while it runs.
        failure: the exception that ended the UI.
        written: traces that were written from the screen.

    Args:
        source: the recording.
        view: the initial view.
        ending: ends the screen from outside.
        interval: seconds between two observations.
        count: number of intervals; None for no limit.
        replayed: name of the replayed trace; empty for a live recording.
    """

    ENABLE_COMMAND_PALETTE = False
    TITLE = "kalloctrace live"
    CSS = """
    Screen { layers: base; }
    DataTable { height: 1fr; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
    #row { height: auto; min-height: 2; background: $panel; }
    #legend { height: auto; color: $text-muted; }
    #filter { display: none; height: 3; }
    #filter.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("space", "pause", "Pause"),
        Binding("slash", "filter", "Filter"),
        Binding("less_than_sign,comma", "sort(-1)", show=False),
        Binding("greater_than_sign,full_stop", "sort(1)", "Sort"),
        *(
            Binding(key, f"sort_by('{name}')", show=False)
            for key, name in (("C", "count"), ("B", "bytes"), ("F", "failed"), ("T", "time"))
        ),
        Binding("r", "reverse", "Reverse", show=False),
        Binding("f", "failed", "Failed"),
        Binding("s", "slow", "Slow"),
        Binding("b", "by", "By"),
        Binding("w", "write", "Write"),
        Binding("l", "legend", "Legend", show=False),
        Binding("question_mark,h,f1", "help", "Help"),
        Binding("escape", "no_filter", show=False),
    ]

    def __init__(
        self,
        source: Source,
        view: View,
        ending: Ending,
        *,
        interval: float,
        count: int | None = None,
        replayed: str = "",
    ) -> None:
        super().__init__(driver_class=TerminalDriver)
        self.view = view
        self.ending = ending
        self.reason = ""
        self.failure: Exception | None = None
        self.written: list[Path] = []
        self._source = source
        self._interval = interval
        self._left = count
        self._replayed = replayed
        self._paused = self._over = False
        self._legend = True
        self._short_names: list[tuple[str, str]] = []
        self._shown: list[LiveRow] = []
        self._chosen: tuple[RequestKey, TaskKey] | None = None
        self._cursor_at = 0
        self._filling = False

    def compose(self) -> ComposeResult:
        """Lay out the screen."""
        yield Head()
        # Red stays red under the cursor.
        own: Literal["renderable"] = "renderable"
        yield Rows(cursor_type="row", cell_padding=0, cursor_foreground_priority=own, cursor_background_priority=own)
        yield Static(id="row")
        yield Static(id="legend")
        yield Input(id="filter", placeholder="order>0 zone=Normal gfp&__GFP_ZERO comm~python", select_on_focus=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Start observing the recording."""
        self._event_loop = asyncio.get_running_loop()
        self._event_loop.add_reader(self.ending.fileno(), self._ended)
        self.set_interval(DRAIN_INTERVAL, self._drain)
        self.set_interval(self._interval, self._interval_over)
        self.query_one(Rows).focus()
        self.tick()

    def on_resize(self, _: Resize) -> None:
        """Choose the columns for the new size."""
        self.call_after_refresh(self.refresh_table)

    def tick(self) -> None:
        """Take an observation, and show it unless the screen is paused."""
        if self._over:
            return
        self._over = bool(self._source.ended)
        self.view.update(self._source.observe(), whole=self._over, held=self._paused)
        self.refresh_table()

    def refresh_table(self) -> None:
        """Show the last observation."""
        try:
            table = self.screen_stack[0].query_one(Rows)
        except (NoMatches, IndexError):
            return
        self._show_heads()
        placed = self._placed()
        selected, top = self._selected(table), table.scroll_y
        rows = self.view.rows()
        self._shown = rows[:MAX_ROWS]
        self._filling = True
        table.clear(columns=True)
        for part in placed:
            table.add_column(self._heading(part), width=part.width + GAP, key=part.column.name)
        in_sight, beyond = Cells(self.view.snapshot.tables), Cells(self.view.snapshot.tables)
        for number, row in enumerate(self._shown):
            cells = in_sight if top <= number < top + self.size.height else beyond
            table.add_row(*(_cell(cells, row, part) for part in placed))
        table.scroll_to(y=top, animate=False)
        if selected is not None and table.row_count:
            table.move_cursor(row=selected, animate=False)
        self._filling = False
        self._cursor_at = table.cursor_row
        self._show_row(self._cursor_at)
        self._show_legend(in_sight, len(rows))

    def _placed(self) -> list[PlacedColumn]:
        return place_columns(self.view.by, self.size.width - 1, self.view.fields, sort=self.view.sort)

    def _selected(self, table: Rows) -> int | None:
        """Return where the row is now that the user chose; None until the cursor was moved: it is on the first line."""
        at = table.cursor_row
        if at != self._cursor_at and at < len(self._shown):
            self._chosen = self._shown[at].key
        if self._chosen is None:
            return None
        return next((i for i, row in enumerate(self.view.rows()[:MAX_ROWS]) if row.key == self._chosen), at)

    def _show_row(self, at: int) -> None:
        """Show a row in full."""
        lines: list[str] = []
        if at < len(self._shown):
            lines = wrapped(row_words(self._shown[at], self.view.snapshot.tables), self.size.width - 1)
            most = max(3, self.size.height // _ROW_SHARE)
            if len(lines) > most:
                lines[most - 1 :] = ["… Enter shows the whole stack"]
        self.screen_stack[0].query_one("#row", Static).update(styled_lines((line, "") for line in lines))

    def _heading(self, part: PlacedColumn) -> StyledText:
        text = part.heading
        if part.column.name == self.view.sort:
            text += "▼" if self.view.descending else "▲"
        return styled(padded(text, part), "bold")

    def _show_heads(self) -> None:
        for screen in self.screen_stack:
            for head in screen.query(Head):
                head.show(self._head(), self.size.width)

    def _head(self) -> list[list[Part]]:
        view, table = self.view, self.view.table
        if table is None:
            return []
        state: list[Part] = [
            ("kalloctrace live", "strong"),
            (view.snapshot.release, "plain"),
            (clock(table.seconds), "plain"),
            (f"every {self._interval:g} s", "faint"),
        ]
        if self._paused:
            state.append(("PAUSED", "doubt"))
        if self._source.ended:
            state.append((f"ended: {self._source.ended}; rates cover the whole recording", "doubt"))
        state += [(f"missed: {cause}", "doubt") for cause in view.missed_causes]
        state += [(words, "doubt") for words in view.restrictions]
        mode = mode_text(view.snapshot, self._source.recording, view.by, fields=view.fields, replayed=self._replayed)
        counts = count_groups(table, replayed=bool(self._replayed), history=view.history)
        return [state, *counts, [(mode, "faint")]]

    def _show_legend(self, cells: Cells, rows: int) -> None:
        self._short_names = cells.legend()
        most = max(2, self.size.height // _LEGEND_SHARE)
        lines = list(legend_lines(self._short_names, self.size.width - 1)) if self._legend else []
        if len(lines) > most:
            lines[most - 1 :] = ["… ? shows all short names"]
        if rows > MAX_ROWS:
            lines.insert(0, f"… and {rows - MAX_ROWS:,} more rows: press / to filter")
        legend = self.screen_stack[0].query_one("#legend", Static)
        legend.display = bool(lines)
        legend.update(styled_lines((line, "") for line in lines))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run work that may fail; the error is raised after the terminal is restored."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again after the screen ends
            self.failure = error
            self.exit()

    def _drain(self) -> None:
        self._guarded(self._source.drain)

    def _interval_over(self) -> None:
        self._guarded(self.tick)
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self._end("the intervals were over")

    def _ended(self) -> None:
        self._event_loop.remove_reader(self.ending.fileno())
        self._end(self.ending.reason)

    def redraw(self) -> None:
        """Draw the whole screen again; any thread may call this."""
        self._event_loop.call_soon_threadsafe(partial(self.refresh, layout=True))

    def _end(self, reason: str) -> None:
        self.reason = reason
        self.exit()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether an action is available: those of the table are not on other screens."""
        del parameters
        return len(self.screen_stack) == 1 or action not in _TABLE_ACTIONS

    async def action_quit(self) -> None:
        """End the recording and the screen."""
        self._end("the user ended it")

    def action_pause(self) -> None:
        """Freeze or resume the screen; the recording continues."""
        self._paused = not self._paused
        if not self._paused:
            self.view.refresh()
        self.refresh_table()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        self.view.next_sort(step)
        self.refresh_table()

    def action_sort_by(self, name: SortName) -> None:
        """Sort by a column, the largest value first."""
        self._unless_missing(lambda: self.view.sort_largest_first(name))

    def action_failed(self) -> None:
        """Show only failed calls, or all again."""
        self._unless_missing(self.view.toggle_failed)

    def action_slow(self) -> None:
        """Show only slow calls, or all again."""
        self._unless_missing(self.view.toggle_slow)

    def _unless_missing(self, change: Callable[[], None]) -> None:
        """Change the table; where the recording lacks what that needs, say so."""
        try:
            change()
        except KalloctraceError as error:
            self.notify(f"{error.why}; {error.fix}", title=error.what, markup=False)
        self.refresh_table()

    def action_reverse(self) -> None:
        """Reverse the order."""
        self.view.set_sort(self.view.sort)
        self.refresh_table()

    def action_legend(self) -> None:
        """Hide or show the legend."""
        self._legend = not self._legend
        self.refresh_table()

    def action_by(self) -> None:
        """Group rows by request, task or stack, as far as the recording has them."""
        recording = self._source.recording
        choices: list[By] = ["request"]
        if recording.get("mode") == "stream":
            choices += ["task", "stack"] if recording.get("stacks") else ["task"]
        if len(choices) == 1:
            why = "pids and stacks are not recorded in aggregate mode. Start with --by task or --stack."
            self.notify(why, title="By")
            return
        self.view.set_by(choices[(choices.index(self.view.by) + 1) % len(choices)])
        self.refresh_table()

    def action_write(self) -> None:
        """Write a trace of what was counted so far."""
        path = default_name(self.view.snapshot.release)
        try:
            self._source.write(path)
        except (KalloctraceError, OSError) as error:
            self.notify(str(error), title="not written", severity="error", markup=False)
            return
        self.written.append(path)
        self.notify(printable(f"wrote {path}"), title="Write", markup=False)

    def action_help(self) -> None:
        """Show what the keys do."""
        self.push_screen(Help(self._short_names))
        self.call_after_refresh(self._show_heads)

    def action_filter(self) -> None:
        """Open the filter's input."""
        field = self.query_one("#filter", Input)
        field.add_class("open")
        field.value = self.view.filter
        field.cursor_position = len(field.value)
        field.border_title = "filter: Enter applies, Esc cancels; ? in the table shows the syntax"
        field.focus()

    def action_no_filter(self) -> None:
        """Cancel the input, or remove the filter where no input is open."""
        field = self.query_one("#filter", Input)
        if not field.has_class("open"):
            self.view.set_filter("")
        self._close_filter(field)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Apply a filter."""
        try:
            self.view.set_filter(event.value)
        except KalloctraceError as error:
            event.input.border_title = styled(f"{error.what}: {error.why}; {error.fix}")
            return
        self._close_filter(event.input)

    def _close_filter(self, field: Input) -> None:
        field.remove_class("open")
        self.query_one(Rows).focus()
        self.refresh_table()

    def on_data_table_header_selected(self, event: "DataTable.HeaderSelected") -> None:
        """Sort by the clicked column."""
        placed = self._placed()
        self.view.set_sort(placed[event.column_index].column.name)
        self.refresh_table()

    def on_data_table_row_highlighted(self, _: "DataTable.RowHighlighted") -> None:
        """Show the row under the cursor in full."""
        # The event may be older than the rows.
        self._show_row(self.screen_stack[0].query_one(Rows).cursor_row)

    def on_data_table_row_selected(self, event: "DataTable.RowSelected") -> None:
        """Show the details of the selected row."""
        if self._filling or event.cursor_row >= len(self._shown):
            return
        row = self._shown[event.cursor_row]
        chosen = self.view.members(row)
        if not chosen:
            self.notify("the slow path shows it; the call itself was not recorded", title="Explain", markup=False)
            return
        release = self.view.snapshot.release
        self.push_screen(Detail(len(chosen), lambda at: detail(self.view.allocations, release, row, chosen, at)))
        self.call_after_refresh(self._show_heads)


def _cell(cells: Cells, row: LiveRow, part: PlacedColumn) -> StyledText:
    text = padded(cells.text(row, part), part)
    if part.column.name == "verdict":
        return styled(text, _VERDICT_STYLES[row.verdict])
    return styled(text, STYLES["faint"] if not row.new else "")
