# SPDX-License-Identifier: MIT
"""Kernel release strings, as people, `uname` and kernel logs write them."""

import re
from typing import NamedTuple

# The patch level of a release of which only the series is known: the newest one.
NEWEST_PATCH = 1 << 16
# 5.19 was followed by 6.0, 6.19 by 7.0.
RELEASES_PER_MAJOR = 20

_KERNEL = re.compile(
    r"v?(?P<major>\d{1,3})\.(?P<minor>\d{1,3})(?:\.(?P<patch>\d{1,5}))?(?P<rest>(?:[-+~._][\w.+~-]*)?)",
    re.ASCII,
)
_DEBIAN_PACKAGE = re.compile(r"\bDebian (\d{1,3})\.(\d{1,3})\.(\d{1,5})-", re.ASCII)
# Distributions keep ".0" in the release and append their own ABI number: 6.1.0-49-amd64, 5.15.0-1041-azure.
_ABI_NUMBER = re.compile(r"-\d", re.ASCII)
# Red Hat moves whole subsystems from later kernels into 3.10, 4.18, 5.14 and 6.12, so its releases do not determine the
# bit layout. Kernels that others build for the same distribution (elrepo, Oracle's uek) follow upstream.
_BACKPORTING_VENDOR = re.compile(r"\.el\d+(?:_\d+)?(?:\.(?!elrepo)|$)", re.ASCII)


class Release(NamedTuple):
    """A kernel release; releases compare by age.

    Attributes:
        major: 6 of 6.1.119.
        minor: 1 of 6.1.119.
        patch: 119 of 6.1.119; `NEWEST_PATCH` if it is unknown.
    """

    major: int
    minor: int
    patch: int = NEWEST_PATCH

    @property
    def series(self) -> str:
        """The release without its patch level, "6.1"."""
        return f"{self.major}.{self.minor}"

    @property
    def ordinal(self) -> int:
        """The number of releases from 0.0 to this one: the difference of two is how far they are apart."""
        return self.major * RELEASES_PER_MAJOR + self.minor


def parse_release(kernel: str, version: str = "") -> Release | None:
    """Parse a kernel release.

    Args:
        kernel: "5.10", "v6.12", "5.10.262", or `uname -r` such as "6.1.0-49-amd64".
        version: `uname -v`. Debian's holds the package version ("… Debian 6.1.192-2 …") and with it the patch level,
            which Debian's `uname -r` hides.

    Returns:
        The release; None if the text is not one.
    """
    match = _KERNEL.fullmatch(kernel.strip())
    if match is None:
        return None
    series = (int(match["major"]), int(match["minor"]))
    package = _DEBIAN_PACKAGE.search(version)
    if package is not None and (int(package[1]), int(package[2])) == series:
        return Release(*series, int(package[3]))
    if match["patch"] is None:
        # A release candidate is older than any patch level of its series.
        return Release(*series, 0) if match["rest"].startswith("-rc") else Release(*series)
    patch = int(match["patch"])
    if patch == 0 and _ABI_NUMBER.match(match["rest"]):
        return Release(*series)
    return Release(*series, patch)


def is_backporting_vendor(kernel: str) -> bool:
    """Return whether the vendor moves code between releases, so that the release does not determine the bit layout."""
    return _BACKPORTING_VENDOR.search(kernel) is not None


def upstream_release(kernel: str, version: str = "") -> Release | None:
    """Return the release whose code a kernel runs; arguments as of `parse_release`.

    Returns:
        The release; None when the text is no release, or when the vendor moves code between releases.
    """
    return None if is_backporting_vendor(kernel) else parse_release(kernel, version)
