# SPDX-License-Identifier: MIT
"""The `serve-metrics` command."""

import signal
from pathlib import Path

import click

from kalloctrace.errors import Exit, KalloctraceError

_PORT = 9913


@click.command()
@click.option("--address", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=_PORT,
    show_default=True,
    help="Which port; 0 takes a free one.",
)
@click.argument("trace", metavar="TRACE", type=click.Path(path_type=Path))
def command(address: str, port: int, trace: Path) -> int:
    """Serve a recording's numbers to Prometheus, also while it goes on.

    What was allocated, what failed or took the slow path, the model's verdicts, and what is lost. A trace that grows is
    read again; what it does not tell yet is no metric. Anyone who reaches the address can read them: by default that is
    this machine alone. A dashboard for Grafana is in contrib/grafana. Ctrl-C ends it.

    \b
    Examples:
      kalloctrace serve-metrics my.arrows
      kalloctrace record -o my.arrows & kalloctrace serve-metrics my.arrows
      curl http://127.0.0.1:9913/metrics
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
    except ModuleNotFoundError as error:
        raise KalloctraceError(
            "cannot serve metrics", "prometheus-client is not installed", "pip install 'kalloctrace[metrics]'"
        ) from error
    from kalloctrace.report.followed import FollowedTrace
    from kalloctrace.report.metrics import RecordingCollector

    followed = FollowedTrace(trace)
    followed.now()
    registry = CollectorRegistry()
    registry.register(RecordingCollector(followed.now))
    # Before the server's threads begin, which would take them otherwise.
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise KalloctraceError(
            f"cannot listen on {address}, port {port}",
            error.strerror or str(error),
            "choose another --address or --port",
        ) from error
    click.echo(f"serving http://{address}:{server.server_port}/metrics of {trace}; Ctrl-C ends it", err=True)
    signal.sigwait(signals)
    server.shutdown()
    thread.join()
    return Exit.OK
