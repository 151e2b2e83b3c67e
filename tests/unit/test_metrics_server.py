# SPDX-License-Identifier: MIT
"""The time limits of the metrics server are the client's, not its own."""

import socket
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from kalloctrace.report.metrics import server
from kalloctrace.report.metrics.server import MetricsServer

LIMIT = 0.2


@pytest.fixture(autouse=True)
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_SECONDS", LIMIT)


def slow(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """Answer long after the limit."""
    del environ
    time.sleep(5 * LIMIT)
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]


def test_answer_may_take_long() -> None:
    """The first request about a large trace reads it; the client waits as long as it likes."""
    with (
        MetricsServer(slow, "127.0.0.1", 0) as serving,
        urllib.request.urlopen(f"http://127.0.0.1:{serving.port}/metrics", timeout=60) as answer,
    ):
        assert answer.read() == b"answered"


def test_client_that_sends_half_a_request_is_dropped() -> None:
    """It gets no answer and no more time than the limit."""
    with MetricsServer(slow, "127.0.0.1", 0) as serving:
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", serving.port), timeout=60) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert client.recv(1) == b""
        assert time.monotonic() - begin >= LIMIT
