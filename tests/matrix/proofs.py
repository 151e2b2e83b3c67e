# SPDX-License-Identifier: MIT
"""Writes the proofs that `make matrix` measured: `kalloctrace/kernel/proven.json` and the table of docs/kernels.md.

`python -m tests.matrix.proofs` prints the table.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.proven import PROVEN, MachineProof, Proof, load, release_index

BEGIN = "<!-- the table of proven kernels: written by make matrix -->"
END = "<!-- end of the table of proven kernels -->"

_UNNAMED = "new"
_VARIANTS = (
    ("5.8", "5.8"),
    ("5.9 to 5.12", "5.10"),
    ("5.13 to 5.14", "5.13"),
    ("5.15 to 6.8, 6.12 to 6.14", "6.1"),
    ("6.9 to 6.11", "6.9"),
    ("6.15 to 7.2", "6.18"),
    ("7.3", "7.3"),
)
"""The variants of the preparation stage: the releases that share one, and a release that stands for them."""

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
"""The features that define a variant. Entry names and build options do not."""


def save(proofs: Iterable[Proof], path: Path = PROVEN) -> None:
    """Write the proofs, oldest kernel first, so that a diff of two measurements shows changed values only."""
    ordered = sorted(proofs, key=lambda proof: (release_index(proof.kernel), proof.kernel))
    text = json.dumps([to_json(proof) for proof in ordered], indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def variant_of(features: Features) -> str:
    """Return the name of the variant that has these features, "new" for one that is not listed here."""
    for name, kernel in _VARIANTS:
        if all(getattr(features, field) == getattr(builtin_features(kernel), field) for field in _DECIDING):
            return name
    return _UNNAMED


def to_json(proof: Proof) -> dict[str, Any]:
    """Return a proof as JSON values, which `Proof.from_json` reads."""
    return {
        **_values(proof),
        "features": proof.features and proof.features.to_json(),
        "machines": [_values(machine) for machine in proof.machines],
    }


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


def _row(proof: Proof) -> str:
    by = {"module": "module", "workload": "programs"}[proof.source]
    numbers = (proof.requests, proof.distinct, proof.mismatched, proof.unknown, proof.lost)
    verdict = "yes" if proof.proven else f"no: {proof.shortcoming}"
    cells = [proof.kernel, proof.version or "–", proof.variant or "–", by, str(_measured(proof))]
    cells += [f"{number:,}" for number in numbers]
    cells.append("; ".join(filter(None, (verdict, proof.note))))
    return f"| {' | '.join(_plain(cells))} |"


def _measured(proof: Proof) -> int:
    return sum(not machine.failure for machine in proof.machines)


def _plain(cells: Iterable[str]) -> Iterator[str]:
    """Yield cells on one line each, with their bars escaped."""
    return (" ".join(cell.replace("|", "\\|").split()) for cell in cells)


if __name__ == "__main__":
    sys.stdout.write(f"{table(load())}\n")
