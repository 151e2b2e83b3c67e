# SPDX-License-Identifier: MIT
"""Building a kernel module: headers, sources and error messages."""

import shutil
import subprocess
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.kernels import Kernel
from kalloctrace.lab.series import Package
from tests.kmod import build

KERNEL = Kernel("6.1", Path("vmlinuz"), "6.1.0-56-amd64", "6.1.192-2")
DEPENDS = "linux-headers-6.1.0-56-common (= 6.1.192-2), linux-kbuild-6.1 (>= 6.1.192-2), linux-compiler-gcc-12-x86"
PACKAGES = [
    Package("linux-headers-6.1.0-56-amd64", "6.1.192-2", DEPENDS),
    Package("linux-headers-6.1.0-56-common", "6.1.192-2"),
    Package("linux-headers-6.1.0-56-common-rt", "6.1.192-2"),
    Package("linux-kbuild-6.1", "6.1.187-1"),
    Package("linux-kbuild-6.1", "6.1.192-2"),
]


def module_source(directory: Path) -> Path:
    """Write a module's source files, and other files."""
    for name in ("Kbuild", "one.c", "one.h", "one.mod.c", "client.py"):
        (directory / name).write_text(name, encoding="utf-8")
    return directory


def test_headers_are_of_the_kernels_own_version() -> None:
    """The result is the kernel's headers, those they include, and the build tools."""
    found = build.headers_packages(PACKAGES, KERNEL)
    assert [(package.name, package.version) for package in found] == [
        ("linux-headers-6.1.0-56-amd64", "6.1.192-2"),
        ("linux-headers-6.1.0-56-common", "6.1.192-2"),
        ("linux-kbuild-6.1", "6.1.192-2"),
    ]


@pytest.mark.parametrize("gone", [0, 1, 4])
def test_missing_headers_are_named(gone: int) -> None:
    """Any of the three packages may be missing."""
    packages = [package for number, package in enumerate(PACKAGES) if number != gone]
    with pytest.raises(build.NoHeadersError) as raised:
        build.headers_packages(packages, KERNEL)
    assert f"{PACKAGES[gone].name} 6.1.192-2" in raised.value.why


def test_unpacked_headers_include_each_other(tmp_path: Path) -> None:
    """Make finds them wherever they are unpacked or moved to."""
    if shutil.which("make") is None:
        pytest.skip("make is missing")
    for part in ("amd64", "common"):
        (tmp_path / f"tree/usr/src/linux-headers-5-{part}").mkdir(parents=True)
    own = tmp_path / "tree/usr/src/linux-headers-5-amd64/Makefile"
    own.write_text("include /usr/src/linux-headers-5-common/Makefile\n", encoding="utf-8")
    common = tmp_path / "tree/usr/src/linux-headers-5-common/Makefile"
    common.write_text("all:\n\t@echo reached\n", encoding="utf-8")
    build.make_relative(tmp_path / "tree")
    moved = (tmp_path / "tree").rename(tmp_path / "moved")
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(moved / "usr/src/linux-headers-5-amd64")],
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.stdout == "reached\n"


def test_unpacked_headers_are_built_where_they_are(tmp_path: Path) -> None:
    """Headers since 7.2 contain their own path, which is replaced too."""
    if shutil.which("make") is None:
        pytest.skip("make is missing")
    own = tmp_path / "usr/src/linux-headers-7-amd64"
    own.mkdir(parents=True)
    makefile = "KBUILD_OUTPUT=/usr/src/linux-headers-7-amd64\nall:\n\t@echo $(KBUILD_OUTPUT)\n"
    (own / "Makefile").write_text(makefile, encoding="utf-8")
    build.make_relative(tmp_path)
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(own)], check=True, capture_output=True, encoding="utf-8"
    )
    assert done.stdout.strip() == str(own)


def test_sources_are_the_inputs_of_kbuild(tmp_path: Path) -> None:
    """The client and generated files are not sources."""
    names = [path.name for path in build.source_files(module_source(tmp_path))]
    assert names == ["Kbuild", "one.c", "one.h"]


def test_source_without_kbuild_is_refused(tmp_path: Path) -> None:
    """A Makefile instead of Kbuild would recurse without end."""
    (tmp_path / "one.c").touch()
    with pytest.raises(KalloctraceError, match="no file named Kbuild"):
        build.source_files(tmp_path)


def test_digest_changes_with_the_source_only(tmp_path: Path) -> None:
    """A changed byte changes the digest; a new date does not."""
    source = module_source(tmp_path)
    before = build.digest(build.source_files(source))
    (source / "one.c").touch()
    assert build.digest(build.source_files(source)) == before
    (source / "one.c").write_text("two", encoding="utf-8")
    assert build.digest(build.source_files(source)) != before


def test_image_without_package_is_refused(tmp_path: Path) -> None:
    """The headers of such an image are unknown."""
    with pytest.raises(KalloctraceError, match="no module can be built for"):
        build.build_module(module_source(tmp_path), Kernel("/boot/vmlinuz", Path("/boot/vmlinuz")))


@pytest.mark.parametrize(
    ("output", "why", "fix"),
    [
        (
            "objtool: error while loading shared libraries: libelf.so.1: cannot open shared object file: No such file",
            "libelf.so.1",
            "install libelf1",
        ),
        ("modpost: /lib/libc.so.6: version `GLIBC_2.38' not found (required by modpost)", "GLIBC_2.38", "older kernel"),
        ("  CC [M] one.o\none.c:3:1: error: unknown type name\nmake: *** [one.o] Error 1", "one.c:3:1", "source"),
        ("gcc: error: unrecognized command-line option '-fnew'; did you mean '-fold'?", "-fnew", "newer compiler"),
        ('ERROR: modpost: "gone" [one.ko] undefined!\nmake: *** [x] Error 1', '"gone"', "source"),
        ("make: *** No rule to make target 'modules'.  Stop.", "No rule", "source"),
        ("", "nothing", "source"),
    ],
)
def test_failed_build_is_explained(output: str, why: str, fix: str) -> None:
    """The error has the line with the cause, and a fix."""
    found = build.explain(output)
    assert why in found[0]
    assert fix in found[1]
