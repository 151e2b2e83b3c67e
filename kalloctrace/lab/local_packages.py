# SPDX-License-Identifier: MIT
"""A folder of kernel packages and checksums (`KALLOCTRACE_KERNEL_CACHE`), for packages that no mirror has."""

import hashlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from kalloctrace.errors import KalloctraceError
from kalloctrace.lab.series import Package, parse_index

_SUMS = "SHA256SUMS"


class LocalPackages:
    """Kernel packages (`*.deb`) and `SHA256SUMS` in one directory, which is never written to."""

    def __init__(self, directory: Path) -> None:
        """Use a directory."""
        self._directory = directory
        self._files: dict[Package, Path] = {}

    @classmethod
    def from_environment(cls) -> "LocalPackages | None":
        """Return the folder that `KALLOCTRACE_KERNEL_CACHE` names; None if it is not set."""
        directory = os.environ.get("KALLOCTRACE_KERNEL_CACHE")
        return cls(Path(directory)) if directory else None

    def packages(self) -> list[Package]:
        """Return the packages in the folder."""
        for path in sorted(self._directory.glob("linux-*.deb")):
            command = ["dpkg-deb", "--field", str(path), "Package", "Version", "Depends"]
            fields = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
            self._files.update((package, path) for package in parse_index(fields))
        return list(self._files)

    def files(self, packages: Iterable[Package]) -> list[Path]:
        """Return the packages' files; check their checksums.

        Raises:
            KalloctraceError: a file has no checksum or another one.
        """
        sums = self._checksums()
        paths = [self._files[package] for package in packages]
        for path in paths:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if sums.get(path.name) != digest:
                raise KalloctraceError(
                    f"{path} cannot be trusted",
                    f"its checksum differs from {_SUMS}" if path.name in sums else f"{_SUMS} does not list it",
                    "copy the package and its checksum again, or unset KALLOCTRACE_KERNEL_CACHE",
                )
        return paths

    def _checksums(self) -> dict[str, str]:
        path = self._directory / _SUMS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        pairs = (line.split(maxsplit=1) for line in lines if line.strip())
        return {name.lstrip("*"): digest for digest, name in pairs}
