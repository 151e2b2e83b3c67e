# SPDX-License-Identifier: MIT
"""Diagnosed failures as the text that people read."""

import io
from collections.abc import Iterable

from kalloctrace.console import Console
from kalloctrace.diagnose.from_log import Failure
from kalloctrace.diagnose.text import add_failure
from kalloctrace.styled import sheet_of


def failure_text(failures: Iterable[Failure]) -> str:
    """Return the text about failures, one after the other."""
    stream = io.StringIO()
    sheet = sheet_of(Console(stream))
    for failure in failures:
        add_failure(failure, sheet)
        sheet.blank()
    sheet.show()
    return stream.getvalue()
