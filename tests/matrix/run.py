# SPDX-License-Identifier: MIT
"""Holds the model against real kernels under more than a million requests each, and writes down what came of it.

`make matrix` runs it. It boots each kernel on each machine of `machines.py`, has the stimulus module (or, where a
kernel's headers are gone, ordinary programs) make the requests while `kalloctrace record` runs, verifies every trace,
and writes the result into the support matrix and the README's table. A kernel or machine that cannot be measured is
a failed row with its reason; the others go on.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.proven import MachineProof, Proof, load
from kalloctrace.lab.kernels import Kernel, obtain
from kalloctrace.lab.run import run_in_guest
from kalloctrace.trace.reader import TraceReader
from tests.kmod.build import NoHeadersError, build_module, headers
from tests.matrix.guest import Guest, Job
from tests.matrix.machines import MACHINES, Machine
from tests.matrix.proofs import BEGIN, END, save, table, variant_of
from tests.section import write_section

ROOT = Path(__file__).resolve().parents[2]

KERNELS = ("5.10", "6.1", "6.12", "6.16", "6.19", "7.0", "7.2", "7.3")
"""Those of the matrix by default; 7.2 as the one kernel from 6.15 on before 7.3 that a module can be built for."""

REQUESTS = 1_000_000
KMOD = ROOT / "tests" / "kmod"
KEPT = ROOT / "build" / "matrix"
TIMEOUT = 400
ATTEMPTS = 2
_TAIL_LINES = 6

_say_lock = threading.Lock()
_begin = time.monotonic()


@dataclass(frozen=True)
class Measured:
    """What came of one machine: its row, and the rules that its kernel showed."""

    row: MachineProof
    features: Features | None = None


def main() -> int:
    """Measure the kernels named on the command line, write the result down, and say whether all is proven."""
    options = _parser().parse_args()
    machines = [machine for machine in MACHINES if not options.machine or machine.name in options.machine]
    allocations = -(-options.requests // len(machines))
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            begun = [begin(name, machines, allocations, pool.submit) for name in options.kernels or KERNELS]
            proofs = [finish() for finish in begun]
        except KeyboardInterrupt:
            say("interrupted: nothing is written down; waiting for the guests that are running")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not options.dry_run:
        measured = {proof.kernel for proof in proofs}
        save([*(proof for proof in load() if proof.kernel not in measured), *proofs])
        write_section(ROOT / "README.md", BEGIN, END, table(load()))
    print(table(proofs))
    for proof in proofs:
        for failure in proof.failures:
            print(f"FAILED {proof.kernel}: {failure}")
    say(f"{sum(proof.requests for proof in proofs):,} requests on {len(proofs)} kernels")
    return 0 if all(proof.proven for proof in proofs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make matrix", description=main.__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"default: {' '.join(KERNELS)}")
    parser.add_argument("--machine", action="append", choices=[machine.name for machine in MACHINES])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="a kernel, at least (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="guests at once (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="measure, and write nothing down")
    return parser


def say(text: str) -> None:
    """Print a line with the time since the beginning."""
    with _say_lock:
        print(f"[{time.monotonic() - _begin:6.0f} s] {text}", flush=True)


def begin(
    name: str, machines: Sequence[Machine], allocations: int, submit: Callable[..., Future[Measured]]
) -> Callable[[], Proof]:
    """Start the measurement of one kernel on each machine; return what waits for its proof."""
    proof = Proof(name, "", "", "", None, "module", ())
    module = None
    try:
        kernel = obtain(name)
        proof = replace(proof, release=kernel.release, version=kernel.version)
        try:
            headers(kernel)
            module = build_module(KMOD, kernel)
        except NoHeadersError as error:
            say(f"{name}: ordinary programs make the requests: {error.what}: {error.why}")
            proof = replace(proof, source="workload", note=error.what)
    except Exception as error:  # noqa: BLE001  (whatever it is, this row fails by name and the others go on)
        failed = replace(proof, failure=reason(error))
        say(f"{name}: {failed.failure}")
        return lambda: failed
    waiting = [submit(measure, kernel, machine, module, allocations) for machine in machines]

    def finish() -> Proof:
        rows = [future.result() for future in waiting]
        features = next((row.features for row in rows if row.features is not None), None)
        return replace(
            proof,
            machines=tuple(row.row for row in rows),
            features=features,
            variant=variant_of(features) if features else "",
        )

    return finish


def reason(error: Exception) -> str:
    """Return what failed and why, on one line; of an error that nobody expected the traceback is printed too."""
    if isinstance(error, KalloctraceError):
        return f"{error.what}: {error.why}"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def measure(kernel: Kernel, machine: Machine, module: Path | None, allocations: int) -> Measured:
    """Boot a machine, record the requests on it and verify them.

    A guest that fails is booted again, and so is one whose recording says itself that it is not complete.
    """
    place = f"{kernel.name} {machine.name}"
    measured = Measured(MachineProof(machine.name, 0, 0, 0, 0, 0, "it was not tried"))
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        try:
            measured = _measure(kernel, machine, module, allocations)
        except Exception as error:  # noqa: BLE001  (as above)
            measured = Measured(MachineProof(machine.name, 0, 0, 0, 0, 0, reason(error)))
            mend = f"; {error.fix}" if isinstance(error, KalloctraceError) else ""
            say(f"{place}: attempt {attempt} failed: {measured.row.failure}{mend}")
            continue
        row = measured.row
        say(
            f"{place}: {row.requests:,} requests, {row.distinct:,} distinct, mismatched {row.mismatched}, "
            f"unknown {row.unknown}, lost {row.lost}, in {time.monotonic() - began:.0f} s"
            f"{f': {row.failure}' if row.failure else ''}"
        )
        if not row.lost and not row.unknown:
            break
    return measured


def _measure(kernel: Kernel, machine: Machine, module: Path | None, allocations: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="kalloctrace-matrix-") as directory:
        folder = Path(directory)
        if module is not None:
            # A guest in memory has what is in this folder, and in the checkout.
            module = Path(shutil.copy(module, folder))
        name = kernel.name.partition("-")[0]
        job = Guest(name, builtin_features(name), machine).job(module, allocations, folder)
        result = run_in_guest(
            job.command,
            kernel=kernel,
            memory=machine.memory,
            numa=machine.numa,
            numa_distance=machine.numa_distance,
            append=("quiet", "loglevel=1", "init_on_alloc=0", *machine.append),
            writable=[folder],
            in_memory=True,
            timeout=TIMEOUT,
        )
        if result.returncode:
            said = " | ".join(result.stderr.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])
            raise KalloctraceError(
                f"the recording failed with exit code {result.returncode}", said, f"read {result.console}"
            )
        measured = judge(machine, job)
        if measured.row.mismatched or measured.row.unknown or measured.row.lost or measured.row.failure:
            kept = KEPT / f"{kernel.name}-{machine.name}"
            kept.mkdir(parents=True, exist_ok=True)
            for trace in job.traces:
                shutil.copy(trace, kept)
            say(f"{kernel.name} {machine.name}: see it with kalloctrace verify {kept.relative_to(ROOT)}/*")
    return measured


def judge(machine: Machine, job: Job) -> Measured:
    """Verify the traces, and see that the requests met what they were to meet."""
    verdicts = [verify(trace) for trace in job.traces]
    met = dict.fromkeys(job.conditions, 0)
    for path in job.traces:
        with TraceReader(path) as trace:
            features = trace.snapshot.features
            for batch in trace.batches():
                for condition in met:
                    met[condition] += pc.sum(pc.greater(batch[condition].cast("int64"), 0)).as_py() or 0

    def total(*names: str) -> int:
        return sum(verdict[name] for verdict in verdicts for name in names)

    zonelists = sum(verdict["zonelists"].get("mismatched", 0) for verdict in verdicts)
    unmet = [condition for condition, rows in met.items() if not rows]
    failure = f"no request met {' and '.join(unmet)}" if unmet else ""
    if total("truncated"):
        failure = "a recording broke off"
    elif total("allocations") < job.allocations:
        failure = f"only {total('allocations'):,} of {job.allocations:,} requests were seen"
    row = MachineProof(
        machine.name,
        total("allocations"),
        total("distinct"),
        total("mismatched") + zonelists,
        total("unknown"),
        total("lost", "missed"),
        failure,
    )
    return Measured(row, features)


def verify(trace: Path) -> dict[str, Any]:
    """Return the verdict of the program itself."""
    command = [sys.executable, "-m", "kalloctrace", "verify", "--json", str(trace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
        raise KalloctraceError("a trace could not be verified", last, "run make matrix again") from error
    return verdict


if __name__ == "__main__":
    sys.exit(main())
