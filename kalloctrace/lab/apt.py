# SPDX-License-Identifier: MIT
"""Debian's suites, read by apt with a separate state: the machine's own package system does not change."""

import logging
import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.series import ARCHITECTURE, Package, parse_index

_LOG = logging.getLogger(__name__)
_DAY = 24 * 60 * 60

_KEYRINGS = Path("/usr/share/keyrings")
# Keys of suites past their support are in the second keyring.
_KEYRING_NAMES = ("debian-archive-keyring.gpg", "debian-archive-removed-keys.gpg")
# The index of a suite past its support is no longer re-signed, so it is used after its expiry date.
_PAST_SUPPORT = frozenset({"bullseye", "bullseye-security"})
_DEBIAN = re.compile(
    r"(?:bullseye|bookworm|trixie|forky|sid|testing|unstable|(?:old){0,2}stable)(?:-(?:updates|backports|security))?"
)
_TARGET_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)"
# apt prints the placeholder if the suite has not been fetched yet.
_ORIGINS = frozenset({"Debian", "Debian Backports", "$(ORIGIN)"})


class Suite:
    """One or more of the archive's suites that are used together."""

    def __init__(self, names: Sequence[str], state: Path) -> None:
        """Use suites.

        Args:
            names: the suites' names, such as `bookworm` and `bookworm-security`.
            state: a directory for apt's lists and lock files.
        """
        self.names = tuple(names)
        self._directory = state / "+".join(names)

    def update(self, *, refresh: bool = False) -> None:
        """Fetch the package index unless it was fetched within the last day.

        Raises:
            KalloctraceError: it cannot be fetched, or its signature is invalid.
        """
        stamp = self._directory / "updated"
        if not refresh and stamp.exists() and time.time() - stamp.stat().st_mtime < _DAY:
            return
        _LOG.info("fetching the package index of %s", " and ".join(self.names))
        for name in ("lists/partial", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True, exist_ok=True)
        sources = sources_list(self.names, mirrors(), keyrings())
        (self._directory / "sources.list").write_text(sources, encoding="utf-8")
        self._apt("apt-get", "update")
        stamp.touch()

    def packages(self) -> list[Package]:
        """Return the kernel packages in the suites' index."""
        return parse_index(self._apt("apt-cache", "dumpavail"))

    def download(self, packages: Iterable[Package], into: Path) -> list[Path]:
        """Download packages, which apt checks against the signed index, and return the files."""
        specs = [f"{package.name}={package.version}" for package in packages]
        _LOG.info("downloading %s", " ".join(specs))
        self._apt("apt-get", "download", *specs, cwd=into)
        return sorted(into.glob("*.deb"))

    def _apt(self, tool: str, *arguments: str, cwd: Path | None = None) -> str:
        settings = {
            "Dir::State": self._directory,
            "Dir::State::lists": self._directory / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self._directory / "cache",
            "Dir::Etc::sourcelist": self._directory / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": ARCHITECTURE,
            "APT::Architectures": ARCHITECTURE,
            # apt's sandbox user has no access to the user's cache.
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Acquire::http::Timeout": "60",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        done = subprocess.run(
            [tool, *options, "-q", *arguments],
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd=cwd,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
        if done.returncode != 0:
            raise _failure(self.names, done.stderr)
        return done.stdout


def mirrors() -> tuple[str, str]:
    """Return the URIs of the archive and of its security archive, from this machine's apt sources.

    `KALLOCTRACE_MIRROR`, the archive's URI, is for machines that do not run Debian. The default URI of the security
    archive is the archive's URI with `-security` appended.
    """
    archive, security = os.environ.get("KALLOCTRACE_MIRROR", ""), ""
    if not archive:
        archive, security = choose_mirrors(_index_targets())
    if not archive:
        raise KalloctraceError(
            "no Debian mirror is known",
            "this machine's apt sources contain no Debian suite",
            "set KALLOCTRACE_MIRROR to a mirror's URI (ending in /debian), or KALLOCTRACE_KERNEL_CACHE to a "
            "folder of kernel packages",
        )
    return archive, security or archive.rstrip("/") + "-security"


def _index_targets() -> str:
    command = ["apt-get", "indextargets", "--format", _TARGET_FORMAT, "Created-By: Packages"]
    return subprocess.run(command, check=False, capture_output=True, encoding="utf-8").stdout


def choose_mirrors(targets: str) -> tuple[str, str]:
    """Choose Debian's archive and security archive among apt's index targets; empty strings when absent."""
    archive, security = "", ""
    for line in targets.splitlines():
        uri, release, component, origin = line.split(" ", 3)
        # Other vendors use Debian's suite names too.
        if not _DEBIAN.fullmatch(release) or component != "main" or origin not in _ORIGINS:
            continue
        if release.endswith("-security"):
            security = security or uri
        else:
            archive = archive or uri
    return archive, security


def keyrings() -> list[Path]:
    """Return the keyrings of the archive's keys.

    Raises:
        KalloctraceError: none is installed; an index is never used unauthenticated.
    """
    found = [_KEYRINGS / name for name in _KEYRING_NAMES if (_KEYRINGS / name).exists()]
    if not found:
        raise KalloctraceError(
            "the package index cannot be authenticated",
            f"{_KEYRINGS / _KEYRING_NAMES[0]} is missing",
            "install the package debian-archive-keyring",
        )
    return found


def sources_list(suites: Iterable[str], uris: tuple[str, str], keys: Iterable[Path]) -> str:
    """Return a sources.list for suites."""
    signed_by = ",".join(str(key) for key in keys)
    lines = []
    for suite in suites:
        uri = uris[1] if suite.endswith("-security") else uris[0]
        options = f"arch={ARCHITECTURE} signed-by={signed_by}"
        if suite in _PAST_SUPPORT:
            options += " check-valid-until=no"
        lines.append(f"deb [{options}] {uri} {suite} main\n")
    return "".join(lines)


def _failure(suites: Sequence[str], messages: str) -> KalloctraceError:
    """Return the error for apt's messages. An expired key is an error too: no unsigned index is used."""
    lines = [line for line in messages.splitlines() if line.startswith(("E: ", "W: "))]
    relevant = [line for line in lines if re.search(r"EXPKEYSIG|NO_PUBKEY|Release file|Could not", line)]
    why = (relevant or lines or ["apt printed no message"])[0][3:].strip()
    return KalloctraceError(
        f"apt cannot use {' and '.join(suites)}",
        why,
        "check the network and the mirror, or set KALLOCTRACE_KERNEL_CACHE to a folder of kernel packages",
    )
