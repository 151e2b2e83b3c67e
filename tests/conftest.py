# SPDX-License-Identifier: MIT
"""Gives each test its time limit: pyproject's, or that of its folder; and signals their usual effect."""

import signal
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LIMITS = {
    # A guest boots in the emulator in half a minute or more. Its own time limit comes first.
    "live/in_guest": 900,
    "live": 3600,
    "pressure": 1800,
    # A page waits 30 seconds for each thing that does not appear; Perfetto's page is a large one.
    "browser": 300,
    # Java starts, and compiles what it runs, on processors that other tests use too.
    "cli/test_fleet_": 900,
    # All fixtures are added to a dataset, and judged by two commands.
    "replay/test_fleet.py": 600,
    # Packages are built and installed; the documentation's commands include a guest.
    "cli/test_packages.py": 1200,
    "cli/test_documented_commands.py": 600,
    "cli/test_site.py": 400,
}
"""Seconds for one test, with the fixtures that it is the first to use, by the start of its path in `tests/`."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test of these folders that has no limit of its own."""
    for item in items:
        if item.path.is_relative_to(TESTS) and item.get_closest_marker("timeout") is None:
            path = item.path.relative_to(TESTS).as_posix()
            limit = next((seconds for start, seconds in LIMITS.items() if path.startswith(start)), None)
            if limit is not None:
                item.add_marker(pytest.mark.timeout(limit))


def pytest_configure() -> None:
    """Undo what nohup, or a shell without job control, makes processes ignore: the program would ignore it too."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
