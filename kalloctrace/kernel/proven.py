# SPDX-License-Identifier: MIT
"""The kernels on which the model was proven, as `make matrix` measured it; one file that everything reads.

`python -m kalloctrace.kernel.proven` prints the table that the README shows.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.releases import parse_release
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features

PROVEN = Path(__file__).with_name("proven.json")

BEGIN = "<!-- the table of proven kernels: written by make matrix -->"
END = "<!-- end of the table of proven kernels -->"

_UNNAMED = "new"
_RELEASES_IN_A_MAJOR = 20
"""5.19 was followed by 6.0, 6.19 by 7.0."""

_VARIANTS = (
    ("5.8", "5.8"),
    ("5.9 to 5.12", "5.10"),
    ("5.13 to 5.14", "5.13"),
    ("5.15 to 6.8, 6.12 to 6.14", "6.1"),
    ("6.9 to 6.11", "6.9"),
    ("6.15 to 7.2", "6.18"),
    ("7.3", "7.3"),
)
"""Each way of preparing there is, named by the releases that prepare so, with one of them."""

_DECIDING = (
    "gfp_context_on_fast_path",
    "pf_memalloc_pin",
    "pf_memalloc_noreclaim",
    "pf_memalloc_nocma",
    "context_test",
    "entry_alloc_flags",
    "defrag_mode",
    "highatomic_on_fast_path",
)
"""The features that make a variant; names of entries and options of the build do not."""

Source = Literal["module", "workload"]


@dataclass(frozen=True)
class MachineProof:
    """What one kernel did on one machine.

    Attributes:
        name: the machine's, such as "two nodes".
        requests: allocations that were captured and judged.
        distinct: different ones among them.
        mismatched: those that the model predicted otherwise.
        unknown: those that could not be judged.
        lost: calls that were captured or skipped without becoming a row.
        failure: why nothing was measured here, empty where it was.
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
    """What was measured of one kernel.

    Attributes:
        kernel: its name in the lab, such as "6.12" or "6.12-rt".
        release: `uname -r`; empty where the kernel could not be had.
        version: the package's version, as it stands in `uname -v`.
        variant: what `variant_of` says to the features.
        features: the rules in force; None where they could not be read.
        source: whether a module made the requests, or ordinary programs.
        machines: what was measured on each machine.
        failure: why the kernel was not measured: not to be had, its module did not build, its guest hung.
        note: a remark for readers of the table.
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
        """Calls lost on all machines."""
        return sum(machine.lost for machine in self.machines)

    @property
    def failures(self) -> tuple[str, ...]:
        """Everything that kept something from being measured."""
        named = (f"{machine.name}: {machine.failure}" for machine in self.machines if machine.failure)
        return (*((self.failure,) if self.failure else ()), *named)

    @property
    def proven(self) -> bool:
        """Tell whether every machine was measured and every allocation was as predicted."""
        return not self.failures and self.requests > 0 and self.mismatched == self.unknown == self.lost == 0

    def to_json(self) -> dict[str, Any]:
        """Return the proof as JSON values."""
        return {
            **_values(self),
            "features": self.features and self.features.to_json(),
            "machines": [_values(machine) for machine in self.machines],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the proof from what `to_json` returned."""
        values = {field.name: data[field.name] for field in fields(cls)}
        features = data["features"]
        values["features"] = None if features is None else Features.from_json(features)
        values["machines"] = tuple(MachineProof(**machine) for machine in data["machines"])
        return cls(**values)


@dataclass(frozen=True)
class Standing:
    """How far the proofs cover one kernel.

    Attributes:
        measured: the proof of this very release, whether it succeeded or not.
        nearest: the proven kernel whose features differ least; None where no kernel is proven.
        differing: the features that differ from it, by name.
    """

    measured: Proof | None = None
    nearest: Proof | None = None
    differing: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Tell whether the kernel's rules are those of a proven one."""
        return self.nearest is not None and not self.differing

    @property
    def refuted(self) -> bool:
        """Tell whether this very release was measured, and not proven."""
        return self.measured is not None and not self.measured.proven

    @property
    def covered(self) -> bool:
        """Tell whether the kernel's rules are proven, and its own release, if it was measured, is no exception."""
        return self.same and not self.refuted

    def to_json(self) -> dict[str, Any]:
        """Return the standing as JSON values."""
        return {
            "kernel": self.nearest and self.nearest.kernel,
            "release": self.nearest and self.nearest.release,
            "same": self.same,
            "differing": list(self.differing),
            "measured": self.measured is not None,
            "refuted": self.refuted,
        }

    def __str__(self) -> str:
        """Return the standing as a sentence."""
        if self.measured is not None and self.measured.proven:
            return f"the rules for this kernel were proven on this very release, {_figures(self.measured)}"
        texts = []
        if self.measured is not None:
            texts.append(f"this very release was measured and not proven: {_shortcoming(self.measured)}")
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
        KalloctraceError: the file cannot be read, or holds something else.
    """
    try:
        return tuple(Proof.from_json(data) for data in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is no list of proofs: {error!r}"
        raise KalloctraceError(
            f"cannot read {path}", why or str(error), "install the program again, or run make matrix in a checkout"
        ) from error


def save(proofs: Iterable[Proof], path: Path = PROVEN) -> None:
    """Write the proofs, oldest kernel first, so that two measurements differ in what was measured only."""
    ordered = sorted(proofs, key=lambda proof: (_age(proof.kernel), proof.kernel))
    text = json.dumps([proof.to_json() for proof in ordered], indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def variant_of(features: Features) -> str:
    """Return the name of the way of preparing that the features make, "new" for one not known here."""
    for name, kernel in _VARIANTS:
        if all(getattr(features, field) == getattr(builtin_features(kernel), field) for field in _DECIDING):
            return name
    return _UNNAMED


def differing_features(one: Features, other: Features) -> tuple[str, ...]:
    """Return the names of the features that differ."""
    return tuple(field.name for field in fields(Features) if getattr(one, field.name) != getattr(other, field.name))


def standing(features: Features, release: str, version: str, proofs: Iterable[Proof]) -> Standing:
    """Say how far the proofs cover a kernel.

    Args:
        features: the rules in force on it.
        release: `uname -r`.
        version: `uname -v`, which holds the package's version on Debian.
        proofs: what was measured.
    """
    rows = tuple(proofs)
    measured = next((p for p in rows if p.release == release and p.version in version.split()), None)
    candidates = [
        (len(differing_features(features, proof.features)), abs(_age(proof.kernel) - _age(release)), proof)
        for proof in rows
        if proof.proven and proof.features is not None
    ]
    if not candidates:
        return Standing(measured, None)
    nearest = min(candidates, key=lambda candidate: candidate[:2])[2]
    return Standing(measured, nearest, differing_features(features, nearest.features or features))


def table(proofs: Iterable[Proof]) -> str:
    """Return the proofs as a Markdown table."""
    rows = [_row(proof) for proof in proofs]
    if not rows:
        return "Nothing has been measured yet; `make matrix` writes a table here."
    head = (
        "| kernel | package | prepares as | requests by | machines | requests | distinct | mismatched | unknown | lost "
        "| proven |"
    )
    rule = "|---|---|---|---|---|--:|--:|--:|--:|--:|---|"
    return "\n".join([head, rule, *rows])


def _values(record: Proof | MachineProof) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _age(kernel: str) -> int:
    """Return how many releases a kernel is from 0.0."""
    parsed = parse_release(kernel)
    return 0 if parsed is None else parsed.major * _RELEASES_IN_A_MAJOR + parsed.minor


def _figures(proof: Proof) -> str:
    return f"{proof.kernel} ({proof.version}): {proof.requests:,} requests, {proof.mismatched:,} mismatches"


def _shortcoming(proof: Proof) -> str:
    counts = (("mismatched", proof.mismatched), ("unknown", proof.unknown), ("lost", proof.lost))
    wrong = [f"{count:,} {name}" for name, count in counts if count]
    return "; ".join([*proof.failures, *wrong]) or "no request was made"


def _row(proof: Proof) -> str:
    by = {"module": "module", "workload": "programs"}[proof.source]
    numbers = (proof.requests, proof.distinct, proof.mismatched, proof.unknown, proof.lost)
    verdict = "yes" if proof.proven else f"no: {_shortcoming(proof)}"
    cells = [proof.kernel, proof.version or "–", proof.variant or "–", by, str(_measured(proof))]
    cells += [f"{number:,}" for number in numbers]
    cells.append("; ".join(filter(None, (verdict, proof.note))))
    return f"| {' | '.join(_plain(cells))} |"


def _measured(proof: Proof) -> int:
    return sum(not machine.failure for machine in proof.machines)


def _plain(cells: Iterable[str]) -> Iterator[str]:
    """Yield cells without what would end them."""
    return (" ".join(cell.replace("|", "\\|").split()) for cell in cells)


if __name__ == "__main__":
    sys.stdout.write(f"{table(load())}\n")
