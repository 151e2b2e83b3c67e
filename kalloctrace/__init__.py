# SPDX-License-Identifier: MIT
"""Records how Linux prepares each page allocation, predicts it, and reports where the two differ.

The names in `__all__` are the public API, documented in docs/en/api.md. Every other module is private and may change.
They are imported when they are first used, because the command line starts faster without them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kalloctrace.api import (
        Decoded,
        Difference,
        ExplainedRow,
        KalloctraceError,
        Mismatch,
        Preparation,
        Step,
        Trace,
        Verification,
        decode,
        open_trace,
        predict,
    )
    from kalloctrace.version import __version__

__all__ = [
    "Decoded",
    "Difference",
    "ExplainedRow",
    "KalloctraceError",
    "Mismatch",
    "Preparation",
    "Step",
    "Trace",
    "Verification",
    "__version__",
    "decode",
    "open_trace",
    "predict",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401  (each name has its own type)
    """Import a public name on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'kalloctrace' has no attribute {name!r}")
    module = "kalloctrace.version" if name == "__version__" else "kalloctrace.api"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    """List the public names too."""
    return sorted({*globals(), *__all__})
