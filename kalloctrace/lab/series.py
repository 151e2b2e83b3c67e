# SPDX-License-Identifier: MIT
"""The kernels' names, and which of a suite's packages a name stands for."""

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
"""The Debian suites that carry each series."""

_NAME = re.compile(r"(?P<series>\d+\.\d+)(?:-(?P<flavour>cloud|rt))?")
# Three numbers at least: `linux-image-6.12-amd64` is an empty package that follows the newest.
# Nothing after the architecture: no `-dbg`, and `-unsigned` differs by a signature that no guest asks for.
_IMAGE = re.compile(rf"linux-image-(?P<abi>\d+\.\d+\.\d+\S*?)(?:-(?P<flavour>cloud|rt))?-{ARCHITECTURE}")
_BINARY = "linux-binary-"
_PART = re.compile(r"\b(linux-(?:binary|modules)-\d\S*) \(= ([^)]+)\)")


@dataclass(frozen=True)
class KernelName:
    """A kernel as people name it: `6.12`, or `6.12-rt` for another flavour than the generic one."""

    series: str
    flavour: str = ""

    @classmethod
    def parse(cls, text: str) -> "KernelName":
        """Read a name.

        Raises:
            KalloctraceError: no suite is known to carry such a kernel.
        """
        match = _NAME.fullmatch(text)
        if match is None or match["series"] not in SUITES:
            raise KalloctraceError(
                f"no kernel is named {text!r}",
                f"known are {' '.join(SUITES)}, each also with -cloud or -rt",
                "name one of these, or give the path of a kernel image (with a / in it)",
                Exit.USAGE,
            )
        return cls(match["series"], match["flavour"] or "")

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites to look in."""
        return SUITES[self.series]

    def __str__(self) -> str:
        """Return the name as people write it."""
        return f"{self.series}-{self.flavour}" if self.flavour else self.series


@dataclass(frozen=True)
class Package:
    """A package as an index describes it."""

    name: str
    version: str
    depends: str = ""


@dataclass(frozen=True)
class KernelPackages:
    """The packages that make up one kernel.

    Attributes:
        image: the `linux-image-*` package, after which the kernel is called.
        parts: the packages to unpack: the image itself, or what it was split into.
        has_modules: whether these hold its modules, which may leave a suite before the image does.
    """

    image: Package
    parts: tuple[Package, ...]
    has_modules: bool = True

    @property
    def release(self) -> str:
        """What `uname -r` says in it."""
        return self.image.name.removeprefix("linux-image-")

    @property
    def key(self) -> str:
        """A name for the cache, one per build."""
        without = "" if self.has_modules else "_without-modules"
        return f"{self.image.name}_{self.image.version}{without}"


def parse_index(text: str) -> list[Package]:
    """Return the kernel packages among a package index's stanzas."""
    packages = []
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        name = fields.get("Package", "")
        if name.startswith("linux-") and "Version" in fields:
            packages.append(Package(name, fields["Version"], fields.get("Depends", "")))
    return packages


def newest(packages: Iterable[Package], name: KernelName) -> KernelPackages | None:
    """Return the newest kernel that a name stands for, or None when there is none.

    One without modules is only taken when there is none with them.
    """
    available = list(packages)
    known = {(package.name, package.version): package for package in available}
    found = []
    for package in available:
        if not _is_image(package, name):
            continue
        # Since 6.19 the image package is empty and depends on what it was split into.
        wanted = _PART.findall(package.depends)
        parts = tuple(known[part] for part in wanted if part in known)
        if len(parts) == len(wanted):
            found.append(KernelPackages(package, parts or (package,)))
        elif binary := tuple(part for part in parts if part.name.startswith(_BINARY)):
            found.append(KernelPackages(package, binary, has_modules=False))
    return max(found, key=lambda kernel: (kernel.has_modules, _VERSION_ORDER(kernel.image.version)), default=None)


def why_missing(packages: Iterable[Package], name: KernelName) -> str:
    """Return why `newest` found nothing."""
    suites = " and ".join(name.suites)
    known = {package.name for package in packages}
    for package in packages:
        if _is_image(package, name):
            gone = [part for part, _ in _PART.findall(package.depends) if part not in known]
            return f"{suites} still has {package.name} but no longer {', '.join(gone)}"
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
