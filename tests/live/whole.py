# SPDX-License-Identifier: MIT
"""Runs the tests of `in_guest/` in a guest: all of them by `make guest`, and those that are not long by `make test`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

IN_GUEST = Path(__file__).parent / "in_guest"
_NODES = ("1G,cpus=0", "3G,cpus=1")
_VARIABLES = ("KALLOCTRACE_REQUIRE_LIVE=1", "KALLOCTRACE_IN_GUEST=1", "TMPDIR=/tmp")
_UNUSED = ("cacheprovider", "hypothesispytest", "xdist", "pytest_cov")
"""Plugins of pytest, whose import takes half a minute in a guest."""


def command(kernel: str, timeout: int, lab: Sequence[str] = (), pytest: Sequence[str] = ()) -> list[str]:
    """Return the command.

    Args:
        kernel: of the guest.
        timeout: seconds.
        lab: more options of `lab run`.
        pytest: more options of pytest.
    """
    words = [sys.executable, "-m", "kalloctrace", "lab", "run", "--kernel", kernel, "--timeout", str(timeout), *lab]
    words += [word for node in _NODES for word in ("--numa", node)]
    words += [word for variable in _VARIABLES for word in ("--env", variable)]
    without = [word for plugin in _UNUSED for word in ("-p", f"no:{plugin}")]
    return [*words, "--", sys.executable, "-m", "pytest", *without, "-v", "--durations=0", *pytest, str(IN_GUEST)]


if __name__ == "__main__":
    os.execv(sys.executable, command(sys.argv[1], 7200))
