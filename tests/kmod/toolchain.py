# SPDX-License-Identifier: MIT
"""The compiler and the tools that build a kernel module: this machine's, or those of a Debian 13 kept in the cache.

A kernel's headers come with tools that were compiled on the Debian release of that kernel, and with the options of its
compiler, so that an older machine can neither run the ones nor understand the others.
"""

import logging
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.apt import Suite
from kalloctrace.lab.kernels import cache_directory
from kalloctrace.lab.needs import find_tool, search_path

_LOG = logging.getLogger(__name__)

_SUITES = ("trixie", "trixie-security")
_COMPILER = "gcc-14"
# What kbuild runs; objtool and resolve_btfids are linked with the libraries.
_PACKAGES = (
    *(_COMPILER, "binutils", "make", "dash", "coreutils", "findutils", "grep", "sed", "mawk", "diffutils", "perl-base"),
    *("libelf1t64", "zlib1g"),
)
_MERGED = ("bin", "lib", "lib64", "sbin")
_MOUNTED = ("dev", "proc", "headers", "module")
# The directories are mounted where the tree has empty ones, in a mount namespace that ends with the build.
_ENTER = """
set -e
tree=$1 headers=$2 module=$3
shift 3
mount --rbind /dev "$tree/dev"
mount --rbind /proc "$tree/proc"
mount --bind "$headers" "$tree/headers"
mount --bind "$module" "$tree/module"
exec chroot "$tree" "$@"
"""
_ELF = b"\x7fELF"
_NEEDED = re.compile(rb"\0GLIBC_(\d+)\.(\d+)")
_GCC_VERSION = re.compile(r"^CONFIG_GCC_VERSION=(\d+)$", re.MULTILINE)


@dataclass(frozen=True, order=True)
class Level:
    """What building for a kernel needs, or a machine has.

    Attributes:
        c_library: the version of glibc.
        compiler: gcc's first number.
    """

    c_library: tuple[int, int]
    compiler: int

    def covers(self, needed: "Level") -> bool:
        """Whether this is enough for what is needed."""
        return self.c_library >= needed.c_library and self.compiler >= needed.compiler

    def __str__(self) -> str:
        """Return it for people."""
        return f"glibc {self.c_library[0]}.{self.c_library[1]} and gcc {self.compiler}"


def needed_level(headers: Path) -> Level:
    """Return what a kernel's headers need: by the symbol versions in their tools, and by their configuration.

    Args:
        headers: the directory that modules are built in, such as `…/usr/src/linux-headers-6.12.117+deb13-amd64`.
    """
    versions = [version for name in ("scripts", "tools") for version in _symbol_versions(headers / name)]
    config = (headers / ".config").read_text(encoding="utf-8")
    match = _GCC_VERSION.search(config)
    # It is 10000 times gcc's first number and more (init/Kconfig, scripts/cc-version.sh).
    return Level(max(versions, default=(0, 0)), int(match[1]) // 10000 if match else 0)


def machine_level() -> Level:
    """Return what this machine has: 0 for a C library that is not glibc, or for no compiler, linker or make."""
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except ValueError:
        library = ""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", library)
    gcc, *others = (find_tool(tool) for tool in ("gcc", "ld", "make"))
    version = "0"
    if gcc is not None and all(others):
        version = subprocess.run([gcc, "-dumpversion"], check=False, capture_output=True, encoding="utf-8").stdout
    return Level((int(found[1]), int(found[2])) if found else (0, 0), int(version.split(".")[0].strip() or 0))


def make_command(headers: Path, root: Path, module: Path) -> list[str]:
    """Return the command that builds a module, with this machine's tools or, where those are too old, Debian 13's.

    Args:
        headers: the directory that modules are built in.
        root: the directory that all the kernel's headers packages were unpacked to, which `headers` is below.
        module: the directory of the module's source, where the result will be too.

    Raises:
        KalloctraceError: this machine's tools are too old, and others cannot be had or used here.
    """
    needed, there = needed_level(headers), machine_level()
    if there.covers(needed):
        return _make("gcc", headers, module)
    _LOG.info("this machine has %s, the kernel's build needs %s: using Debian 13's", there, needed)
    namespace = namespace_command(needed, there)
    inside = _make(_COMPILER, Path("/headers") / headers.relative_to(root), Path("/module"))
    return [*namespace, "sh", "-c", _ENTER, "sh", str(_tree()), str(root), str(module), *inside]


def environment() -> dict[str, str]:
    """Return the environment to build in: variables such as MAKEFLAGS, ARCH and CROSS_COMPILE would change it."""
    return {"PATH": search_path(), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}


def _make(compiler: str, headers: Path, module: Path) -> list[str]:
    # The compiler is named, as the headers ask for the one by the name of which their kernel was built.
    compilers = (f"CC={compiler}", f"HOSTCC={compiler}")
    # No types of the module's own are asked for, so that no pahole is needed.
    return ["make", "-C", str(headers), f"M={module}", *compilers, "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]


def _symbol_versions(directory: Path) -> Iterator[tuple[int, int]]:
    """Yield the versions of the C library that programs below a directory ask for."""
    for path in directory.resolve().rglob("*"):
        if path.is_file() and not path.is_symlink() and os.access(path, os.X_OK):
            content = path.read_bytes()
            if content.startswith(_ELF):
                yield from ((int(major), int(minor)) for major, minor in _NEEDED.findall(content))


def namespace_command(needed: Level, there: Level) -> list[str]:
    """Return the command that lets another one mount and change its root directory.

    Raises:
        KalloctraceError: neither root's way nor a user namespace is open.
    """
    for options in (["--mount"], ["--map-root-user", "--mount"]):
        command = [find_tool("unshare") or "unshare", *options]
        if (
            find_tool("unshare")
            and subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
        ):
            return command
    raise KalloctraceError(
        "no module can be built for this kernel here",
        f"its build needs {needed}, this machine has {there}, and Debian 13's tools can only be used by root or in a "
        "user namespace, which is refused",
        "run it as root, allow user namespaces (sysctl kernel.unprivileged_userns_clone=1), or use a Debian 13",
    )


class _ToolchainSuite(Suite):
    """Suites to download packages and their dependencies from."""

    def download_with_dependencies(self, names: Sequence[str], into: Path) -> list[Path]:
        """Download the newest packages of these names and their dependencies, and return the files.

        apt checks them against the signed index. Its state has no installed packages, so it downloads every dependency.
        """
        _LOG.info("downloading %s and their dependencies", " ".join(names))
        (into / "partial").mkdir()
        options = ("-o", f"Dir::Cache::archives={into}", "--yes", "--no-install-recommends", "--download-only")
        self._apt("apt-get", *options, "install", *names)
        return sorted(into.glob("*.deb"))


def _tree() -> Path:
    """Return a root directory with Debian 13's tools: 70 MB to download, 260 MB unpacked, made once."""
    toolchains = cache_directory() / "toolchains"
    tree = toolchains / f"{_SUITES[0]}-{_COMPILER}"
    if not tree.is_dir():
        toolchains.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=toolchains, prefix=".unpack-") as directory:
            archives, unpacked = Path(directory) / "archives", Path(directory) / "tree"
            archives.mkdir()
            suite = _ToolchainSuite(_SUITES, cache_directory() / "apt")
            suite.update()
            files = suite.download_with_dependencies(_PACKAGES, archives)
            prepare(unpacked)
            for file in files:
                subprocess.run(["dpkg-deb", "--extract", str(file), str(unpacked)], check=True)
            unpacked.rename(tree)
    return tree


def prepare(tree: Path) -> None:
    """Make the directories and links that packages expect of a root directory, or that a build needs."""
    for name in _MERGED:
        (tree / "usr" / name).mkdir(parents=True)
        (tree / name).symlink_to(f"usr/{name}")
    for name in (*_MOUNTED, "tmp"):
        (tree / name).mkdir()
    # An alternative, which the package would have chosen when installed.
    (tree / "usr/bin/awk").symlink_to("mawk")
