# SPDX-License-Identifier: MIT
"""The tables of a dataset: those of `export --format tables`, with keys, and with signed integers only.

A key is 63 bits of a hash of the contents. Spark reads an unsigned 64-bit column of Parquet as a decimal, so that every
integer here has 64 bits and a sign.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

import pyarrow as pa

from kalloctrace.report.export.tables.columns import NAMES, TABLES, TEXTS
from kalloctrace.trace.dedup import KEYS

SCHEMA = 1
"""Version of the tables; incremented when an older program would misread a newer dataset."""

PARTITIONED = ("recordings", "allocations", "slow_calls", "attempts", "zones")
"""Tables with a folder for each day and kernel."""
SHARED = ("machines", "requests")
"""Tables whose rows several recordings share; a row may be there more than once."""
JUDGED = ("verdicts", "differences")
"""What `fleet verify` found; likewise."""
NEEDED = frozenset(
    (
        *("recording_key", "recording_id", "extent", "machine_key", "facts_key", "circumstances_key", "request_key"),
        *("calls", "model_version", "verdict"),
    )
)
"""Columns that every schema has: without one of them a row would be lost. Any other one may be missing, and is null."""

_SIGN_BIT = (1 << 63) - 1


def key_of(*parts: str | bytes) -> int:
    """Return a key for contents: 63 bits of their hash."""
    (key,) = keys_of(parts[:-1], parts[-1:])
    return key


def keys_of(first: Iterable[str | bytes], lasts: Iterable[str | bytes]) -> Iterator[int]:
    """Yield the keys for contents that begin alike, whose beginning is hashed once.

    Args:
        first: the parts that all have.
        lasts: the last part of each.
    """
    begun = blake2b(digest_size=8)
    for part in first:
        begun.update(_measured(part))
    for last in lasts:
        digest = begun.copy()
        digest.update(_measured(last))
        yield int.from_bytes(digest.digest(), "little") & _SIGN_BIT


def _measured(part: str | bytes) -> bytes:
    data = part if isinstance(part, bytes) else part.encode(errors="surrogatepass")
    return len(data).to_bytes(8, "little") + data


def _signed(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _signed(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(_signed(kind.value_type))
    return pa.int64() if pa.types.is_integer(kind) else kind


def _column(name: str, kind: pa.DataType, about: str) -> pa.Field:
    return pa.field(name, kind, metadata={"about": about})


_I64, _TEXT = pa.int64(), pa.utf8()
_RECORDING_KEY = _column("recording_key", _I64, "the row of the table recordings")
_REQUEST_KEY = _column("request_key", _I64, "the row of the table requests")
_FACTS_KEY = _column("facts_key", _I64, "hash of what the model reads of the kernel and machine")
_CIRCUMSTANCES_KEY = _column("circumstances_key", _I64, "hash of the column circumstances_json")
_MODEL = _column("model_version", _TEXT, "hash of the model that judged")


def _of_export(table: str, names: Iterable[str] | None = None, *, without: tuple[str, ...] = ()) -> Iterator[pa.Field]:
    schema = TABLES[table]
    for name in schema.names if names is None else names:
        if name not in without:
            field = schema.field(name)
            yield _column(name, _signed(field.type), field.metadata[b"about"].decode())


def _request_names() -> Iterator[str]:
    for key in KEYS:
        yield NAMES.get(key, key)
        if key in TEXTS:
            yield TEXTS[key][0]
    yield "bytes_each"


REQUEST_COLUMNS: Mapping[str, str] = {NAMES.get(key, key): key for key in KEYS}
"""The columns of requests that the model reads, with their names in a trace."""

FLEET_TABLES: Mapping[str, pa.Schema] = {
    "machines": pa.schema(
        [
            _column("machine_key", _I64, "hash of the snapshot"),
            _FACTS_KEY,
            _column("kernel_release", _TEXT, "release of the kernel"),
            _column("kernel_version", _TEXT, "its version, as uname -v prints it"),
            _column("machine_kind", _TEXT, "the populated zones of each node"),
            _column("snapshot_json", _TEXT, "the kernel and machine, as a trace has them"),
        ]
    ),
    "recordings": pa.schema(
        [
            _column("recording_key", _I64, "hash of the recording's id and of what was added at once"),
            _column("recording_id", _TEXT, "names the recording; a longer version of it has the same"),
            _column("extent", _I64, "twice the recorded calls, and 1 if the end is there: the longest version counts"),
            _column("file_key", _I64, "hash of the file's size, beginning and end; null if it is no plain file"),
            _column("machine_key", _I64, "the row of the table machines"),
            _FACTS_KEY,
            _column("host", _TEXT, "name of the host, or what stands for it; ? if it is not known"),
            _column("build_id", _TEXT, "the kernel's build id; null if the recording does not have it"),
            _column("recording_day", _TEXT, "UTC day of the start, by the host's clock; unknown without one"),
            _column("calls", _I64, "calls that its rows represent"),
            _column("slow_call_count", _I64, "rows of the table slow_calls"),
            _column("follows_slow_path", pa.bool_(), "whether calls of the slow path were recorded"),
            *_of_export("recording", without=("snapshot_json",)),
            _column("missing_rows", _I64, "rows that the recorder counted and that the trace lacks"),
            _CIRCUMSTANCES_KEY,
            _column("circumstances_json", _TEXT, "what a verdict depends on besides machine and request"),
        ]
    ),
    "requests": pa.schema(
        [_REQUEST_KEY.with_metadata({"about": "hash of the row"}), *_of_export("allocations", _request_names())]
    ),
    "allocations": pa.schema(
        [
            _RECORDING_KEY,
            _REQUEST_KEY,
            *_of_export("allocations", ("comm", "cgroup")),
            _column(
                "hour",
                _I64,
                "hours since 1970 in UTC, by the host's clock; of an aggregate that of its start; null if not known",
            ),
            *_of_export("allocations", ("calls",)),
        ]
    ),
    "slow_calls": pa.schema(
        [
            _RECORDING_KEY,
            *_of_export("slow_calls", without=("stack_id",)),
            _column("caller", _TEXT, "the function that called the page allocator; null without a stack"),
        ]
    ),
    "attempts": pa.schema([_RECORDING_KEY, *_of_export("attempts")]),
    "zones": pa.schema([_RECORDING_KEY, *_of_export("zones")]),
    "verdicts": pa.schema(
        [
            _MODEL,
            _FACTS_KEY,
            _CIRCUMSTANCES_KEY,
            _REQUEST_KEY,
            _column("verdict", _TEXT, "matched, mismatched or unknown"),
            _column("unknown_reason", _TEXT, "why it could not be judged; null if it could"),
        ]
    ),
    "differences": pa.schema(
        [
            _MODEL,
            _FACTS_KEY,
            _CIRCUMSTANCES_KEY,
            _REQUEST_KEY,
            _column("field", _TEXT, "what differs"),
            _column("expected", _TEXT, "the model's value"),
            _column("observed", _TEXT, "the kernel's value"),
            _column("rule", _TEXT, "the rule that sets it"),
            _column("effect", _TEXT, "what that rule did"),
        ]
    ),
}
"""The tables. A description is the metadata `about` of a column."""
