# SPDX-License-Identifier: MIT
"""The wheel and the sdist: built and installed as users do, and run outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from kalloctrace.explain.glossary import LANGUAGES, term_names

ROOT = Path(__file__).parents[2]
TRACE = ROOT / "fixtures/5.10/low-memory.arrows"
BIN = Path(sys.executable).parent
# Messages of an installer that cannot reach a registry.
_NO_NETWORK = ("connection", "dns error", "network", "failed to fetch", "no matching distribution", "timed out")
_FIND_BCC = """
from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach.bcc_import import find_bcc
try:
    print(find_bcc().origin)
except KalloctraceError as error:
    print(error.fix)
"""


def call(*words: str | Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program outside the checkout, and without the checkout in Python's path."""
    variables = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist, and the wheel from it, as `python -m build` does, without the network."""
    folder = tmp_path_factory.mktemp("built")
    done = call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the wheel."""
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a new virtual environment with this environment's dependencies; return its program.

    Installing the dependencies would require the network.
    """
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet"]
    done = call(*pip, wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    for path in borrowed.iterdir():
        # All packages of this environment except this one, which it has as a link to the checkout.
        if "kalloctrace" not in path.name and not (site / path.name).exists() and path.suffix != ".pth":
            (site / path.name).symlink_to(path)
    return folder / "bin/kalloctrace"


def test_the_wheel_is_complete(wheel: Path) -> None:
    """The wheel has each BPF source and header, the licences and each page of terms, and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    sources = {f"kalloctrace/_bpf/{path.relative_to(ROOT / 'bpf')}" for path in (ROOT / "bpf").rglob("*.[ch]")}
    pages = {f"kalloctrace/_docs/{language}/terms/{name}.md" for language in LANGUAGES for name in term_names(language)}
    assert len(sources) > 20
    assert sources | pages <= names
    assert any(name.endswith("licenses/bpf/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "fixtures/"))]


def test_the_wheel_has_no_test_tooling(wheel: Path) -> None:
    """The stimulus module's build and the writer of `proven.json` belong to the tests, and no module imports those."""
    with zipfile.ZipFile(wheel) as archive:
        modules = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    assert not [name for name in modules if name.endswith(("/kmod.py", "/build.py", "/toolchain.py", "/proofs.py"))]
    assert not [name for name, text in modules.items() if re.search(r"^\s*(?:from|import) tests\b", text, re.MULTILINE)]
    assert "write" not in re.findall(r"\w+", modules["kalloctrace/kernel/proven.py"])
    assert "make_command" not in "".join(modules.values())


def test_the_sdist_can_be_tested(built: Path) -> None:
    """The sdist has the tests, the fixtures, the documentation and the setup script."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = (
        "Makefile",
        "tests/setup",
        "docs/conf.py",
        "docs/en/index.md",
        "fixtures/5.10/low-memory.arrows",
        "bpf/LICENSE",
    )
    assert set(needed) <= names


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--version"], "kalloctrace, version"),
        (["decode", "--kernel", "5.10", "0xcc0"], "GFP_KERNEL"),
        (["explain", "--kernel", "7.3", "--gfp", "GFP_ATOMIC", "--order", "1"], "0xb01 ALLOC_WMARK_LOW"),
        (["explain", "--term", "ALLOC_CPUSET", "--lang", "zh-cn"], "检查每个内存区"),
        (["verify", "--strict", str(TRACE)], "mismatched 0  unknown 0"),
        (["report", "--top", "3", str(TRACE)], "alloc_flags of the first attempt"),
        (["man", "verify"], ".TH"),
        (["completion", "bash"], "_kalloctrace_completion"),
    ],
)
def test_it_runs_outside_the_checkout(program: Path, tmp_path: Path, words: list[str], part: str) -> None:
    """The installed program gives the expected results."""
    done = call(program, *words, folder=tmp_path, PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert part in done.stdout


def test_it_finds_its_own_files(program: Path, tmp_path: Path) -> None:
    """The BPF sources are those in the installed package."""
    script = "from kalloctrace.probe.layout import bpf_folder as f; print(f(), len(list(f().rglob('*.[ch]'))))"
    done = call(program.parent / "python", "-c", script, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    where, count = done.stdout.split()
    assert Path(where).is_relative_to(program.parents[1])
    assert int(count) == len(list((ROOT / "bpf").rglob("*.[ch]")))


def test_it_finds_the_distributions_bcc(program: Path, tmp_path: Path) -> None:
    """In a virtual environment without system packages it finds bcc, or prints the command to install it."""
    done = call(program.parent / "python", "-c", _FIND_BCC, folder=tmp_path)
    there = Path("/usr/lib/python3/dist-packages/bcc/__init__.py")
    assert done.stdout.strip() == (
        str(there) if there.exists() else "install the distribution's: apt install python3-bpfcc"
    )


def _or_skip(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode and any(word in done.stderr.lower() for word in _NO_NETWORK):
        pytest.skip(f"no registry can be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tool", ["pipx", "uv"])
def test_installers(tool: str, wheel: Path, tmp_path: Path) -> None:
    """`pipx install` and `uv tool install` install a program that runs and finds the distribution's bcc."""
    tools, bins = tmp_path / "tools", tmp_path / "bin"
    python = shutil.which("python3") or sys.executable
    words: list[str | Path]
    if tool == "pipx":
        words = [BIN / "pipx", "install", "--python", python, wheel]
        variables = {"PIPX_HOME": str(tools), "PIPX_BIN_DIR": str(bins), "PIPX_MAN_DIR": str(tmp_path / "man")}
    else:
        words = [BIN / "uv", "tool", "install", "--no-python-downloads", "--python", python, wheel]
        variables = {"UV_TOOL_DIR": str(tools), "UV_TOOL_BIN_DIR": str(bins)}
    _or_skip(call(*words, folder=tmp_path, **variables))
    done = call(bins / "kalloctrace", "decode", "--kernel", "5.10", "0xcc0", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "GFP_KERNEL" in done.stdout
    (environment,) = {path.parents[1] for path in tools.rglob("bin/python") if (path.parent / "kalloctrace").exists()}
    found = call(environment / "bin/python", "-c", _FIND_BCC, folder=tmp_path)
    assert "bcc" in found.stdout


def test_uv_builds_the_same_files(tmp_path: Path, built: Path) -> None:
    """`uv build` builds a wheel and an sdist with the same names."""
    done = call(
        BIN / "uv", "build", "--no-build-isolation", "--python", sys.executable, "-o", tmp_path, ROOT, folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.glob("*.*") if path.name[0] != "."} == {
        path.name for path in built.iterdir()
    }
