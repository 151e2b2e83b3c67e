# SPDX-License-Identifier: MIT
"""Spark: in a Java process of its own, or on a cluster."""

import atexit
import os
import re
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, ClassVar

import narwhals as nw
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.frames import Batches, Engine, Frame, Refused

_FUNCTION = (
    "CREATE OR REPLACE TEMPORARY FUNCTION has_flag(mask BIGINT, flag BIGINT) RETURNS BOOLEAN "
    "RETURN (mask & flag) = flag"
)
_TYPES = {pa.int64(): "BIGINT", pa.utf8(): "STRING", pa.bool_(): "BOOLEAN"}
_PATTERN = re.compile(r"[\\{}\[\]*?]")
"""Characters of a path that Hadoop would take for a pattern."""
TASKS = 64
"""Parts of the work on executors: its rows are few, and each takes long."""
FAILURES = (PySparkException, Py4JError, ConnectionRefusedError)
_LOG_BYTES = 1 << 16
_FRAME = re.compile(r"\s+at |\s*\.\.\. \d+ more|\s*$")


class SparkEngine(Engine):
    """An engine over a session.

    Args:
        session: here, or on a server of Spark Connect; both have what is used of it.
    """

    has_executors: ClassVar[bool] = True

    def __init__(self, session: Any) -> None:  # noqa: ANN401 (one of two)
        self._session = session
        session.sql(_FUNCTION)

    def reach(self, dataset: Dataset) -> None:
        """Do nothing: Hadoop knows the stores that the cluster is set up for."""

    def read(self, paths: list[str], schema: pa.Schema) -> Any:  # noqa: ANN401 (a DataFrame)
        """Return the rows of Parquet files."""
        return self._session.read.schema(_ddl(schema)).parquet(*map(_literal, paths))

    def hold(self, table: pa.Table) -> Any:  # noqa: ANN401 (likewise)
        """Return a table that is in memory."""
        return self._session.createDataFrame(table, _ddl(table.schema))

    def name_table(self, name: str, frame: Any) -> None:  # noqa: ANN401 (likewise)
        """Give a frame a name for `sql`."""
        frame.createOrReplaceTempView(name)

    def run_sql(self, query: str) -> pa.Table | None:
        """Return the answer to a query."""
        try:
            found = self._session.sql(query)
            return found.toArrow() if found.columns else None
        except PySparkException as error:
            raise Refused(why_of(error)) from error

    def on_executors(self, frame: Frame, work: Batches, schema: pa.Schema) -> Frame:
        """Return what Spark's executors make of the rows of a frame."""
        rows = frame.to_native().repartition(TASKS)
        made: Frame = nw.from_native(rows.mapInArrow(work, _ddl(schema))).lazy()
        return made


class _Spark(SparkEngine):
    """Spark with a Java process of our own."""

    def cancel(self) -> None:
        with suppress(*FAILURES):
            self._session.sparkContext.cancelAllJobs()

    def share(self) -> float:
        tracker = self._session.sparkContext.statusTracker()
        with suppress(*FAILURES):
            jobs = [tracker.getJobInfo(job) for job in tracker.getActiveJobsIds()]
            stages = [tracker.getStageInfo(stage) for job in jobs if job is not None for stage in job.stageIds]
            # A stage that has not begun is not known yet.
            known = [stage for stage in stages if stage is not None]
            done, tasks = sum(stage.numCompletedTasks for stage in known), sum(stage.numTasks for stage in known)
            return float(done / max(1, tasks))
        return 0.0


@contextmanager
def answering(session: Any, made: Callable[[Any], SparkEngine], fix: str) -> Iterator[SparkEngine]:  # noqa: ANN401 (one of two)
    """Yield an engine over a session, which ends with the block.

    Args:
        session: as of `SparkEngine`.
        made: makes the engine.
        fix: what to do where it cannot answer.

    Raises:
        KalloctraceError: it cannot answer.
    """
    try:
        yield made(session)
    except FAILURES as error:
        raise KalloctraceError("Spark could not answer", why_of(error), fix) from error
    finally:
        # Its Java process, or the server, may have been killed.
        with suppress(*FAILURES):
            session.stop()


@contextmanager
def running_spark(master: str, memory: str) -> Iterator[Engine]:
    """Yield Spark.

    Args:
        master: such as local[2] or spark://HOST:7077.
        memory: of the driver, such as 2g; the first engine of a process decides.

    Raises:
        KalloctraceError: it does not start, or cannot answer.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Tables come and go as Arrow; pandas is only looked for.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        fix = "give it more with --memory, or more workers; what they say is in the cluster's log"
        try:
            with answering(_session(master, memory), _Spark, fix) as running:
                yield running
        finally:
            if interrupt is not None and signal.getsignal(signal.SIGINT) is not interrupt:
                signal.signal(signal.SIGINT, interrupt)


def _session(master: str, memory: str) -> SparkSession:
    conf = SparkConf(loadDefaults=False).setMaster(master).setAppName("kalloctrace fleet")
    settings = {
        "spark.driver.memory": memory,
        "spark.log.level": "ERROR",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.warehouse.dir": tempfile.gettempdir(),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
    }
    if master.startswith("local"):
        # Otherwise it looks for an address of this machine's name, and warns.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        settings["spark.sql.shuffle.partitions"] = str(4 * (os.cpu_count() or 1))
    for name, value in settings.items():
        conf.set(name, value)
    # What judges on executors is this program.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    log = _log()
    begin = log.seek(0, os.SEEK_END)
    try:
        context = SparkContext(conf=conf, gateway=_gateway(conf))
        return SparkSession(context)
    except Exception as error:  # Java is missing, or the master: each fails in its own way.
        log.seek(begin)
        said = log.read(_LOG_BYTES).decode(errors="replace").splitlines()
        why = next((line for line in reversed(said) if not _FRAME.match(line)), "") or why_of(error)
        fix = "install Java 17 or 21 (apt install default-jre-headless), check --master and --memory"
        raise KalloctraceError("cannot start Spark", why, fix) from error


@cache
def _log() -> Any:  # noqa: ANN401 (a file)
    """Return the file that has what Java prints: foreign text, of which only an error is shown."""
    # Both processes write at its end, wherever one of them reads.
    file = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (Java writes into it until this process ends)
    atexit.register(file.close)
    return file


_java: list[Any] = []
"""The gateway to Java, which is started once for each process."""


def _gateway(conf: SparkConf) -> Any:  # noqa: ANN401 (of py4j)
    if not _java:
        _java.append(launch_gateway(conf, {"stdout": _log(), "stderr": _log()}))
    return _java[0]


def _ddl(schema: pa.Schema) -> str:
    """Return the columns as Spark's SQL declares them."""
    return ", ".join(f"`{field.name}` {_type(field.type)}" for field in schema)


def _type(kind: pa.DataType) -> str:
    return f"ARRAY<{_type(kind.value_type)}>" if pa.types.is_list(kind) else _TYPES[kind]


def _literal(path: str) -> str:
    """Return a path so that no character of it is a pattern."""
    return _PATTERN.sub(r"\\\g<0>", path)


def why_of(error: Exception) -> str:
    """Return what failed: the error of a Python function if there is one, else the first line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"(?:\w+\.)*\w*Error: ", line)]
    return (raised or lines or [type(error).__name__])[0].strip()
