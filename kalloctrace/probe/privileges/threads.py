# SPDX-License-Identifier: MIT
"""Threads that libraries start: a thread that exists when privileges are given up would keep them."""

import importlib
import os
from pathlib import Path

_SETTINGS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
_THREADS = Path("/proc/self/task")


def import_libraries_without_threads() -> None:
    """Import numpy and pyarrow so that they start no thread; what they start later has no privileges either.

    OpenBLAS, which is unused here, starts one per CPU, and pyarrow's jemalloc one to purge memory. The first batch of a
    trace needs pyarrow.compute, which takes too long to be imported while calls are recorded.
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    for name in ("numpy", "pyarrow", "pyarrow.compute"):
        importlib.import_module(name)
    for name, value in before.items():
        # A recorded command gets the caller's environment.
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def thread_names() -> list[str]:
    """Return the names of this process's threads."""
    return [(thread / "comm").read_text(errors="replace").strip() for thread in _THREADS.iterdir()]
