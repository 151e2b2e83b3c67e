# SPDX-License-Identifier: MIT
"""What scores the modules must reach, what came of their mutants, and the list of those that are equivalent."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants.mutations import Mutation

EQUIVALENT = Path(__file__).with_name("equivalent.toml")

ALL = (
    "kalloctrace/model/watermark.py",
    "kalloctrace/model/page_alloc.py",
    "kalloctrace/model/gfp.py",
    "kalloctrace/model/cpuset.py",
    "kalloctrace/model/slowpath/flags.py",
)
"""Here every mutant must be killed, or be listed as equivalent."""

MOST = (
    "kalloctrace/model/",
    "kalloctrace/verify/",
    "kalloctrace/flags/",
    "kalloctrace/probe/decode/",
    "kalloctrace/diagnose/states.py",
    "kalloctrace/diagnose/diagnosis.py",
    "kalloctrace/diagnose/zones.py",
)
"""Here 90 % of the mutants."""


class UsageError(Exception):
    """The equivalents or the module named are wrong."""


@dataclass
class Score:
    """What came of a module's mutants.

    Attributes:
        module: its path in the checkout.
        total: how many mutants were judged.
        equivalent: those listed as equivalent.
        survived: those that no test noticed.
        wrong: those that are listed as equivalent, but that a test notices, with the test.
        sampled: of how many these are a sample; None if they are all.
    """

    module: str
    total: int = 0
    equivalent: int = 0
    survived: list[Mutation] = field(default_factory=list)
    wrong: list[tuple[Mutation, str]] = field(default_factory=list)
    sampled: int | None = None

    @property
    def percent(self) -> float:
        """How many of a hundred mutants are killed or listed."""
        return 100 * (self.total - len(self.survived)) / self.total if self.total else 100.0

    @property
    def enough(self) -> bool:
        """Whether the module reaches the score that it must have."""
        return self.percent >= required(self.module) and not self.wrong

    def __str__(self) -> str:
        """Return one line."""
        killed = self.total - self.equivalent - len(self.survived)
        of = f" (a sample of {self.sampled:,})" if self.sampled is not None else ""
        return (
            f"{self.module}: {self.total} mutants{of}, {killed} killed, {len(self.survived)} survived, "
            f"{self.equivalent} equivalent: {self.percent:.1f} % (required: {required(self.module)} %)"
        )


def required(module: str) -> int:
    """Return the score that a module must have, in percent."""
    if module in ALL:
        return 100
    return 90 if module.startswith(MOST) else 0


def keys(found: Sequence[Mutation]) -> dict[str, Mutation]:
    """Return the mutations, each with a key that another run gives it too."""
    named: dict[str, Mutation] = {}
    for mutation in found:
        text = f"{mutation.function}\0{mutation.was}\0{mutation.becomes}"
        number = 0
        while (key := short_hash(f"{text}\0{number}")) in named:
            number += 1
        named[key] = mutation
    return named


def equivalents(module: str, named: dict[str, Mutation], entries: Sequence[dict[str, str]]) -> set[str]:
    """Return the keys of the mutants that are listed as equivalent.

    Args:
        module: the module's path in the checkout.
        named: its mutants.
        entries: the list of equivalents.

    Raises:
        UsageError: an entry is incomplete, or no mutant is as it says.
    """
    found = set()
    for entry in entries:
        missing = {"module", "function", "was", "becomes", "reason"} - {name for name, text in entry.items() if text}
        missing -= {"function"} if "function" in entry else set()
        if missing:
            raise UsageError(f"equivalent.toml: an entry has no {', '.join(sorted(missing))}: {entry}")
        if entry["module"] == module:
            same = {
                key
                for key, mutation in named.items()
                if (mutation.function, mutation.was, mutation.becomes)
                == (entry["function"], entry["was"].strip(), entry["becomes"].strip())
            }
            if not same:
                raise UsageError(
                    f"equivalent.toml: no mutant of {module} is as this entry says; remove or correct it:\n"
                    f"in {entry['function']}\n- {entry['was']}\n+ {entry['becomes']}"
                )
            found |= same
    return found


def listed() -> list[dict[str, str]]:
    """Read the list of equivalents."""
    entries: list[dict[str, str]] = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])
    return entries


def short_hash(text: str) -> str:
    """Return what tells a text from others."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]
