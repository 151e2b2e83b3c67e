# SPDX-License-Identifier: MIT
"""What a kernel image and the files around it show about booting it."""

import struct
from pathlib import Path

_SETUP = 0x200
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_VERSION_AT = 0x20E
_BUILT = Path("arch/x86/boot/bzImage")


def release_of(image: Path) -> str:
    """Return a kernel's `uname -r`, or an empty string if the file is not an x86 kernel image.

    Documentation/arch/x86/boot.rst in the kernel: `kernel_version` of the setup header points to the text.
    """
    with image.open("rb") as file:
        head = file.read(1 << 16)
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return ""
    (start,) = struct.unpack_from("<H", head, _VERSION_AT)
    text = head[_SETUP + start :].partition(b"\0")[0] if start else b""
    return text.decode("ascii", "replace").partition(" ")[0]


def has_9p(image: Path) -> bool:
    """Return whether a kernel has 9p to mount the host's files, by its configuration or its list of modules."""
    if image.match(str(_BUILT)) and (config := image.parents[3] / ".config").is_file():
        return "\nCONFIG_9P_FS=" in config.read_text(encoding="utf-8")
    modules = _modules_of(image)
    return modules is not None and any(_lists_9p(modules / name) for name in ("modules.dep", "modules.builtin"))


def _modules_of(image: Path) -> Path | None:
    """Return the directory of a kernel's modules: in the nearest tree that has modules, as virtme does."""
    for tree in image.absolute().parents:
        for folder in (tree / "lib/modules", tree / "usr/lib/modules"):
            if folder.is_dir():
                release = release_of(image)
                return folder / release if release else None
    return None


def _lists_9p(file: Path) -> bool:
    if not file.is_file():
        return False
    lines = file.read_text(encoding="utf-8").splitlines()
    # In modules.dep a colon and the dependencies follow. A compressed module has a further suffix.
    return any(Path(line.partition(":")[0]).name.split(".")[0] == "9p" for line in lines)
