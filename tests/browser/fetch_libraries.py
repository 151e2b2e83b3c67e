# SPDX-License-Identifier: MIT
"""Fetches the libraries of the report's page from npm again: exactly those in libraries.json.

For a newer version, enter it there, run this, and copy the hashes that it prints.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "kalloctrace/report/page/vendor"


def main() -> int:
    """Replace the files, and return 1 if the hash of one differs from the list."""
    wrong = 0
    for library in json.loads((VENDOR / "libraries.json").read_text()):
        with tempfile.TemporaryDirectory() as folder:
            package = f"{library['package']}@{library['version']}"
            packed = subprocess.run(
                ["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True
            )
            with tarfile.open(Path(folder, packed.stdout.split()[-1])) as archive:
                archive.extractall(folder, filter="data")
            for name, file in library["files"].items():
                path = Path(folder, "package", file["from"])
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                if digest == file["sha256"]:
                    shutil.copyfile(path, VENDOR / name)
                else:
                    wrong += 1
                    sys.stderr.write(f"{name} of {package} has the hash {digest}\n")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
