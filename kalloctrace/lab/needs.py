# SPDX-License-Identifier: MIT
"""The tools and the machine that the lab requires."""

import os
import platform
import shutil
import sys
from pathlib import Path

from kalloctrace.errors import KalloctraceError

_TOOLS = {
    "qemu-system-x86_64": "the package qemu-system-x86",
    "virtme-run": "virtme-ng (pip install '.[lab]' in the source tree)",
    "busybox": "the package busybox-static",
    "depmod": "the package kmod",
    "file": "the package file",
    "timeout": "the package coreutils",
    "setpriv": "the package util-linux",
}
_FETCH_TOOLS = {
    "apt-get": "the package apt",
    "dpkg-deb": "the package dpkg",
    "depmod": "the package kmod",
}


def search_path() -> str:
    """Return the search path for tools: this interpreter's directory, PATH, and Debian's directories for root."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def find_tool(name: str) -> str | None:
    """Return a tool's path, or None when it is missing."""
    return shutil.which(name, path=search_path())


def lab_available() -> list[str]:
    """Return what is missing to boot a kernel, each with its fix; empty if nothing is missing."""
    missing = [f"{tool}: install {source}" for tool, source in _TOOLS.items() if find_tool(tool) is None]
    if platform.machine() != "x86_64":
        missing.append(f"an x86_64 machine: this one is {platform.machine()}")
    return missing


def require_lab() -> None:
    """Raise a `KalloctraceError` if something that booting a kernel requires is missing."""
    missing = lab_available()
    if missing:
        names = ", ".join(entry.split(":")[0] for entry in missing)
        fixes = "; ".join(entry.split(": ", 1)[1] for entry in missing)
        raise KalloctraceError("no kernel can be booted here", f"missing: {names}", fixes)


def require_fetch() -> None:
    """Raise a `KalloctraceError` if something that fetching a kernel requires is missing."""
    missing = {tool: source for tool, source in _FETCH_TOOLS.items() if find_tool(tool) is None}
    if missing:
        raise KalloctraceError(
            "no kernel can be fetched here",
            f"missing: {', '.join(missing)}",
            f"install {', '.join(missing.values())}, or give the path of a kernel image",
        )
