# SPDX-License-Identifier: MIT
"""The time limits of the metrics server are the client's, not its own."""

import socket
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.report.metrics import server
from kalloctrace.report.metrics.server import MetricsServer, listen, listen_unix

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
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    with (
        MetricsServer(slow, listening),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer,
    ):
        assert answer.read() == b"answered"


def test_client_that_sends_half_a_request_is_dropped() -> None:
    """It gets no answer and no more time than the limit."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    with MetricsServer(slow, listening):
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            assert client.recv(1) == b""
        assert time.monotonic() - begin >= LIMIT


def answered(environ: dict[str, Any], start: Callable[..., object]) -> Iterable[bytes]:
    """Answer at once."""
    del environ
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"answered"]


def asked(path: Path) -> bytes:
    """Return the answer of the server at a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_unix_socket(tmp_path: Path) -> None:
    """Its owner and group may use it; a socket that was left there is replaced, one in use and a file are not."""
    path = tmp_path / "metrics.sock"
    for _ in range(2):
        with MetricsServer(answered, listen_unix(path)):
            assert asked(path).endswith(b"answered")
            assert path.stat().st_mode & 0o777 == 0o660
    with listen_unix(path), pytest.raises(OSError, match="in use"):
        listen_unix(path)
    other = tmp_path / "other"
    other.write_text("mine")
    with pytest.raises(OSError, match="in use"):
        listen_unix(other)
    assert other.read_text() == "mine"
