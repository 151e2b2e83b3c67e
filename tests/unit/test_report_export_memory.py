# SPDX-License-Identifier: MIT
"""Exporting a trace of distinct allocations only takes no more memory than exporting another one."""

import io
from pathlib import Path

import pytest

from kalloctrace.report.export import rows
from kalloctrace.trace.decode import RowBatch
from kalloctrace.trace.reader import TraceReader
from tests import traces


def test_texts_are_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many distinct allocations there are, few texts of them are kept, and each row is right."""
    path = traces.varied(tmp_path / "t.arrows", 1_000)
    with TraceReader(path) as trace:
        whole = io.BytesIO()
        rows.write_rows(trace, "jsonl", whole)
        kept: list[int] = []
        monkeypatch.setattr(rows, "_KEPT_TEXTS", 100)
        monkeypatch.setattr(rows, "_LINES", 50)
        build = rows._Lines.of  # noqa: SLF001 - memory is what is tested

        def counting(self: rows._Lines, batch: RowBatch) -> memoryview:
            lines = build(self, batch)
            kept.append(len(self._texts))
            return lines

        monkeypatch.setattr(rows._Lines, "of", counting)  # noqa: SLF001
        parts = io.BytesIO()
        rows.write_rows(trace, "jsonl", parts)
    assert parts.getvalue() == whole.getvalue()
    assert len(kept) == 20
    assert max(kept) <= 150
