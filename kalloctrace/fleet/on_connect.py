# SPDX-License-Identifier: MIT
"""Spark Connect: a server that has Spark answers, and no Java is needed here."""

import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import grpc

from kalloctrace.errors import KalloctraceError
from kalloctrace.fleet.frames import Engine
from kalloctrace.fleet.on_spark import FAILURES, SparkEngine, answering, why_of

_PORT = 15002
_PATIENCE = 10
"""Seconds in which a server must take a connection; the client would try again for minutes."""


class _Connect(SparkEngine):
    """An engine over a session of a server."""

    def __init__(self, session: Any) -> None:  # noqa: ANN401 (SparkSession is that of the server here)
        self._share = 0.0
        session.registerProgressHandler(self._heard)
        session.conf.set("spark.sql.session.timeZone", "UTC")
        super().__init__(session)

    def _heard(self, stages: Iterable[Any] | None, **_: object) -> None:
        known = list(stages or ())
        self._share = sum(stage.num_completed_tasks for stage in known) / max(1, sum(s.num_tasks for s in known))

    def cancel(self) -> None:
        with suppress(*FAILURES, grpc.RpcError):
            self._session.interruptAll()

    def share(self) -> float:
        return self._share


@contextmanager
def running_connect(master: str) -> Iterator[Engine]:
    """Yield a server of Spark Connect.

    Args:
        master: sc://HOST:PORT, with parameters as PySpark knows them.

    Raises:
        KalloctraceError: it cannot be reached, or cannot answer.
    """
    with warnings.catch_warnings():
        # Tables come and go as Arrow.
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        # It imports pandas, which nothing else here does.
        from pyspark.sql.connect.session import SparkSession  # noqa: PLC0415 (it warns)

        fix = "start a server there, and check --master"
        try:
            url = urlsplit(master)
            socket.create_connection((url.hostname or "", url.port or _PORT), _PATIENCE).close()
            session = SparkSession.builder.remote(master).create()
        except (OSError, ValueError, *FAILURES) as error:
            raise KalloctraceError("cannot reach Spark Connect", why_of(error), fix) from error
        with answering(session, _Connect, "what the server says is in its log") as running:
            yield running
