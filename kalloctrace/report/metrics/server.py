# SPDX-License-Identifier: MIT
"""Serves metrics by HTTP to clients that may hang, send nonsense or never read.

The server that prometheus-client starts gives each connection a thread, with no limit and no timeout. Here one thread
serves all connections and one builds the answers; a connection beyond the limit ends the one that has waited longest.
"""

import asyncio
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Self
from wsgiref.types import WSGIApplication

MOST_CONNECTIONS = 128
_MOST_HEADER = 16 << 10
"""Bytes of a request: the request line and the headers. No request has a body."""
_SECONDS = 10.0
"""For a client to send its request, and again to read the answer."""
_BACKLOG = 1024

Environ = Mapping[str, str]


class MetricsServer:
    """Serves in a thread of its own until the context ends.

    Args:
        application: answers the requests.
        listening: the socket, which is closed at the end; see `listen` and `listen_unix`.
    """

    def __init__(self, application: WSGIApplication, listening: socket.socket) -> None:
        self._socket = listening
        self._builder = _Builder(application)
        # The longest-waiting connections first, those that sent their request last.
        self._waiting: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._answered: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop
        self._over = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name="metrics", daemon=True)

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, whatever clients do."""
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._socket.close()

    async def _listen(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._serve, sock=self._socket, limit=_MOST_HEADER)
        self._started.set()
        await self._over.wait()
        # What is still being served is cancelled afterwards: nobody waits for clients.
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._waiting) + len(self._answered) >= MOST_CONNECTIONS:
            longest, its_task = next(iter((self._waiting or self._answered).items()))
            self._forget(longest)
            longest.transport.abort()
            its_task.cancel()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  (a coroutine runs in one)
        self._waiting[writer] = task
        try:
            # The limit of connections cancels, and the end.
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                answer = await self._answer_of(reader)
                self._answered[writer] = self._waiting.pop(writer)
                # drain() shall wait until everything is sent.
                writer.transport.set_write_buffer_limits(0)
                writer.write(answer)
                async with asyncio.timeout(_SECONDS):
                    await writer.drain()
        finally:
            self._forget(writer)
            writer.close()

    def _forget(self, writer: asyncio.StreamWriter) -> None:
        self._waiting.pop(writer, None)
        self._answered.pop(writer, None)

    async def _answer_of(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        environ = parse_request(head)
        if environ is None:
            return _plain(HTTPStatus.BAD_REQUEST)
        # However long the answer takes: the first one about a large trace reads it.
        done: asyncio.Future[bytes] = self._loop.create_future()
        with self._builder.asked(environ, lambda answer: self._loop.call_soon_threadsafe(_set, done, answer)):
            return await done


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens for TCP.

    Args:
        address: where to listen.
        port: where to listen; 0 takes a free port.

    Raises:
        OSError: it cannot listen there.
    """
    family, *_, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(where[:2], family=family, backlog=_BACKLOG)


def listen_unix(path: Path) -> socket.socket:
    """Return a Unix socket that listens at a path, which its owner and group may use.

    A socket that a process left there is replaced; one on which somebody listens is not.

    Raises:
        OSError: it cannot listen there.
    """
    if path.is_socket():
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            if other.connect_ex(os.fspath(path)) == 0:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Nobody may connect before the mode is set.
        before = os.umask(0o117)
        try:
            listening.bind(os.fspath(path))
        finally:
            os.umask(before)
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


class _Builder:
    """Builds answers in one thread; equal requests that wait at the same time share an answer."""

    def __init__(self, application: WSGIApplication) -> None:
        self._application = application
        self._asked = threading.Condition()
        self._requests: dict[tuple[tuple[str, str], ...], list[Callable[[bytes], object]]] = {}
        threading.Thread(target=self._run, name="answers", daemon=True).start()

    @contextmanager
    def asked(self, environ: Environ, answered: Callable[[bytes], object]) -> Iterator[None]:
        """Call a function with the answer to a request, in another thread, unless the context ends before."""
        request = tuple(environ.items())
        with self._asked:
            self._requests.setdefault(request, []).append(answered)
            self._asked.notify()
        try:
            yield
        finally:
            with self._asked:
                waiting = self._requests.get(request, [])
                if answered in waiting:
                    waiting.remove(answered)
                    if not waiting:
                        del self._requests[request]

    def _run(self) -> None:
        while True:
            with self._asked:
                while not self._requests:
                    self._asked.wait()
                request = next(iter(self._requests))
                waiting = self._requests.pop(request)
            answer = _answer(self._application, dict(request))
            for answered in waiting:
                # The server may have stopped.
                with suppress(RuntimeError):
                    answered(answer)


def parse_request(head: bytes) -> dict[str, str] | None:
    """Return the WSGI variables that matter for metrics; None if this is no HTTP request.

    Args:
        head: the request line and the headers, with the empty line.
    """
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != len(("method", "target", "version")) or not words[2].startswith("HTTP/1."):
        return None
    path, _, query = words[1].partition("?")
    environ = {"REQUEST_METHOD": words[0], "PATH_INFO": path, "QUERY_STRING": query}
    for line in lines:
        name, _, value = line.partition(":")
        if name.lower() in {"accept", "accept-encoding"}:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value.strip()
    return environ


def _answer(application: WSGIApplication, environ: dict[str, str]) -> bytes:
    begun: list[tuple[str, list[tuple[str, str]]]] = []

    def begin(status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
        begun.append((status, headers))
        return lambda _: None

    try:
        body = b"".join(application(environ, begin))
    except Exception as error:  # noqa: BLE001 - a defect of ours shall not end the recording, and is shown
        sys.excepthook(type(error), error, error.__traceback__)
        return _plain(HTTPStatus.INTERNAL_SERVER_ERROR)
    status, headers = begun[-1]
    return _response(status, headers, b"" if environ["REQUEST_METHOD"] == "HEAD" else body, len(body))


def _plain(status: HTTPStatus) -> bytes:
    body = f"{status.value} {status.phrase}\n".encode()
    return _response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain")], body, len(body))


def _response(status: str, headers: list[tuple[str, str]], body: bytes, length: int) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
    lines += [f"Content-Length: {length}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def _set(done: "asyncio.Future[bytes]", answer: bytes) -> None:
    if not done.done():
        done.set_result(answer)
