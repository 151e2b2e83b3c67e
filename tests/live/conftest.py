# SPDX-License-Identifier: MIT
"""Runs the tests of `in_guest/` in a guest of their own while the other tests run, as they take longest."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kalloctrace.lab.needs import lab_available
from tests.live.whole import command

WAITING = "test_guests.py"
"""The file whose test waits for them."""

TIMEOUT = 3300


@dataclass(frozen=True)
class GuestRun:
    """The running guest and the files with its output."""

    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the waiting test to the end."""
    items.sort(key=lambda item: item.path.name == WAITING)


@pytest.fixture(scope="session", autouse=True)
def guest_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestRun | None]:
    """Start the guest with the first test of this folder, and end it with the session; None if nothing waits for it."""
    if lab_available() or not any(item.path.name == WAITING for item in request.session.items):
        yield None
        return
    directory = tmp_path_factory.mktemp("in-guest")
    # If pytest is killed, the lab gets SIGTERM, at which it ends its guest.
    run = command("5.10", TIMEOUT, ["--out", str(directory)], ["-rA", "-m", "not long"])
    stdout, stderr = directory / "stdout", directory / "stderr"
    with (
        stdout.open("wb") as out,
        stderr.open("wb") as err,
        subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *run], stdout=out, stderr=err) as process,
    ):
        try:
            yield GuestRun(process, stdout, stderr)
        finally:
            process.terminate()
