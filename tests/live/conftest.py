# SPDX-License-Identifier: MIT
"""Runs the tests of `in_guest/` in a guest of their own while the other tests run, as they take longest."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kalloctrace.lab.needs import lab_available

IN_GUEST = Path(__file__).parent / "in_guest"
WAITING = "test_guests.py"
"""The file whose test waits for them."""

TIMEOUT = 3300
NODES = ("1G,cpus=0", "3G,cpus=1")


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
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "kalloctrace", "lab", "run", "--kernel", "5.10"]
    command += [
        "--timeout",
        str(TIMEOUT),
        "--out",
        str(directory),
        *(word for node in NODES for word in ("--numa", node)),
    ]
    for variable in ("KALLOCTRACE_REQUIRE_LIVE=1", "KALLOCTRACE_IN_GUEST=1", "TMPDIR=/tmp"):
        command += ["--env", variable]
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-v",
        "-rA",
        "--durations=0",
        "-m",
        "not long",
        str(IN_GUEST),
    ]
    stdout, stderr = directory / "stdout", directory / "stderr"
    with (
        stdout.open("wb") as out,
        stderr.open("wb") as err,
        subprocess.Popen([*command, "--", *tests], stdout=out, stderr=err) as process,
    ):
        try:
            yield GuestRun(process, stdout, stderr)
        finally:
            process.terminate()
