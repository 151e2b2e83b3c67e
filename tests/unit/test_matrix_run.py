# SPDX-License-Identifier: MIT
"""The matrix as a whole: failures have names, the other measurements continue, and results are recorded."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.proven import MachineProof, Proof, load
from kalloctrace.lab.kernels import Kernel
from tests.kmod.build import NoHeadersError
from tests.matrix import proofs as proof_file
from tests.matrix import run
from tests.matrix.guest import Job
from tests.matrix.machines import MACHINES, Machine
from tests.matrix.proofs import BEGIN, END, table
from tests.section import write_section

ROOT = Path(__file__).parents[2]

GONE = KalloctraceError("no kernel 7.0 is available", "the suites have no such package", "name another")
UNBUILT = KalloctraceError("the module could not be built", "requests.c:1: error: no", "see above")
OFFLINE = KalloctraceError("apt cannot use trixie", "Could not resolve the host", "check the network")
HUNG = KalloctraceError("the guest did not end within 300 s", "the command was still running", "allow more time")


@dataclass
class Lab:
    """A fake lab whose parts return a value or raise a given error.

    Attributes:
        failing: errors by the name of the part, or of the kernel and the part.
        lacking: how many requests a machine lacks, by its name.
        booted: the kernels and machines that were booted.
    """

    failing: dict[str, Exception] = field(default_factory=dict)
    lacking: dict[str, int] = field(default_factory=dict)
    booted: list[str] = field(default_factory=list)

    def _answer(self, kernel: str, part: str) -> None:
        error = self.failing.get(f"{kernel} {part}")
        if error is not None:
            raise error

    def obtain(self, name: str) -> Kernel:
        """Replace the lab's function."""
        self._answer(name, "kernel")
        return Kernel(name, Path("vmlinuz"), f"{name}.1-amd64", f"{name}.1-1")

    def headers(self, kernel: Kernel) -> Path:
        """Replace the build's function."""
        self._answer(kernel.name, "headers")
        return Path("headers")

    def build_module(self, source: Path, kernel: Kernel) -> Path:
        """Replace the build's function."""
        del source
        self._answer(kernel.name, "module")
        return Path("stimulus.ko")

    def measure(self, kernel: Kernel, machine: Machine, module: Path | None, allocations: int) -> run.Measured:
        """Replace a guest and its verdict."""
        del module
        self.booted.append(f"{kernel.name} {machine.name}")
        self._answer(kernel.name, machine.name)
        made = allocations - self.lacking.get(machine.name, 0)
        failure = "too few" if made < allocations else ""
        return run.Measured(MachineProof(machine.name, made, 7, 0, 0, 0, failure), builtin_features(kernel.name))


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Replace the real lab."""
    made = Lab()
    for name in ("obtain", "headers", "build_module"):
        monkeypatch.setattr(run, name, getattr(made, name))
    monkeypatch.setattr(run, "_measure", made.measure)
    return made


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Replace the checkout's `proven.json` and the page."""
    matrix, page = tmp_path / "proven.json", tmp_path / "kernels.md"
    matrix.write_text("[]", encoding="utf-8")
    page.write_text(f"above\n{BEGIN}\n{END}\nbelow\n", encoding="utf-8")

    def save(proofs: Sequence[Proof]) -> None:
        proof_file.save(proofs, matrix)

    def write(path: Path, *section: str) -> None:
        assert path == ROOT / "docs/kernels.md"
        write_section(page, *section)

    monkeypatch.setattr(run, "load", lambda: load(matrix))
    monkeypatch.setattr(run, "save", save)
    monkeypatch.setattr(run, "write_section", write)
    return matrix, page


Matrix = Callable[..., tuple[int, dict[str, Proof]]]
"""Runs the whole command; returns its exit code and the proofs it wrote, by kernel."""


@pytest.fixture
def matrix(lab: Lab, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Matrix:
    """Return a function that runs the whole command."""
    del lab

    def call(*arguments: str) -> tuple[int, dict[str, Proof]]:
        monkeypatch.setattr(sys, "argv", ["make matrix", *arguments])
        code = run.main()
        return code, {proof.kernel: proof for proof in load(files[0])}

    return call


def test_proven_kernels_are_recorded(matrix: Matrix, files: tuple[Path, Path], lab: Lab) -> None:
    """The file and the table of docs/kernels.md get every default kernel, measured on every machine."""
    code, rows = matrix("--jobs", "2")
    assert code == 0
    assert tuple(rows) == run.KERNELS
    assert {(proof.proven, proof.source) for proof in rows.values()} == {(True, "module")}
    assert all(proof.requests >= run.REQUESTS for proof in rows.values())
    assert {tuple(m.name for m in p.machines) for p in rows.values()} == {tuple(m.name for m in MACHINES)}
    assert f"{BEGIN}\n\n{table(load(files[0]))}\n\n{END}\nbelow" in files[1].read_text(encoding="utf-8")
    assert len(lab.booted) == len(run.KERNELS) * len(MACHINES)


def test_part_has_every_kernel_and_every_machine(matrix: Matrix, lab: Lab) -> None:
    """What `make matrix-part` measures in a sixth of the time; each pair has as many requests as otherwise."""
    code, _ = matrix("--jobs", "2", "--one-in", "6", "--dry-run")
    assert code == 0
    pairs = [place.split() for place in lab.booted]
    assert len(pairs) == len(run.KERNELS) * len(MACHINES) // 6
    assert {kernel for kernel, _ in pairs} == set(run.KERNELS)
    assert {machine for _, machine in pairs} == {machine.name for machine in MACHINES}


@pytest.mark.parametrize(
    ("part", "error", "said"),
    [
        ("kernel", GONE, "no kernel 7.0 is available: the suites have no such package"),
        ("kernel", OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        ("headers", OFFLINE, "apt cannot use trixie: Could not resolve the host"),
        ("module", UNBUILT, "the module could not be built: requests.c:1: error: no"),
    ],
)
def test_kernel_that_cannot_be_measured_fails_by_name(
    matrix: Matrix, lab: Lab, part: str, error: Exception, said: str
) -> None:
    """Without its packages, headers or module it fails; the others are measured."""
    lab.failing[f"7.0 {part}"] = error
    code, rows = matrix("6.12", "7.0", "7.3")
    assert code == 1
    assert {name: proof.proven for name, proof in rows.items()} == {"6.12": True, "7.0": False, "7.3": True}
    assert rows["7.0"].failures == (said,)
    assert not any(place.startswith("7.0") for place in lab.booted)


def test_ordinary_programs_replace_a_missing_module(matrix: Matrix, lab: Lab) -> None:
    """The row has a note about it."""
    lab.failing["6.16 headers"] = NoHeadersError("the headers of 6.16 cannot be had", "they are gone", "take another")
    code, rows = matrix("6.16", "7.3")
    assert code == 0
    assert (rows["6.16"].source, rows["6.16"].note) == ("workload", "the headers of 6.16 cannot be had")
    assert (rows["7.3"].source, rows["7.3"].note) == ("module", "")


@pytest.mark.parametrize("error", [HUNG, RuntimeError("nobody thought of it")])
def test_guest_that_hangs_fails_by_name(
    matrix: Matrix, lab: Lab, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    """It fails after all attempts, and other machines and kernels continue."""
    lab.failing["6.1 four-nodes"] = error
    code, rows = matrix("6.1", "6.12")
    assert code == 1
    assert {name: proof.proven for name, proof in rows.items()} == {"6.1": False, "6.12": True}
    (failure,) = rows["6.1"].failures
    assert failure.startswith("four-nodes: ")
    assert str(error.args[0]) in failure
    assert f"FAILED 6.1: {failure}" in capsys.readouterr().out
    assert lab.booted.count("6.1 four-nodes") == run.ATTEMPTS
    assert sum(machine.requests > 0 for machine in rows["6.1"].machines) == len(MACHINES) - 1


def test_too_few_requests_are_a_failure(matrix: Matrix, lab: Lab) -> None:
    """A machine that records too few requests proves nothing."""
    lab.lacking["two-nodes"] = 1
    code, rows = matrix("7.2")
    assert code == 1
    assert rows["7.2"].failures == ("two-nodes: too few",)


def test_interrupt_boots_no_more_guests(
    matrix: Matrix, lab: Lab, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted matrix records nothing."""

    def obtain(name: str) -> Kernel:
        if name == "6.12":
            raise KeyboardInterrupt
        return lab.obtain(name)

    def measure(kernel: Kernel, machine: Machine, module: Path | None, allocations: int) -> run.Measured:
        time.sleep(0.2)
        return lab.measure(kernel, machine, module, allocations)

    monkeypatch.setattr(run, "obtain", obtain)
    monkeypatch.setattr(run, "_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        matrix("5.10", "6.1", "6.12", "--jobs", "1")
    assert len(lab.booted) <= 2
    assert load(files[0]) == ()


def test_other_kernels_rows_are_kept(matrix: Matrix, files: tuple[Path, Path], lab: Lab) -> None:
    """A partial matrix replaces its own rows only; a dry run replaces none."""
    assert matrix("5.10", "6.1")[0] == 0
    before = files[0].read_text(encoding="utf-8")
    lab.failing["6.1 kernel"] = GONE
    assert matrix("6.1", "--dry-run")[0] == 1
    assert files[0].read_text(encoding="utf-8") == before
    assert matrix("6.1")[0] == 1
    rows = {row["kernel"]: row for row in json.loads(files[0].read_text(encoding="utf-8"))}
    assert rows["5.10"]["failure"] == ""
    assert rows["6.1"]["failure"]
    assert rows["6.1"]["machines"] == []


VERDICT: dict[str, Any] = {
    "allocations": 600,
    "distinct": 5,
    "mismatched": 0,
    "unknown": 0,
    "lost": 0,
    "missed": 0,
    "truncated": False,
    "zonelists": {"nodes": 2, "mismatched": 0},
}


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"mismatched": 1}, "mismatched"),
        ({"unknown": 1}, "unknown"),
        ({"lost": 1}, "lost"),
        ({"missed": 1}, "lost"),
        ({"zonelists": {"nodes": 2, "mismatched": 1}}, "mismatched"),
        ({"truncated": True}, "failure"),
        ({"allocations": 300}, "failure"),
    ],
)
def test_each_defect_in_a_verdict_counts(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], wrong: str) -> None:
    """Whatever `verify` reports keeps the row from being proven."""
    trace = ROOT / "fixtures/5.10/stimulus-cpusets.arrows"
    monkeypatch.setattr(run, "verify", lambda _: VERDICT | change)
    row = run.judge(MACHINES[1], Job((), Path(), (trace, trace), 1000, ("cpusets_enabled",))).row
    assert row.requests == 2 * (VERDICT | change)["allocations"]
    found = [name for name in ("mismatched", "unknown", "lost", "failure") if getattr(row, name)]
    assert found == ([wrong] if wrong else [])
    proof = Proof("5.10", "", "", "", None, "module", (row,))
    assert proof.proven is not bool(wrong)


def test_unmet_conditions_are_named() -> None:
    """Without cpusets or vm.defrag_mode in force, requests that test them prove nothing."""
    trace = ROOT / "fixtures/7.3/stimulus.arrows"
    measured = run.judge(MACHINES[1], Job((), Path(), (trace,), 1, ("cpusets_enabled", "defrag_mode")))
    assert measured.row.failure == "no request met cpusets_enabled and defrag_mode"
