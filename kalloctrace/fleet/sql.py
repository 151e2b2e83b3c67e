# SPDX-License-Identifier: MIT
"""Questions in SQL: the tables of a dataset as views, and the flags of its kernels."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa

from kalloctrace.errors import KalloctraceError
from kalloctrace.flags.tables import FlagTables
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.frames import Engine, Refused
from kalloctrace.fleet.tables import FLEET_TABLES
from kalloctrace.report.export.tables.rows import flag_rows

_FLAGS = pa.schema(
    [
        pa.field("kernel_release", pa.utf8()),
        *(pa.field(name, pa.utf8()) for name in ("flag_kind", "flag_name")),
        pa.field("flag_value", pa.int64()),
        pa.field("meaning", pa.utf8()),
    ]
)


def flag_table(dataset: Dataset) -> pa.Table:
    """Return a row for each name that a kernel of the dataset has for a bit, a mask or a number."""
    machines = dataset.table("machines", ["kernel_release", "snapshot_json"])
    found = dict(zip(machines["kernel_release"].to_pylist(), machines["snapshot_json"].to_pylist(), strict=True))
    rows = [
        {"kernel_release": release, **row}
        for release, snapshot in sorted(found.items())
        for row in flag_rows(FlagTables.from_json(json.loads(snapshot)["tables"]))
    ]
    return pa.Table.from_pylist(rows, _FLAGS)


class Shell:
    """Answers SQL about a dataset.

    Args:
        dataset: opened, for as long as it is asked.
        engine: running.
    """

    def __init__(self, dataset: Dataset, engine: Engine) -> None:
        self._engine = engine
        # A view needs what it was made of.
        self._views = {name: frame.to_native() for name, frame in engine.tables(dataset).items()}
        self._views["flags"] = engine.hold(flag_table(dataset))
        for name, view in self._views.items():
            engine.name_table(name, view)

    def answer(self, query: str) -> Iterator[dict[str, Any]]:
        """Return the rows of an answer, which is there as a whole.

        Raises:
            KalloctraceError: the engine refuses the query.
        """
        try:
            table = self._engine.sql(query)
        except Refused as error:
            fix = f"ask these tables, whose columns DESCRIBE shows: {', '.join((*FLEET_TABLES, 'flags'))}"
            raise KalloctraceError("cannot answer the query", str(error), fix) from error
        batches = [] if table is None else table.to_batches()
        return ({name: _plain(value) for name, value in row.items()} for batch in batches for row in batch.to_pylist())


def _plain(value: object) -> object:
    """Return a value as JSON has it: sums may be decimals; times and others become texts."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(name): _plain(each) for name, each in value.items()}
    return str(value)
