# SPDX-License-Identifier: MIT
"""What a new trace is called when nobody says."""

import os
import time
from pathlib import Path


def new_name(release: str) -> Path:
    """Return a name in the current folder that no other process gives at this time.

    Args:
        release: of the recorded kernel.
    """
    return Path(f"kalloctrace-{release}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.arrows")
