# SPDX-License-Identifier: MIT
"""The engines that answer: DuckDB in this process, or Spark. Both get the same questions, through Narwhals."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from kalloctrace.errors import KalloctraceError

if TYPE_CHECKING:
    # Narwhals is in the extras too.
    from kalloctrace.fleet.frames import Engine

EngineName = Literal["duckdb", "spark"]
MASTER, MEMORY = "local[*]", "2g"
_CONNECT = "sc://"
_EXTRAS = {"duckdb": "fleet", "spark": "spark"}


@contextmanager
def engine(name: EngineName = "duckdb", *, master: str = MASTER, memory: str = MEMORY) -> "Iterator[Engine]":
    """Yield an engine.

    Args:
        name: which.
        master: of Spark, such as local[2] or spark://HOST:7077, or a server of Spark Connect: sc://HOST:15002.
        memory: that DuckDB or Spark's driver may use, such as 2g; a server has its own.

    Raises:
        KalloctraceError: it is not installed, does not start, or cannot answer.
    """
    try:
        if name == "spark" and master.startswith(_CONNECT):
            from kalloctrace.fleet.on_connect import running_connect  # noqa: PLC0415 (an extra)

            started = running_connect(master)
        elif name == "spark":
            from kalloctrace.fleet.on_spark import running_spark  # noqa: PLC0415 (an extra)

            started = running_spark(master, memory)
        else:
            from kalloctrace.fleet.on_duckdb import running_duckdb  # noqa: PLC0415 (an extra)

            started = running_duckdb(memory)
    except ImportError as error:
        connect = " 'pyspark[connect]'" if master.startswith(_CONNECT) else ""
        fix = f"pip install 'kalloctrace[{_EXTRAS[name]}]'{connect}"
        package = (error.name or "a package").partition(".")[0]
        raise KalloctraceError("cannot ask the fleet", f"{package} is not installed", fix) from None
    with started as running:
        yield running
