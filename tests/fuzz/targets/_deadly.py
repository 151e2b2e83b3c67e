# SPDX-License-Identifier: MIT
"""A surface that kills its process, for the test of the harness."""

import os
import signal

from tests.fuzz.surface import surface

_SIGNALS = {b"S": signal.SIGSEGV, b"K": signal.SIGKILL}


@surface(max_len=8, covers=(), words=tuple(_SIGNALS))
def fuzz_deadly(data: bytes) -> None:
    """Die if the input begins with the letter of a signal."""
    if data[:1] in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[data[:1]])
