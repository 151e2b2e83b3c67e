# SPDX-License-Identifier: MIT
"""The `serve-metrics` command."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kalloctrace.commands.capture_options import attach_option
from kalloctrace.console import stderr
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.probe.attach.choice import ASKED, Asked
from kalloctrace.text import file_name

if TYPE_CHECKING:
    from kalloctrace.report.metrics.prometheus import RecordingState

_PORT = 9913
_UNPRIVILEGED = 1024
"""The first port that needs no capability."""


@click.command()
@click.option(
    "--address", default="127.0.0.1", show_default=True, help="The address to listen on; 0.0.0.0 is every interface."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="The port to listen on; 0 takes a free one.",
)
@attach_option
@click.argument("trace", metavar="[TRACE]", required=False, type=click.Path(path_type=Path, readable=False))
def command(address: str, port: int, attach: str, trace: Path | None) -> int:
    """Serve a recording's numbers to Prometheus, also while it is recorded.

    Without TRACE it captures, as root, like record --mode aggregate, and writes nothing. The metrics are what was
    allocated, what failed or took the slow path, the model's verdicts, and what was lost. A growing trace is read
    again; unknown values are omitted. Anyone who reaches the address can read the metrics; by default only this machine
    can. contrib/grafana has a dashboard for Grafana. Ctrl-C stops it.

    \b
    Examples:
      kalloctrace serve-metrics
      kalloctrace serve-metrics my.arrows
      kalloctrace record -o my.arrows & kalloctrace serve-metrics my.arrows
      curl http://127.0.0.1:9913/metrics
    """
    if trace is not None and attach != "auto":
        raise KalloctraceError(
            "cannot serve a trace with --attach",
            "it says how to capture, and the trace is captured already",
            "leave out --attach",
            Exit.USAGE,
        )
    try:
        import prometheus_client  # noqa: F401  (tried before anything is attached)
    except ModuleNotFoundError as error:
        raise KalloctraceError(
            "cannot serve metrics", "prometheus-client is not installed", "pip install 'kalloctrace[metrics]'"
        ) from error
    if trace is None:
        _serve_capture(address, port, ASKED[attach])
    else:
        from kalloctrace.report.metrics.source import TraceSource
        from kalloctrace.signals import Ending

        followed = TraceSource(trace)
        followed.now()
        with Ending() as ending:
            ending.running()
            with _served(address, port, followed.now, file_name(trace)):
                ending.wait(None)
                ending.noticed()
    return Exit.OK


def _serve_capture(address: str, port: int, asked: Asked) -> None:
    from kalloctrace.probe.privileges.threads import import_libraries_without_threads

    import_libraries_without_threads()
    from threading import Lock

    from kalloctrace.commands.recording_summary import print_strangers
    from kalloctrace.kernel.live import LiveKernel
    from kalloctrace.probe.attach.filters import Filters
    from kalloctrace.probe.attach.kprobes import detach_all
    from kalloctrace.probe.checks import require_live
    from kalloctrace.probe.observer import Observer
    from kalloctrace.probe.privileges.capabilities import Capability
    from kalloctrace.report.metrics.source import CaptureSource
    from kalloctrace.signals import Ending

    kernel = LiveKernel()
    require_live(kernel)
    lock = Lock()
    observer = Observer(kernel, Filters(), mode="aggregate", asked=asked, stacks=False, output=None, overwrite=False)
    with Ending(detach_all) as ending, observer as seen:
        # The server's threads start afterwards, without privileges but one for its port.
        kept = [Capability.NET_BIND_SERVICE] if 0 < port < _UNPRIVILEGED else []
        print_strangers(seen.confine(kept=kept, in_other_thread=ending.in_watcher))
        ending.running()
        followed = CaptureSource(seen, lock, "live")
        with _served(address, port, followed.now, f"{kernel.snapshot.release}, as it runs"):
            while not ending.wait(seen.pause):
                with lock:
                    seen.drain()
            ending.noticed()


@contextmanager
def _served(address: str, port: int, now: "Callable[[], RecordingState]", what: str) -> Iterator[None]:
    """Serve requests in other threads."""
    from prometheus_client import CollectorRegistry, make_wsgi_app

    from kalloctrace.report.metrics.prometheus import RecordingCollector
    from kalloctrace.report.metrics.server import MetricsServer, listen

    registry = CollectorRegistry()
    registry.register(RecordingCollector(now))
    try:
        listening = listen(address, port)
    except OSError as error:
        raise KalloctraceError(
            f"cannot listen on {address}, port {port}",
            error.strerror or str(error),
            "choose another --address or --port",
        ) from error
    with MetricsServer(make_wsgi_app(registry), listening):
        stderr().line(f"serving http://{address}:{listening.getsockname()[1]}/metrics of {what}; Ctrl-C stops it")
        yield
