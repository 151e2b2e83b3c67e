# SPDX-License-Identifier: MIT
"""Kernel names, and the packages of a suite that each name stands for."""

import functools
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from kalloctrace.errors import Exit, KalloctraceError

ARCHITECTURE = "amd64"

SUITES = {
    "5.10": ("bullseye", "bullseye-security"),
    "6.1": ("bookworm", "bookworm-security"),
    "6.12": ("trixie", "trixie-security"),
    "6.16": ("trixie-backports",),
    "6.17": ("trixie-backports",),
    "6.18": ("trixie-backports",),
    "6.19": ("trixie-backports",),
    "7.0": ("trixie-backports",),
    "7.1": ("trixie-backports",),
    "7.2": ("trixie-backports",),
    "7.3": ("trixie-backports",),
}
"""The Debian suites of each kernel series."""

_NAME = re.compile(r"(?P<series>\d+\.\d+)(?:-(?P<flavour>cloud|rt))?")
# At least three numbers: `linux-image-6.12-amd64` is a metapackage for the newest version. Nothing after the
# architecture: no `-dbg`, and `-unsigned` only lacks a signature, which guests do not check.
_IMAGE = re.compile(rf"linux-image-(?P<abi>\d+\.\d+\.\d+\S*?)(?:-(?P<flavour>cloud|rt))?-{ARCHITECTURE}")
_BINARY = "linux-binary-"
_PART = re.compile(r"\b(linux-(?:binary|modules)-\d\S*) \(= ([^)]+)\)")


@dataclass(frozen=True)
class KernelName:
    """A kernel name: `6.12`, or `6.12-rt` for a flavour other than the generic one."""

    series: str
    flavour: str = ""

    @classmethod
    def parse(cls, text: str) -> "KernelName":
        """Parse a name.

        Raises:
            KalloctraceError: no known suite has such a kernel.
        """
        match = _NAME.fullmatch(text)
        if match is None or match["series"] not in SUITES:
            raise KalloctraceError(
                f"unknown kernel {text!r}",
                f"known kernels are {' '.join(SUITES)}, each also with -cloud or -rt",
                "name one of these, or give the path of a kernel image (containing a /)",
                Exit.USAGE,
            )
        return cls(match["series"], match["flavour"] or "")

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites to search."""
        return SUITES[self.series]

    def __str__(self) -> str:
        """Return the name, such as `6.12-rt`."""
        return f"{self.series}-{self.flavour}" if self.flavour else self.series


@dataclass(frozen=True)
class Package:
    """A package in an index."""

    name: str
    version: str
    depends: str = ""


@dataclass(frozen=True)
class KernelPackages:
    """The packages of one kernel.

    Attributes:
        image: the `linux-image-*` package, which names the kernel.
        parts: the packages to unpack: the image itself, or the parts it depends on.
        has_modules: whether they contain its modules, which may leave a suite before the image does.
    """

    image: Package
    parts: tuple[Package, ...]
    has_modules: bool = True

    @property
    def release(self) -> str:
        """The kernel's `uname -r`."""
        return self.image.name.removeprefix("linux-image-")

    @property
    def key(self) -> str:
        """The key in the cache, one per build."""
        without = "" if self.has_modules else "_without-modules"
        return f"{self.image.name}_{self.image.version}{without}"


def parse_index(text: str) -> list[Package]:
    """Return the kernel packages in a package index."""
    packages = []
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        name = fields.get("Package", "")
        if name.startswith("linux-") and "Version" in fields:
            packages.append(Package(name, fields["Version"], fields.get("Depends", "")))
    return packages


def newest(packages: Iterable[Package], name: KernelName) -> KernelPackages | None:
    """Return the newest kernel of a name; None if there is none. Kernels with modules come first."""
    available = list(packages)
    known = {(package.name, package.version): package for package in available}
    found = []
    for package in available:
        if not _is_image(package, name):
            continue
        # Since 6.19 the image package is empty and depends on its parts.
        depends = _PART.findall(package.depends)
        parts = tuple(known[part] for part in depends if part in known)
        if len(parts) == len(depends):
            found.append(KernelPackages(package, parts or (package,)))
        elif binary := tuple(part for part in parts if part.name.startswith(_BINARY)):
            found.append(KernelPackages(package, binary, has_modules=False))
    return max(found, key=lambda kernel: (kernel.has_modules, _VERSION_ORDER(kernel.image.version)), default=None)


def why_missing(packages: Iterable[Package], name: KernelName) -> str:
    """Return why `newest` returned None."""
    suites = " and ".join(name.suites)
    known = {package.name for package in packages}
    for package in packages:
        if _is_image(package, name):
            removed = [part for part, _ in _PART.findall(package.depends) if part not in known]
            return f"{suites} still has {package.name} but no longer {', '.join(removed)}"
    return f"{suites} no longer has one"


def _is_image(package: Package, name: KernelName) -> bool:
    match = _IMAGE.fullmatch(package.name)
    return match is not None and (match["flavour"] or "") == name.flavour and match["abi"].startswith(f"{name.series}.")


def _compare_versions(one: str, other: str) -> int:
    if one == other:
        return 0
    newer = subprocess.run(["dpkg", "--compare-versions", one, "gt", other], check=False).returncode == 0
    return 1 if newer else -1


_VERSION_ORDER = functools.cmp_to_key(_compare_versions)
