# SPDX-License-Identifier: MIT
"""Finds the BPF Compiler Collection of the distribution, from whichever Python environment runs.

PyPI has an unrelated package of the same name, and no package with the compiler. The distribution's package is pure
Python on top of libbcc and works with any Python 3, so it is loaded from its own folder.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from kalloctrace.errors import KalloctraceError

DIST_PACKAGES = ("/usr/lib/python3/dist-packages",)
_INSTALL = "install the distribution's: apt install python3-bpfcc"


def _is_compiler(spec: ModuleSpec) -> bool:
    """Return whether a package called bcc is the compiler's: only that one has the module libbcc."""
    return any((Path(folder) / "libbcc.py").is_file() for folder in spec.submodule_search_locations or ())


def find_bcc(folders: tuple[str, ...] = DIST_PACKAGES) -> ModuleSpec:
    """Find the distribution's bcc without importing it.

    Args:
        folders: where distributions install it, searched after Python's own path.

    Raises:
        KalloctraceError: it is not installed, or another package called bcc hides it.
    """
    own = PathFinder.find_spec("bcc")
    if own is not None and _is_compiler(own):
        return own
    if own is not None:
        raise KalloctraceError(
            "cannot use bcc",
            f"{own.origin} is an unrelated package of the same name, from PyPI",
            "remove it: pip uninstall bcc; then install the distribution's: apt install python3-bpfcc",
        )
    system = PathFinder.find_spec("bcc", list(folders))
    if system is None or not _is_compiler(system):
        raise KalloctraceError(
            "cannot use bcc", f"it is neither on Python's path nor in {', '.join(folders)}", _INSTALL
        )
    return system


def import_bcc() -> ModuleType:
    """Import the distribution's bcc.

    Raises:
        KalloctraceError: it is not installed, is another package, or does not load.
    """
    if "bcc" in sys.modules:
        return sys.modules["bcc"]
    spec = find_bcc()
    assert spec.loader is not None  # noqa: S101 a package found by PathFinder with a folder has one
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as error:
        del sys.modules["bcc"]
        raise KalloctraceError("cannot use bcc", str(error), "install all of it: apt install python3-bpfcc") from error
    return module
