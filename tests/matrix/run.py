# SPDX-License-Identifier: MIT
"""Compares the model with real kernels on more than a million requests each, and records the results.

`make matrix` runs it. It boots each kernel on each machine of `machines.py`. The stimulus module (or ordinary programs,
if a kernel's headers are no longer available) makes the requests while `kalloctrace record` runs. It then verifies
every trace, and writes the results into `proven.json` and the table of docs/kernels.md. A kernel or machine that cannot
be measured is a failed row with its reason; the others continue.
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
"""The default kernels; 7.2 is the only one from 6.15 to 7.2 for which the module can be built."""

REQUESTS = 1_000_000
KMOD = ROOT / "tests" / "kmod"
KEPT = ROOT / "build" / "matrix"
TIMEOUT = 400
ATTEMPTS = 2
_TAIL_LINES = 6

_log_lock = threading.Lock()
_begin = time.monotonic()


@dataclass(frozen=True)
class Measured:
    """The result of one machine: its row, and the features of its kernel."""

    row: MachineProof
    features: Features | None = None


def main() -> int:
    """Measure the kernels named on the command line and record the results; return 0 if all are proven."""
    options = _parser().parse_args()
    machines = [machine for machine in MACHINES if not options.machine or machine.name in options.machine]
    allocations = -(-options.requests // len(machines))
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            begun = [
                begin(name, machines[number % options.one_in :: options.one_in], allocations, pool.submit)
                for number, name in enumerate(options.kernels or KERNELS)
            ]
            proofs = [finish() for finish in begun]
        except KeyboardInterrupt:
            log("interrupted: no result is recorded; waiting for the running guests")
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if not options.dry_run:
        measured = {proof.kernel for proof in proofs}
        save([*(proof for proof in load() if proof.kernel not in measured), *proofs])
        write_section(ROOT / "docs/kernels.md", BEGIN, END, table(load()))
    print(table(proofs))
    for proof in proofs:
        for failure in proof.failures:
            print(f"FAILED {proof.kernel}: {failure}")
    log(f"{sum(proof.requests for proof in proofs):,} requests on {len(proofs)} kernels")
    return 0 if all(proof.proven for proof in proofs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make matrix", description=main.__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"default: {' '.join(KERNELS)}")
    parser.add_argument("--machine", action="append", choices=[machine.name for machine in MACHINES])
    parser.add_argument("--requests", type=int, default=REQUESTS, help="minimum per kernel (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="guests at once (default: %(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="measure without recording the results")
    parser.add_argument(
        "--one-in",
        type=int,
        default=1,
        metavar="N",
        help="each kernel on every Nth machine, the next kernel on others: all kernels and all machines in less time",
    )
    return parser


def log(text: str) -> None:
    """Print a line with the elapsed time."""
    with _log_lock:
        print(f"[{time.monotonic() - _begin:6.0f} s] {text}", flush=True)


def begin(
    name: str, machines: Sequence[Machine], allocations: int, submit: Callable[..., Future[Measured]]
) -> Callable[[], Proof]:
    """Start measuring one kernel on each machine; return a function that waits for its proof."""
    proof = Proof(name, "", "", "", None, "module", ())
    module = None
    try:
        kernel = obtain(name)
        proof = replace(proof, release=kernel.release, version=kernel.version)
        try:
            headers(kernel)
            module = build_module(KMOD, kernel)
        except NoHeadersError as error:
            log(f"{name}: ordinary programs make the requests: {error.what}: {error.why}")
            proof = replace(proof, source="workload", note=error.what)
    except Exception as error:  # noqa: BLE001  (this row fails, the others continue)
        failed = replace(proof, failure=reason(error))
        log(f"{name}: {failed.failure}")
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
    """Return what failed and why, on one line; print the traceback of an unexpected error."""
    if isinstance(error, KalloctraceError):
        return f"{error.what}: {error.why}"
    traceback.print_exception(error)
    return f"{type(error).__name__}: {error}"


def measure(kernel: Kernel, machine: Machine, module: Path | None, allocations: int) -> Measured:
    """Boot a machine, record requests and verify them.

    If the guest fails, or the recording is incomplete, try again.
    """
    place = f"{kernel.name} {machine.name}"
    measured = Measured(MachineProof(machine.name, 0, 0, 0, 0, 0, "not measured"))
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        try:
            measured = _measure(kernel, machine, module, allocations)
        except Exception as error:  # noqa: BLE001  (likewise)
            measured = Measured(MachineProof(machine.name, 0, 0, 0, 0, 0, reason(error)))
            fix = f"; {error.fix}" if isinstance(error, KalloctraceError) else ""
            log(f"{place}: attempt {attempt} failed: {measured.row.failure}{fix}")
            continue
        row = measured.row
        log(
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
            # A guest in memory has only the files of this folder and of the checkout.
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
            last = " | ".join(result.stderr.decode(errors="replace").strip().splitlines()[-_TAIL_LINES:])
            raise KalloctraceError(
                f"the recording failed with exit code {result.returncode}", last, f"read {result.console}"
            )
        measured = judge(machine, job)
        if measured.row.mismatched or measured.row.unknown or measured.row.lost or measured.row.failure:
            kept = KEPT / f"{kernel.name}-{machine.name}"
            kept.mkdir(parents=True, exist_ok=True)
            for trace in job.traces:
                shutil.copy(trace, kept)
            log(f"{kernel.name} {machine.name}: run kalloctrace verify {kept.relative_to(ROOT)}/*")
    return measured


def judge(machine: Machine, job: Job) -> Measured:
    """Verify the traces, and check that requests met each condition."""
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
        failure = "a recording is truncated"
    elif total("allocations") < job.allocations:
        failure = f"only {total('allocations'):,} of {job.allocations:,} requests were recorded"
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
    """Return the JSON output of `kalloctrace verify`."""
    command = [sys.executable, "-m", "kalloctrace", "verify", "--json", str(trace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        verdict: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        last = (done.stderr.strip().splitlines() or ["it printed no message"])[0]
        raise KalloctraceError("a trace cannot be verified", last, "run make matrix again") from error
    return verdict


if __name__ == "__main__":
    sys.exit(main())
