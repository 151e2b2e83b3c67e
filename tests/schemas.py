# SPDX-License-Identifier: MIT
"""The JSON Schemas of what the program prints, for tests: closed, so that a member that none names is noticed."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parents[1] / "kalloctrace" / "schemas"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return what holds an object to the schema of a name, and to nothing beyond it."""
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema))


def hold(name: str, *objects: object) -> None:
    """Hold objects to a schema."""
    assert objects
    for found in objects:
        validator(name).validate(found)


def _closed(schema: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if "required" in schema:
        closed["additionalProperties"] = False
    return closed
