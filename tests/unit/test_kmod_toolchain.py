# SPDX-License-Identifier: MIT
"""The choice of tools to build a module, from the kernel's headers and the machine."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from kalloctrace.errors import KalloctraceError
from tests.kmod import toolchain
from tests.kmod.toolchain import Level

OLD = Level((2, 36), 12)
NEW = Level((2, 41), 14)


def headers(root: Path, *, symbols: bytes = b"\0GLIBC_2.34\0GLIBC_2.38\0GLIBC_2.2.5\0", gcc: int = 140200) -> Path:
    """Write headers whose tools are in another directory, as Debian's are."""
    tools = root / "usr/lib/linux-kbuild-6.12/scripts"
    (tools / "mod").mkdir(parents=True)
    modpost = tools / "mod/modpost"
    modpost.write_bytes(b"\x7fELF" + symbols)
    modpost.chmod(0o755)
    script = tools / "script"
    script.write_bytes(b"#!/bin/sh\n# \0GLIBC_9.99\0")
    script.chmod(0o755)
    tree = root / "usr/src/linux-headers-6.12-amd64"
    tree.mkdir(parents=True)
    (tree / "scripts").symlink_to("../../lib/linux-kbuild-6.12/scripts")
    (tree / ".config").write_text(f"CONFIG_CC_IS_GCC=y\nCONFIG_GCC_VERSION={gcc}\n", encoding="utf-8")
    return tree


def test_needs_are_read_from_the_headers(tmp_path: Path) -> None:
    """They are the newest symbol version of the programs, without scripts, and the compiler in the configuration."""
    assert toolchain.needed_level(headers(tmp_path)) == Level((2, 38), 14)


def test_versions_are_numbers(tmp_path: Path) -> None:
    """2.4 is older than 2.14."""
    tree = headers(tmp_path, symbols=b"\0GLIBC_2.4\0GLIBC_2.14\0", gcc=100201)
    assert toolchain.needed_level(tree) == Level((2, 14), 10)


@pytest.mark.parametrize(
    ("needed", "enough"),
    [
        (Level((2, 36), 12), True),
        (Level((2, 14), 10), True),
        (Level((2, 38), 12), False),
        (Level((2, 14), 13), False),
        (Level((2, 4), 14), False),
    ],
)
def test_machine_must_have_both(needed: Level, *, enough: bool) -> None:
    """A newer C library does not compensate for an older compiler."""
    assert OLD.covers(needed) is enough


def test_level_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is that of the C library and of gcc, and 0 without them or without a linker."""
    gcc = tmp_path / "gcc"
    gcc.write_text("#!/bin/sh\necho 12\n", encoding="utf-8")
    gcc.chmod(0o755)
    monkeypatch.setattr(os, "confstr", lambda _: "glibc 2.36")
    monkeypatch.setattr(toolchain, "find_tool", lambda _: str(gcc))
    assert toolchain.machine_level() == OLD
    monkeypatch.setattr(os, "confstr", lambda _: None)
    monkeypatch.setattr(toolchain, "find_tool", lambda name: None if name == "ld" else str(gcc))
    assert toolchain.machine_level() == Level((0, 0), 0)


def test_new_machine_uses_its_own_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It builds with its own compiler on the files in place."""
    tree = headers(tmp_path)
    monkeypatch.setattr(toolchain, "machine_level", lambda: NEW)
    command = toolchain.make_command(tree, tmp_path, tmp_path / "module")
    assert command[:3] == ["make", "-C", str(tree)]
    assert {"CC=gcc", "HOSTCC=gcc", f"M={tmp_path / 'module'}", "modules"} <= set(command)


def test_old_machine_uses_the_compiler_of_the_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It builds with the compiler in the tree, on mounted directories."""
    tree = headers(tmp_path)
    monkeypatch.setattr(toolchain, "machine_level", lambda: OLD)
    monkeypatch.setattr(toolchain, "_tree", lambda: Path("/tree"))
    monkeypatch.setattr(toolchain, "find_tool", lambda name: name)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=0))
    command = toolchain.make_command(tree, tmp_path, tmp_path / "module")
    assert command[:4] == ["unshare", "--mount", "sh", "-c"]
    assert command[6:9] == ["/tree", str(tmp_path), str(tmp_path / "module")]
    assert command[9:12] == ["make", "-C", "/headers/usr/src/linux-headers-6.12-amd64"]
    assert {"CC=gcc-14", "HOSTCC=gcc-14", "M=/module"} <= set(command)


def test_user_namespace_is_used_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user namespace is used if mounting requires it."""
    refused = {("unshare", "--mount", "true"): 1}
    monkeypatch.setattr(toolchain, "find_tool", lambda name: name)
    answers = lambda command, **_: SimpleNamespace(returncode=refused.get(tuple(command), 0))  # noqa: E731
    monkeypatch.setattr(subprocess, "run", answers)
    assert toolchain.namespace_command(NEW, OLD) == ["unshare", "--map-root-user", "--mount"]


@pytest.mark.parametrize("tool", [None, "unshare"])
def test_machine_without_usable_tools_is_an_error(tool: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the needed and available versions, and three fixes."""
    monkeypatch.setattr(toolchain, "find_tool", lambda _: tool)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(KalloctraceError) as raised:
        toolchain.namespace_command(NEW, OLD)
    assert "needs glibc 2.41 and gcc 14, this machine has glibc 2.36 and gcc 12" in raised.value.why
    assert "user namespaces" in raised.value.fix


def test_tree_is_a_root_directory(tmp_path: Path) -> None:
    """Packages unpack into /usr, and programs find each other outside of it."""
    tree = tmp_path / "tree"
    toolchain.prepare(tree)
    (tree / "usr/bin/mawk").touch()
    assert (tree / "bin/awk").exists()
    assert all((tree / name).is_dir() for name in ("lib64", "sbin", "dev", "proc", "headers", "module", "tmp"))
