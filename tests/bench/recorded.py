# SPDX-License-Identifier: MIT
"""The figures of `make bench`, in recorded.json."""

import json
from pathlib import Path
from typing import Any

_PATH = Path(__file__).with_name("recorded.json")


def load() -> dict[str, Any]:
    """Return the recorded figures."""
    figures: dict[str, Any] = json.loads(_PATH.read_text(encoding="utf-8"))
    return figures


def save(figures: dict[str, Any]) -> None:
    """Record figures, the oldest kernel first."""
    by_age = sorted(figures["kernels"].items(), key=lambda item: [int(part) for part in item[0].split(".")])
    content = {**figures, "kernels": dict(by_age)}
    _PATH.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
