# SPDX-License-Identifier: MIT
"""The command `kalloctrace lab`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kalloctrace.lab.needs import lab_available
from tests.schemas import hold

needs_lab = pytest.mark.skipif(bool(lab_available()), reason=f"missing: {lab_available()}")


def kalloctrace(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a directory."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", *words],
        check=False,
        capture_output=True,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), **env},
    )


@needs_lab
def test_unknown_kernel_is_wrong_usage(tmp_path: Path) -> None:
    """Exit code 2 and the known names."""
    done = kalloctrace("lab", "run", "--kernel", "4.4", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown kernel '4.4'\n")
    assert "6.12" in done.stderr
    assert done.stdout == ""


@needs_lab
def test_missing_image_is_wrong_usage(tmp_path: Path) -> None:
    """The error names the missing path."""
    done = kalloctrace("lab", "run", "--kernel", "./bzImage", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot boot ./bzImage" in done.stderr


def test_command_is_required(tmp_path: Path) -> None:
    """Without a command it prints its usage."""
    assert kalloctrace("lab", "run", "--kernel", "5.10", cwd=tmp_path).returncode == 2


def test_missing_tools_are_named_with_their_packages(tmp_path: Path) -> None:
    """The error has three lines and no traceback."""
    code = (
        "import sys; from kalloctrace.lab import needs; needs.search_path = lambda: '/nowhere'; "
        "from kalloctrace.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "lab", "run", "--kernel", "5.10", "--", "true"],
        check=False,
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 3
    assert "qemu-system-x86" in done.stderr
    assert "virtme-ng" in done.stderr


def build_tree(directory: Path, line: str) -> Path:
    """Create a kernel's build tree with one line of configuration; return its image."""
    image = directory / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.touch()
    (directory / ".config").write_text(f"\n{line}\n", encoding="ascii")
    return image


@needs_lab
def test_dry_run_prints_the_command(tmp_path: Path) -> None:
    """An image given by path needs no download, and nothing boots."""
    image = build_tree(tmp_path, "CONFIG_9P_FS=y")
    done = kalloctrace(
        "lab", "run", "-k", str(image), "--dry-run", "--numa", "1G", "--append", "nokaslr", "--", "true", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"virtme-run --kimg {image} ")
    assert "--numa 1G" in done.stdout
    assert "--kopt=nokaslr" in done.stdout


@needs_lab
def test_kernel_without_9p_boots_in_memory(tmp_path: Path) -> None:
    """The command is QEMU's own, with the archive of the files."""
    image = build_tree(tmp_path, "# CONFIG_9P_FS is not set")
    words = ("lab", "run", "-k", str(image), "--append", "nokaslr")
    done = kalloctrace(*words, "--dry-run", "--", "true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("qemu-system-x86_64 ")
    assert f"-kernel {image} -initrd {tmp_path}/cache/kalloctrace/initramfs/" in done.stdout
    assert "nokaslr" in done.stdout


@needs_lab
def test_root_directory_cannot_be_shared(tmp_path: Path) -> None:
    """The command's directory is writable in the guest, and / cannot be."""
    image = tmp_path / "bzImage"
    image.touch()
    done = kalloctrace("lab", "run", "-k", str(image), "--out", "/", "--dry-run", "--", "true", cwd=tmp_path)
    assert done.returncode == 2
    assert "/ cannot be shared" in done.stderr


def test_kernels_prints_why_none_is_available(tmp_path: Path) -> None:
    """The list is complete even if no mirror answers."""
    done = kalloctrace("lab", "kernels", "--json", cwd=tmp_path, KALLOCTRACE_MIRROR=f"file://{tmp_path}/nowhere")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert all('"cached": false' in line for line in lines)
    hold("kernel", *map(json.loads, lines))
