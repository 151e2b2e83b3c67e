# SPDX-License-Identifier: MIT
"""How much the program loads before it answers: modules are compared rather than times, which depend on the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRACE = Path(__file__).parents[2] / "fixtures" / "5.10" / "two-nodes.arrows"
_PRINT = "import json, sys; json.dump({n: getattr(m, '__file__', None) for n, m in sys.modules.items()}, sys.stderr)"
_CLICK = f"import click\n{_PRINT}"
# The rooms that decoding a number needs; see CONTRIBUTING.md.
_ROOMS = (
    "kalloctrace.cli",
    "kalloctrace.recorders",
    "kalloctrace.console",
    "kalloctrace.text",
    "kalloctrace.signals",
    "kalloctrace.flags",
    "kalloctrace.commands.decode",
    "kalloctrace.errors",
    "kalloctrace.version",
    "kalloctrace.__main__",
)


def _decode(words: list[str]) -> str:
    return f"from kalloctrace.__main__ import main\ncode = main({['decode', *words]})\n{_PRINT}\nraise SystemExit(code)"


def loaded(script: str) -> dict[str, str | None]:
    """Return the file of each module that a script has loaded."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules: dict[str, str | None] = json.loads(done.stderr)
    return modules


@pytest.mark.parametrize("words", [["0xcc0"], ["--kernel", "6.12", "GFP_KERNEL"], ["--kind", "alloc", "0x901"]])
def test_decoding_a_number_loads_little_beyond_click(words: list[str]) -> None:
    """It loads no other installed package (numpy, pyarrow, rich, bcc), and of this one only the flags."""
    base, modules = loaded(_CLICK), loaded(_decode(words))
    added = modules.keys() - base.keys()
    own = {name for name in added if name.startswith("kalloctrace.")}
    installed = {
        name for name in added - own if {"site-packages", "dist-packages"} & set(Path(modules[name] or "").parts)
    }
    packages = {name.partition(".")[0] for name in modules}
    assert "kalloctrace.commands.decode" in own
    assert not {name for name in own if not name.startswith((*_ROOMS, "kalloctrace.commands"))}
    needed = {"kalloctrace.commands.complete", "kalloctrace.commands.decode"}
    needed |= {*({"kalloctrace.commands.kernel_source"} if "--kernel" in words else ())}
    assert {name for name in own if name.startswith("kalloctrace.commands.")} == needed
    assert not installed
    assert not packages & {"numpy", "pyarrow", "rich", "bcc", "psutil"}


@pytest.mark.parametrize("words", [["verify"], ["report"], ["report", "--json"]], ids=" ".join)
def test_no_command_loads_pandas(words: list[str]) -> None:
    """It would be imported with the first array of pyarrow, which takes longer than the command."""
    command = [sys.executable, "-X", "importtime", "-m", "kalloctrace", *words, str(TRACE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pyarrow" in names
    assert not {name for name in names if name.startswith("pandas.")}
