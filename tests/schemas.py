# SPDX-License-Identifier: MIT
"""The JSON Schemas of the program's output, closed: a field that a schema does not declare is an error."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

FOLDER = Path(__file__).parents[1] / "kalloctrace" / "schemas"


@cache
def validator(name: str) -> jsonschema.Draft202012Validator:
    """Return a validator for a schema that rejects undeclared fields."""
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(_closed(schema))


def hold(name: str, *objects: object) -> None:
    """Validate objects with a schema."""
    assert objects
    for found in objects:
        validator(name).validate(found)


def _closed(schema: Any) -> Any:  # noqa: ANN401  (any JSON value)
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(part) for key, part in schema.items()}
    if "required" in schema:
        closed["additionalProperties"] = False
    return closed
