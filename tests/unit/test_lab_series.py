# SPDX-License-Identifier: MIT
"""The packages that a kernel's name stands for."""

import pytest

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.lab.series import SUITES, KernelName, KernelPackages, Package, newest, parse_index, why_missing

INDEX = """\
Package: linux-image-6.12-amd64
Version: 6.12.117-1
Depends: linux-image-6.12.117+deb13-amd64 (= 6.12.117-1)

Package: linux-image-6.12.96+deb13-amd64
Version: 6.12.96-1
Depends: kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool

Package: linux-image-6.12.117+deb13-amd64
Version: 6.12.117-1
Depends: kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool
Description: Linux 6.12 for 64-bit PCs
 Package: not-a-field

Package: linux-image-6.12.118+deb13-amd64-unsigned
Version: 6.12.118-1

Package: linux-image-6.12.117+deb13-amd64-dbg
Version: 6.12.117-1

Package: linux-image-6.12.119+deb13-cloud-amd64
Version: 6.12.119-1

Package: linux-image-6.12.116+deb13-rt-amd64
Version: 6.12.116-1

Package: linux-image-7.3.5+deb13-amd64
Version: 7.3.5-1~bpo13+1
Depends: linux-binary-7.3.5+deb13-amd64 (= 7.3.5-1~bpo13+1), linux-modules-7.3.5+deb13-amd64 (= 7.3.5-1~bpo13+1)

Package: linux-image-7.3.4+deb13-amd64
Version: 7.3.4-1~bpo13+1
Depends: kmod, linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), linux-modules-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1)

Package: linux-binary-7.3.4+deb13-amd64
Version: 7.3.4-1~bpo13+1

Package: linux-binary-7.3.5+deb13-amd64
Version: 7.3.5-1~bpo13+1

Package: linux-modules-7.3.4+deb13-amd64
Version: 7.3.4-1~bpo13+1

Package: bash
Version: 5.2
"""


def found(name: str) -> str | None:
    """Return the release of a name in the index above."""
    kernel = newest(parse_index(INDEX), KernelName.parse(name))
    return kernel.release if kernel else None


def test_index_keeps_kernel_packages_with_their_fields() -> None:
    """Continuation lines and other packages are skipped."""
    packages = parse_index(INDEX)
    assert all(package.name.startswith("linux-") for package in packages)
    image = next(package for package in packages if package.name == "linux-image-6.12.117+deb13-amd64")
    assert image.version == "6.12.117-1"
    assert image.depends.startswith("kmod, ")


@pytest.mark.parametrize(
    ("name", "release"),
    [
        ("6.12", "6.12.117+deb13-amd64"),
        ("6.12-cloud", "6.12.119+deb13-cloud-amd64"),
        ("6.12-rt", "6.12.116+deb13-rt-amd64"),
        ("6.1", None),
        ("5.10", None),
    ],
)
def test_newest_of_series_and_flavour(name: str, release: str | None) -> None:
    """Empty, unsigned and debug packages, other flavours and longer series numbers do not match."""
    assert found(name) == release


def test_newest_is_by_debian_order() -> None:
    """117 is newer than 96, and a backport is older than the version that it is based on."""
    name = KernelName.parse("6.12")
    ours = [Package("linux-image-6.12.9-amd64", version) for version in ("6.12.9-1~bpo13+1", "6.12.9-1")]
    kernel = newest(ours, name)
    assert kernel is not None
    assert kernel.image.version == "6.12.9-1"


def test_split_kernel_is_its_parts() -> None:
    """A split kernel consists of its dependencies; a newer one without modules is skipped."""
    kernel = newest(parse_index(INDEX), KernelName.parse("7.3"))
    assert kernel is not None
    assert kernel.release == "7.3.4+deb13-amd64"
    assert kernel.has_modules
    assert [part.name for part in kernel.parts] == [
        "linux-binary-7.3.4+deb13-amd64",
        "linux-modules-7.3.4+deb13-amd64",
    ]


def test_kernel_without_modules_is_better_than_none() -> None:
    """If no kernel has modules the newest image is used, with its own place in the cache."""
    whole = newest(parse_index(INDEX), KernelName.parse("7.3"))
    packages = [package for package in parse_index(INDEX) if "linux-modules" not in package.name]
    kernel = newest(packages, KernelName.parse("7.3"))
    assert kernel is not None
    assert whole is not None
    assert kernel.release == "7.3.5+deb13-amd64"
    assert not kernel.has_modules
    assert [part.name for part in kernel.parts] == ["linux-binary-7.3.5+deb13-amd64"]
    assert KernelPackages(whole.image, kernel.parts, has_modules=False).key != whole.key


def test_missing_part_is_named() -> None:
    """A suite may still have the name of a kernel without its image."""
    packages = [package for package in parse_index(INDEX) if "linux-binary" not in package.name]
    name = KernelName.parse("7.3")
    assert newest(packages, name) is None
    assert "no longer linux-binary-7.3." in why_missing(packages, name)
    assert why_missing(packages, KernelName.parse("7.2")) == "trixie-backports no longer has one"


def test_whole_kernel_is_its_own_part() -> None:
    """Before the split the image package contains everything."""
    kernel = newest(parse_index(INDEX), KernelName.parse("6.12"))
    assert kernel is not None
    assert kernel.parts == (kernel.image,)


@pytest.mark.parametrize("text", ["4.19", "6", "6.12-pae", "6.12.3", "", "latest"])
def test_unknown_name_is_wrong_usage(text: str) -> None:
    """The error lists the known names."""
    with pytest.raises(KalloctraceError) as caught:
        KernelName.parse(text)
    assert caught.value.code == Exit.USAGE
    assert all(series in caught.value.why for series in SUITES)


@pytest.mark.parametrize("text", ["5.10", "6.12-rt"])
def test_name_round_trips(text: str) -> None:
    """A name is printed as it was written."""
    assert str(KernelName.parse(text)) == text
