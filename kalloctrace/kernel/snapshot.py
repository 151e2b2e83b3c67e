# SPDX-License-Identifier: MIT
"""One kernel on one machine, as an immutable record that each trace stores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.machine import Machine


@dataclass(frozen=True)
class Snapshot:
    """All facts about a kernel that are needed to decode, predict and compare.

    Attributes:
        release: `uname -r`, or the name of a built-in kernel.
        version: `uname -v`, which holds the package's version on Debian.
        features: the rules of its preparation stage.
        tables: its flags.
        machine: nodes, zones, zonelists and switches at the time of the snapshot.
        evidence: the source of each feature by name, for people.
    """

    release: str
    version: str
    features: Features
    tables: FlagTables
    machine: Machine
    evidence: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the snapshot as JSON values."""
        return {
            "release": self.release,
            "version": self.version,
            "features": self.features.to_json(),
            "tables": self.tables.to_json(),
            "machine": self.machine.to_json(),
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Build the snapshot from the result of `to_json`."""
        return cls(
            release=data["release"],
            version=data["version"],
            features=Features.from_json(data["features"]),
            tables=FlagTables.from_json(data["tables"]),
            machine=Machine.from_json(data["machine"]),
            evidence=dict(data["evidence"]),
        )
