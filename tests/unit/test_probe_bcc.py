# SPDX-License-Identifier: MIT
"""Finds the distribution's bcc, and distinguishes it from the unrelated package of the same name."""

import sys
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach.bcc_import import find_bcc, import_bcc


def package(folder: Path, *, compiler: bool) -> Path:
    """Make a package called bcc in a folder."""
    (folder / "bcc").mkdir(parents=True)
    (folder / "bcc" / "__init__.py").write_text("__version__ = '0.26.0'\n")
    if compiler:
        (folder / "bcc" / "libbcc.py").touch()
    return folder


@pytest.fixture
def empty_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave Python's path without any bcc."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nothing")])
    monkeypatch.delitem(sys.modules, "bcc", raising=False)


@pytest.mark.usefixtures("empty_path")
def test_distributions_package_is_found_outside_pythons_path(tmp_path: Path) -> None:
    """A virtual environment does not include dist-packages; the loader searches it itself."""
    folder = package(tmp_path / "dist-packages", compiler=True)
    assert find_bcc((str(folder),)).origin == str(folder / "bcc" / "__init__.py")


@pytest.mark.usefixtures("empty_path")
def test_absent_bcc_names_the_debian_package() -> None:
    """Without bcc the error names the package that contains it."""
    with pytest.raises(KalloctraceError) as caught:
        find_bcc(("/nowhere",))
    assert "apt install python3-bpfcc" in caught.value.fix


@pytest.mark.usefixtures("empty_path")
def test_impostor_on_pythons_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the package from PyPI and the fix, even if the right one is installed too."""
    monkeypatch.setattr(sys, "path", [str(package(tmp_path / "site-packages", compiler=False))])
    right = package(tmp_path / "dist-packages", compiler=True)
    with pytest.raises(KalloctraceError) as caught:
        find_bcc((str(right),))
    assert "unrelated" in caught.value.why
    assert "pip uninstall bcc" in caught.value.fix


@pytest.mark.usefixtures("empty_path")
def test_broken_bcc_is_not_left_half_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bcc whose library is missing fails at each import, with the fix."""
    folder = package(tmp_path / "dist-packages", compiler=True)
    (folder / "bcc" / "__init__.py").write_text("raise OSError('libbcc.so.0: cannot open shared object file')\n")
    monkeypatch.setattr(sys, "path", [str(folder)])
    for _ in range(2):
        with pytest.raises(KalloctraceError, match="cannot use bcc"):
            import_bcc()
    assert "bcc" not in sys.modules
