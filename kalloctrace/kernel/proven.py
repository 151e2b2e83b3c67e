# SPDX-License-Identifier: MIT
"""The kernels on which the model was proven, as `make matrix` measured them: reads `proven.json`.

`tests/matrix/proofs.py` writes the file and the table of docs/kernels.md.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.releases import parse_release
from kalloctrace.kernel.features import Features

PROVEN = Path(__file__).with_name("proven.json")

Source = Literal["module", "workload"]


@dataclass(frozen=True)
class MachineProof:
    """What one kernel did on one machine.

    Attributes:
        name: the machine's name in the matrix, such as "two-nodes".
        requests: captured allocations.
        distinct: distinct requests among them.
        mismatched: allocations that differ from the model's prediction.
        unknown: allocations that could not be judged.
        lost: calls that were captured or skipped without becoming a row.
        failure: why the measurement failed; empty if it did not.
    """

    name: str
    requests: int
    distinct: int
    mismatched: int
    unknown: int
    lost: int
    failure: str = ""


@dataclass(frozen=True)
class Proof:
    """The measurements of one kernel.

    Attributes:
        kernel: its name in the lab, such as "6.12" or "6.12-rt".
        release: `uname -r`; empty if the kernel was not available.
        version: the package's version, as in `uname -v`.
        variant: the releases that prepare allocations in the same way, such as "5.9 to 5.12".
        features: the kernel's rules; None if they could not be read.
        source: what made the requests: the stimulus module, or ordinary programs.
        machines: one entry per machine.
        failure: why the kernel was not measured, such as a package that is no longer available.
        note: a remark for the table.
    """

    kernel: str
    release: str
    version: str
    variant: str
    features: Features | None
    source: Source
    machines: tuple[MachineProof, ...]
    failure: str = ""
    note: str = ""

    @property
    def requests(self) -> int:
        """Allocations on all machines."""
        return sum(machine.requests for machine in self.machines)

    @property
    def distinct(self) -> int:
        """Distinct requests, summed over the machines: the same one on two machines counts twice."""
        return sum(machine.distinct for machine in self.machines)

    @property
    def mismatched(self) -> int:
        """Mismatched allocations on all machines."""
        return sum(machine.mismatched for machine in self.machines)

    @property
    def unknown(self) -> int:
        """Allocations on all machines that could not be judged."""
        return sum(machine.unknown for machine in self.machines)

    @property
    def lost(self) -> int:
        """Lost calls on all machines."""
        return sum(machine.lost for machine in self.machines)

    @property
    def failures(self) -> tuple[str, ...]:
        """Why parts of the measurement failed."""
        named = (f"{machine.name}: {machine.failure}" for machine in self.machines if machine.failure)
        return (*((self.failure,) if self.failure else ()), *named)

    @property
    def proven(self) -> bool:
        """Whether every machine was measured and every allocation matched its prediction."""
        return not self.failures and self.requests > 0 and self.mismatched == self.unknown == self.lost == 0

    @property
    def shortcoming(self) -> str:
        """What keeps the kernel from being proven: failures, and counts that are not zero."""
        counts = (("mismatched", self.mismatched), ("unknown", self.unknown), ("lost", self.lost))
        wrong = [f"{count:,} {name}" for name, count in counts if count]
        return "; ".join([*self.failures, *wrong]) or "no request was made"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the proof from an element of `proven.json`."""
        values = {field.name: data[field.name] for field in fields(cls)}
        features = data["features"]
        values["features"] = None if features is None else Features.from_json(features)
        values["machines"] = tuple(MachineProof(**machine) for machine in data["machines"])
        return cls(**values)


@dataclass(frozen=True)
class ProofStatus:
    """How far the proofs cover one kernel.

    Attributes:
        measured: the measurements of this release, proven or not.
        nearest: the proven kernel with the fewest different features; None if no kernel is proven.
        differing: the names of the features that differ from it.
    """

    measured: Proof | None = None
    nearest: Proof | None = None
    differing: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether the kernel has the rules of a proven one."""
        return self.nearest is not None and not self.differing

    @property
    def refuted(self) -> bool:
        """Whether this release was measured and not proven."""
        return self.measured is not None and not self.measured.proven

    @property
    def covered(self) -> bool:
        """Whether the kernel's rules are proven and no measurement of this release refutes them."""
        return self.same and not self.refuted

    def to_json(self) -> dict[str, Any]:
        """Return the status as JSON values."""
        return {
            "kernel": self.nearest and self.nearest.kernel,
            "release": self.nearest and self.nearest.release,
            "same": self.same,
            "differing": list(self.differing),
            "measured": self.measured is not None,
            "refuted": self.refuted,
        }

    def __str__(self) -> str:
        """Return the status as a sentence."""
        if self.measured is not None and self.measured.proven:
            return f"the rules for this kernel were proven on this very release, {_figures(self.measured)}"
        texts = []
        if self.measured is not None:
            texts.append(f"this very release was measured and not proven: {self.measured.shortcoming}")
        if self.nearest is None:
            texts.append("no kernel's rules are proven yet")
        elif self.same:
            texts.append(f"the rules for this kernel were proven on {_figures(self.nearest)}")
        else:
            differing = ", ".join(self.differing)
            texts.append(f"the nearest proven kernel differs in {differing}: {_figures(self.nearest)}")
        return "; ".join(texts)


def load(path: Path = PROVEN) -> tuple[Proof, ...]:
    """Read the proofs.

    Raises:
        KalloctraceError: the file cannot be read, or is not a list of proofs.
    """
    try:
        return tuple(Proof.from_json(data) for data in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not a list of proofs: {error!r}"
        raise KalloctraceError(
            f"cannot read {path}", why or str(error), "reinstall the program, or run `make matrix` in a checkout"
        ) from error


def differing_features(one: Features, other: Features) -> tuple[str, ...]:
    """Return the names of the features that differ."""
    return tuple(field.name for field in fields(Features) if getattr(one, field.name) != getattr(other, field.name))


def proof_status(features: Features, release: str, version: str, proofs: Iterable[Proof]) -> ProofStatus:
    """Return how far the proofs cover a kernel.

    Args:
        features: the kernel's rules.
        release: `uname -r`.
        version: `uname -v`, which contains the package's version on Debian.
        proofs: the measurements.
    """
    rows = tuple(proofs)
    measured = next((p for p in rows if p.release == release and p.version in version.split()), None)
    candidates = [
        (
            len(differing_features(features, proof.features)),
            abs(release_index(proof.kernel) - release_index(release)),
            proof,
        )
        for proof in rows
        if proof.proven and proof.features is not None
    ]
    if not candidates:
        return ProofStatus(measured, None)
    nearest = min(candidates, key=lambda candidate: candidate[:2])[2]
    return ProofStatus(measured, nearest, differing_features(features, nearest.features or features))


def release_index(kernel: str) -> int:
    """Return the number of releases between 0.0 and a kernel; 0 for a name without a release."""
    parsed = parse_release(kernel)
    return 0 if parsed is None else parsed.ordinal


def _figures(proof: Proof) -> str:
    return f"{proof.kernel} ({proof.version}): {proof.requests:,} requests, {proof.mismatched:,} mismatches"
