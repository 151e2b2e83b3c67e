# SPDX-License-Identifier: MIT
"""The sources of packages; none is used unverified."""

import hashlib
import json
import subprocess
import time
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab import apt, kernels
from kalloctrace.lab.apt import choose_mirrors, mirrors, sources_list
from kalloctrace.lab.image import has_9p
from kalloctrace.lab.local_packages import LocalPackages

ARCHIVE, SECURITY = "http://mirror.invalid/debian/", "http://mirror.invalid/debian-security/"
IMAGE = "linux-image-5.10.0-99-amd64"


def build_package(directory: Path, name: str = IMAGE, depends: str = "") -> Path:
    """Build a kernel package with an image and one empty module directory."""
    tree = directory / "build" / name
    release = name.split("-", 2)[2]
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "boot").mkdir()
    (tree / "boot" / f"vmlinuz-{release}").write_bytes(b"image")
    (tree / "lib/modules" / release).mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 5.10.999-1\nArchitecture: amd64\n"
        f"{f'Depends: {depends}' + chr(10) if depends else ''}"
        "Maintainer: nobody <nobody@example.invalid>\nDescription: none\n",
        encoding="utf-8",
    )
    file = directory / f"{name}_5.10.999-1_amd64.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file


def write_sums(file: Path, digest: str | None = None) -> None:
    """Write SHA256SUMS for one file."""
    digest = digest or hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "SHA256SUMS").write_text(f"{digest}  {file.name}\n", encoding="utf-8")


def test_mirrors_are_chosen_among_debian_suites() -> None:
    """Other vendors' archives are ignored, and the security archive is separate."""
    targets = (
        "http://other.invalid/ubuntu/ noble main Ubuntu\n"
        "http://containers.invalid/debian/ bookworm stable $(ORIGIN)\n"
        "http://tools.invalid/debian/ bookworm main Some Vendor\n"
        f"{SECURITY} bookworm-security main Debian\n"
        f"{ARCHIVE} bookworm-updates main Debian\n"
        "http://second.invalid/debian/ bookworm main Debian\n"
    )
    assert choose_mirrors(targets) == (ARCHIVE, SECURITY)


def test_mirror_of_a_suite_not_fetched_yet() -> None:
    """The origin of a suite is unknown before apt fetches it."""
    assert choose_mirrors(f"{ARCHIVE} bookworm main $(ORIGIN)\n") == (ARCHIVE, "")


def test_other_distributions_have_no_mirror() -> None:
    """A machine that does not run Debian has no Debian mirror."""
    assert choose_mirrors("http://other.invalid/ubuntu/ noble main Ubuntu\n") == ("", "")


def test_mirror_from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The URI of the security archive is derived from the given one."""
    monkeypatch.setenv("KALLOCTRACE_MIRROR", ARCHIVE)
    assert mirrors() == (ARCHIVE, SECURITY.rstrip("/"))


def test_missing_mirror_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable to set."""
    monkeypatch.delenv("KALLOCTRACE_MIRROR", raising=False)
    monkeypatch.setattr(apt, "_index_targets", lambda: "")
    with pytest.raises(KalloctraceError) as caught:
        mirrors()
    assert "KALLOCTRACE_MIRROR" in caught.value.fix


def test_every_source_is_signed() -> None:
    """Each line names the keyrings, and only a suite past its support may be expired."""
    text = sources_list(["bullseye", "bookworm-security"], (ARCHIVE, SECURITY), [Path("/a.gpg"), Path("/b.gpg")])
    assert text.splitlines() == [
        f"deb [arch=amd64 signed-by=/a.gpg,/b.gpg check-valid-until=no] {ARCHIVE} bullseye main",
        f"deb [arch=amd64 signed-by=/a.gpg,/b.gpg] {SECURITY} bookworm-security main",
    ]


def test_missing_keyring_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the archive's keys nothing is fetched."""
    monkeypatch.setattr(apt, "_KEYRINGS", tmp_path)
    with pytest.raises(KalloctraceError, match="authenticated"):
        apt.keyrings()


def test_local_packages_are_verified(tmp_path: Path) -> None:
    """A package with the right checksum is used."""
    file = build_package(tmp_path)
    write_sums(file)
    folder = LocalPackages(tmp_path)
    (package,) = folder.packages()
    assert (package.name, package.version) == (IMAGE, "5.10.999-1")
    assert folder.files([package]) == [file]


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_local_packages_with_wrong_checksums_are_refused(tmp_path: Path, digest: str | None) -> None:
    """A wrong or missing checksum is an error."""
    file = build_package(tmp_path)
    if digest:
        write_sums(file, digest)
    folder = LocalPackages(tmp_path)
    with pytest.raises(KalloctraceError, match="cannot be trusted"):
        folder.files(folder.packages())


def test_obtain_unpacks_local_packages_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The local folder comes first, only the cache is written, and later only the cache is read."""
    source = tmp_path / "source"
    source.mkdir()
    file = build_package(source)
    write_sums(file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KALLOCTRACE_KERNEL_CACHE", str(source))
    kernel = kernels.obtain("5.10")
    assert kernel.release == "5.10.0-99-amd64"
    assert kernel.image.read_bytes() == b"image"
    assert (kernel.image.parents[1] / "lib/modules" / kernel.release / "modules.dep").exists()
    write_sums(file, "0" * 64)
    assert kernels.obtain("5.10") == kernel


def test_unreachable_suites_fall_back_to_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An older unpacked kernel is used with a warning; without one it is an error."""
    source = tmp_path / "source"
    source.mkdir()
    write_sums(build_package(source))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KALLOCTRACE_KERNEL_CACHE", str(source))
    before = kernels.obtain("5.10")
    monkeypatch.delenv("KALLOCTRACE_KERNEL_CACHE")
    monkeypatch.setenv("KALLOCTRACE_MIRROR", f"file://{tmp_path}/nowhere")
    memory = f'{{"package": "{IMAGE}", "version": "5.10.999-1", "modules": true, "checked": 0}}'
    (tmp_path / "cache/kalloctrace/kernels/5.10.json").write_text(memory, encoding="utf-8")
    assert kernels.obtain("5.10") == before
    assert "using the older 5.10.0-99-amd64" in caplog.text
    with pytest.raises(KalloctraceError, match="apt cannot use"):
        kernels.obtain("6.1")


def test_image_without_modules_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is unpacked alone, and found again in the cache."""
    source = tmp_path / "source"
    source.mkdir()
    release = "6.19.99+deb13-amd64"
    build_package(
        source,
        f"linux-image-{release}",
        depends=f"linux-binary-{release} (= 5.10.999-1), linux-modules-{release} (= 5.10.999-1)",
    )
    write_sums(build_package(source, f"linux-binary-{release}"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KALLOCTRACE_KERNEL_CACHE", str(source))
    kernel = kernels.obtain("6.19")
    assert kernel.release == release
    assert kernel.image.read_bytes() == b"image"
    assert not has_9p(kernel.image)
    monkeypatch.delenv("KALLOCTRACE_KERNEL_CACHE")
    memory = {
        "package": f"linux-image-{release}",
        "version": "5.10.999-1",
        "modules": False,
        "checked": int(time.time()),
    }
    (tmp_path / "cache/kalloctrace/kernels/6.19.json").write_text(json.dumps(memory), encoding="utf-8")
    assert kernels.obtain("6.19") == kernel


def test_image_is_found_in_both_layouts(tmp_path: Path) -> None:
    """The image is in boot/, or next to the modules in split packages; otherwise it is an error."""
    with pytest.raises(KalloctraceError, match="contain no kernel image"):
        kernels.find_image(tmp_path, "7.3.4")
    split = tmp_path / "usr/lib/modules/7.3.4/vmlinuz"
    split.parent.mkdir(parents=True)
    split.touch()
    assert kernels.find_image(tmp_path, "7.3.4") == split
