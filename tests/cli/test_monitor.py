# SPDX-License-Identifier: MIT
"""`kalloctrace monitor --check-config`; tests/live records with it."""

from pathlib import Path

import pytest

from kalloctrace.__main__ import main


def checked(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Return the exit code and what was printed."""
    code = main(["monitor", "--check-config", *words])
    out, err = capfd.readouterr()
    return code, out, err


def test_valid_configuration(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is named; an empty file has the defaults."""
    path = tmp_path / "monitor.toml"
    path.write_text("")
    assert checked(capfd, "--config", str(path)) == (0, f"{path} is valid\n", "")


def test_invalid_configuration(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Three lines name the line, the reason and what is accepted."""
    path = tmp_path / "monitor.toml"
    path.write_text('[segments]\n\nage = "10 minutes"\n')
    code, out, err = checked(capfd, "--config", str(path))
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"error: cannot use {path}, line 3",
        "  why: age: it is not a number with a unit",
        '  fix: write a number and one of s, min, h, d, such as "10 min"',
    ]
    code, out, err = checked(capfd, "--config", str(tmp_path / "none.toml"))
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == ["  why: No such file or directory", "  fix: name an existing file with --config"]
