# SPDX-License-Identifier: MIT
"""Writes the page about the tables of `export` in each language, from their declaration: `python docs/tables.py`."""

import tomllib
from pathlib import Path
from typing import Any

import pyarrow as pa

from kalloctrace.report.export.tables.columns import TABLES

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh-cn")
_HEADS = {"en": ("Tables", "column", "type", "description"), "zh-cn": ("数据表", "列", "类型", "说明")}
_INTRO = {
    "en": """\
`export --format tables` writes these tables as a folder of Parquet files, `export --format duckdb` as one DuckDB file.
[Questions in SQL](sql.md) has examples. A duration and a time are in nanoseconds. Every column may be null where its
description says so. The same descriptions are in the files: as the metadata `about` of a Parquet column, and as a
comment in DuckDB. Parquet files also have the kernel and machine in their metadata, as `kalloctrace.snapshot`.""",
    "zh-cn": """\
`export --format tables` 把这些表写成一个文件夹中的 Parquet 文件，`export --format duckdb` 写成一个 DuckDB 文件。
示例见[用 SQL 提问](sql.md)。时刻和时长的单位是纳秒。只有说明中提到时，列才可能为空（null）。文件中也有英文说明：
在 Parquet 列的元数据 `about` 中，在 DuckDB 的注释中。Parquet 文件的元数据 `kalloctrace.snapshot` 还包含内核和机器。""",
}
_GENERATED = "<!-- Written by docs/tables.py. -->"


def page(language: str) -> str:
    """Return the page in a language."""
    title, *heads = _HEADS[language]
    lines = [_GENERATED, f"# {title}", "", _INTRO[language]]
    for name, schema in TABLES.items():
        lines += ["", f"## {name}", "", _about(schema, language, name), "", _row(heads), "|---|---|---|"]
        lines += [
            _row([f"`{field.name}`", _type(field.type), _about(field, language, name, field.name)]) for field in schema
        ]
    return "\n".join(lines) + "\n"


def translations() -> dict[str, Any]:
    """Return the Chinese descriptions: of tables, of columns, and of columns of one table."""
    return tomllib.loads((HERE / "zh-cn" / "tables.toml").read_text(encoding="utf-8"))


def _about(described: Any, language: str, *names: str) -> str:  # noqa: ANN401 (a schema or a field)
    if language == "en":
        return str(described.metadata[b"about"].decode())
    known = translations()
    table, *column = names
    if not column:
        return str(known["tables"][table])
    return str(known.get(table, {}).get(column[0]) or known["columns"][column[0]])


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _type(kind.value_type)
    if pa.types.is_list(kind):
        return f"{_type(kind.value_type)}[]"
    return {"string": "text", "bool": "boolean"}.get(str(kind), str(kind))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


if __name__ == "__main__":
    for chosen in LANGUAGES:
        (HERE / chosen / "tables.md").write_text(page(chosen), encoding="utf-8")
