# SPDX-License-Identifier: MIT
"""The import contracts of pyproject.toml are CONTRIBUTING's table of rooms, and the table is complete."""

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRACTS: list[dict[str, Any]] = SETTINGS["tool"]["importlinter"]["contracts"]


def table() -> dict[str, set[str]]:
    """Return the rooms that each room imports, as CONTRIBUTING's table has it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `kalloctrace/(\w+)/` \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    rooms = {name for name, _ in rows}
    return {name: rooms if imports == "all" else set(imports.split(", ")) & rooms for name, imports in rows}


def reachable(rooms: dict[str, set[str]], room: str) -> set[str]:
    """Return a room, what it imports, and what its imports import."""
    found, pending = {room}, [room]
    while pending:
        new = rooms[pending.pop()] - found
        found |= new
        pending += new
    return found


def test_the_table_has_every_room() -> None:
    """A new folder of the package needs a line, and so a contract."""
    folders = {path.parent.name for path in (ROOT / "kalloctrace").glob("*/__init__.py")}
    assert table().keys() == folders


def test_each_line_of_the_table_has_its_contract() -> None:
    """A contract forbids every room that the line does not allow."""
    rooms = table()
    expected = {
        f"kalloctrace.{room}": {f"kalloctrace.{name}" for name in rooms.keys() - reachable(rooms, room)}
        for room in rooms
        if room != "commands"
    }
    contracts = {
        contract["source_modules"][0]: set(contract["forbidden_modules"])
        for contract in CONTRACTS
        if contract["type"] == "forbidden" and contract["forbidden_modules"][0].removeprefix("kalloctrace.") in rooms
    }
    assert contracts == expected


def test_the_flags_room_may_import_no_dependency() -> None:
    """Every package that the program depends on is forbidden there."""
    project = SETTINGS["project"]
    dependencies = [*project["dependencies"], *project["optional-dependencies"]["metrics"]]
    names = {re.split(r"[>=\[]", word)[0].replace("-", "_") for word in dependencies}
    (contract,) = (item for item in CONTRACTS if item["name"] == "flags imports the standard library only")
    assert set(contract["forbidden_modules"]) == names | {"bcc"}


def test_every_exception_must_match() -> None:
    """import-linter's default: an exception without an import is an error."""
    assert not any("unmatched_ignore_imports_alerting" in contract for contract in CONTRACTS)
