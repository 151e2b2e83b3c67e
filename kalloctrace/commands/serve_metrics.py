# SPDX-License-Identifier: MIT
"""The `serve-metrics` command."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.report.metrics.prometheus import RecordingState

_PORT = 9913
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Which port; 0 takes a free one.",
)
@click.argument("trace", metavar="[TRACE]", required=False, type=click.Path(path_type=Path))
def command(address: str, port: int, trace: Path | None) -> int:
    """Serve a recording's numbers to Prometheus, also while it goes on.

    Without TRACE it captures by itself, as root, as record --mode aggregate does, and writes nothing. Served
    are what was allocated, what failed or took the slow path, the model's verdicts, and what is lost. A trace that
    grows is read again; what it does not tell yet is no metric. Anyone who reaches the address can read them: by
    default that is this machine alone. A dashboard for Grafana is in contrib/grafana. Ctrl-C ends it.

    \b
    Examples:
      kalloctrace serve-metrics
      kalloctrace serve-metrics my.arrows
      kalloctrace record -o my.arrows & kalloctrace serve-metrics my.arrows
      curl http://127.0.0.1:9913/metrics
    """
    try:
        import prometheus_client  # noqa: F401  (asked for before anything is attached)
    except ModuleNotFoundError as error:
        raise KalloctraceError(
            "cannot serve metrics", "prometheus-client is not installed", "pip install 'kalloctrace[metrics]'"
        ) from error
    if trace is None:
        _serve_capture(address, port)
    else:
        from kalloctrace.report.metrics.source import TraceSource

        followed = TraceSource(trace)
        followed.now()
        with _served(address, port, followed.now, str(trace)):
            signal.sigwait(_SIGNALS)
    return Exit.OK


def _serve_capture(address: str, port: int) -> None:
    from threading import Lock

    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.probe.attach.filters import Filters
    from kalloctrace.probe.checks import require_live
    from kalloctrace.probe.observer import Observer
    from kalloctrace.report.metrics.source import CaptureSource

    kernel = LiveKernel()
    require_live(kernel)
    lock = Lock()
    observer = Observer(
        kernel, Filters(), mode="aggregate", attachment=None, stacks=False, output=None, overwrite=False
    )
    with observer as seen:
        followed = CaptureSource(seen, lock, "live")
        with _served(address, port, followed.now, f"{kernel.snapshot.release}, as it runs"):
            while signal.sigtimedwait(_SIGNALS, seen.pause) is None:
                with lock:
                    seen.drain()


@contextmanager
def _served(address: str, port: int, now: "Callable[[], RecordingState]", what: str) -> Iterator[None]:
    """Answer whoever asks, in threads of their own; the signals that end it are left for this one."""
    from prometheus_client import CollectorRegistry, start_http_server

    from kalloctrace.report.metrics.prometheus import RecordingCollector

    registry = CollectorRegistry()
    registry.register(RecordingCollector(now))
    # Before the server's threads begin, which would take them otherwise.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise KalloctraceError(
            f"cannot listen on {address}, port {port}",
            error.strerror or str(error),
            "choose another --address or --port",
        ) from error
    click.echo(f"serving http://{address}:{server.server_port}/metrics of {what}; Ctrl-C ends it", err=True)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
