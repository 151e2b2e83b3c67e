# SPDX-License-Identifier: MIT
"""`make run` and `make test` as on a fresh Debian: roots that mmdebstrap makes, with what is committed here.

It runs as root. A root gets this machine's settings for apt and pip and its certificates, and nothing else of it; it
sees this machine's kernel, so a machine that can be traced is traced.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kalloctrace.lab.apt import keyrings, mirrors, sources_list

CHECKOUT = Path(__file__).parents[2]
SUITES = {"12": "bookworm", "13": "trixie"}
STEPS = ("run", "test")

# What a person has who has just cloned a repository.
_PACKAGES = "ca-certificates,git,make,python3"
_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_PASSED_ON = re.compile(
    r"(?i:\w+_proxy)|PIP_(?:INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|KALLOCTRACE_MIRROR"
)
_CACHE = "KALLOCTRACE_KERNEL_CACHE"
_KERNELS = "/srv/kernels"
# Its own mounts end with it, also when it is killed.
_ENTER = """
root=$1 kernels=$2; shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
[ -z "$kernels" ] || { mkdir -p "$root/srv/kernels" && mount --bind "$kernels" "$root/srv/kernels"; }
exec chroot "$root" env -i "$@"
"""


def make_root(suite: str, root: Path) -> None:
    """Make a fresh root, in place of an old one.

    Args:
        suite: the name of a Debian release.
        root: the directory.
    """
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        sources, settings = Path(directory, "sources.list"), Path(directory, "apt.conf")
        names = (suite, f"{suite}-updates", f"{suite}-security")
        sources.write_text(sources_list(names, mirrors(), keyrings()), encoding="utf-8")
        settings.write_bytes(subprocess.run(["apt-config", "dump", "Acquire"], check=True, capture_output=True).stdout)
        words = ["mmdebstrap", "--quiet", "--variant=apt", f"--include={_PACKAGES}", f"--aptopt={settings}"]
        subprocess.run([*words, suite, str(root), str(sources)], check=True)
    for path in sorted(_CERTIFICATES.glob("*.crt")):
        shutil.copy(path, root / _CERTIFICATES.relative_to("/"))
    for path in map(Path, ("/etc/pip.conf", "/etc/resolv.conf")):
        if path.exists():
            shutil.copy(path, root / path.relative_to("/"))
    enter(root, "update-ca-certificates >/dev/null 2>&1")
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), str(root / "root/kalloctrace")]
    subprocess.run(clone, check=True)


def enter(root: Path, script: str) -> int:
    """Run a shell script in a root, in the checkout if there is one; return its exit code."""
    cache = os.environ.get(_CACHE, "")
    variables = [f"{name}={value}" for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)]
    variables += ["HOME=/root", "LC_ALL=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    variables += [f"{_CACHE}={_KERNELS}"] if cache else []
    words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh", str(root), cache]
    inside = f"cd /root/kalloctrace 2>/dev/null || cd /root\n{script}"
    return subprocess.run([*words, *variables, "sh", "-c", inside], check=False, stdin=subprocess.DEVNULL).returncode


def main() -> int:
    """Make the roots, run the steps in each, and print a line for each; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=CHECKOUT / "build/fresh")
    parser.add_argument("--step", choices=STEPS, action="append")
    parser.add_argument("--release", choices=SUITES, nargs="+", default=list(SUITES))
    words = parser.parse_args()
    missing = [tool for tool in ("mmdebstrap", "apt-config", "unshare", "chroot") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        sys.exit(f"fresh: install {' '.join(missing)}" if missing else "fresh: only root can enter a root")
    results = []
    for release in words.release:
        root = words.folder.resolve() / release
        start = time.monotonic()
        make_root(SUITES[release], root)
        results.append(f"Debian {release}: root made in {time.monotonic() - start:.0f} s")
        for step in words.step or STEPS:
            start = time.monotonic()
            code = enter(root, f"KALLOCTRACE_REQUIRE_LIVE=1 make {step}")
            ended = "passed" if code == 0 else f"FAILED with {code}"
            results.append(f"Debian {release}: make {step} {ended} after {time.monotonic() - start:.0f} s")
    print(*results, sep="\n")
    return int(any("FAILED" in line for line in results))


if __name__ == "__main__":
    sys.exit(main())
