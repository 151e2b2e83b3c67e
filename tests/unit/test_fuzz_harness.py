# SPDX-License-Identifier: MIT
"""The harness of `make fuzz` itself."""

import shutil
from importlib import import_module

import pytest

from tests.fuzz import run, surface


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> surface.Surface:
    """Return a surface that kills its process; it is not among those of `make fuzz`."""
    monkeypatch.setattr(surface, "SURFACES", {})
    import_module("tests.fuzz.targets._deadly")
    shutil.rmtree(surface.FOUND / "deadly", ignore_errors=True)
    return surface.SURFACES["deadly"]


def test_an_input_that_kills_the_process_is_kept(deadly: surface.Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where libFuzzer cannot: SIGKILL, which the kernel sends when memory is used up."""
    pytest.importorskip("atheris")
    monkeypatch.setattr(run, "_ATTEMPTS", 6)
    run.execute(deadly, 0, 20)
    kept = {(file.name.split("-")[0], file.read_bytes()[:1]) for file in run.found(deadly)}
    assert kept == {("crash", b"S"), ("killed", b"K")}
