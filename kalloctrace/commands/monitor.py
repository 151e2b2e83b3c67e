# SPDX-License-Identifier: MIT
"""The `monitor` command."""

from pathlib import Path

import click

from kalloctrace.console import stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.text import file_name


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, readable=False),
    help="The configuration, in TOML.  [default: /etc/kalloctrace/monitor.toml, if it exists]",
)
@click.option("--check-config", is_flag=True, help="Say whether the configuration is valid, and end.")
def command(config: Path | None, check_config: bool) -> int:
    """Record for months, as a service: counts and the slow path, written as segments within bounds.

    Each segment is a complete trace, closed by age or size; the oldest are removed by total size, age or free space.
    The recording is detached when it takes too much CPU time or memory, and attached again later. SIGHUP reads the
    configuration again, SIGTERM ends it. contrib/systemd has a unit for systemd, and a configuration with all
    settings.

    \b
    Examples:
      kalloctrace monitor --check-config --config monitor.toml
      kalloctrace monitor --config monitor.toml
      kalloctrace verify /var/lib/kalloctrace/segment-*.arrows
    """
    from kalloctrace.monitor.config import DEFAULT_PATH, load

    if check_config:
        wanted, text = load(config)
        _require_metrics(wanted.listen)
        name = file_name(config or DEFAULT_PATH)
        stdout().line(
            f"{name} is valid" if text or config is not None else f"{name} does not exist; the defaults are used"
        )
        return Exit.OK
    from kalloctrace.monitor.service import Service

    _require_metrics(load(config)[0].listen)
    return Service(config).run()


def _require_metrics(listen: str) -> None:
    """Refuse to serve metrics without the package for it."""
    from importlib.util import find_spec

    if listen and find_spec("prometheus_client") is None:
        raise KalloctraceError(
            "cannot serve metrics", "prometheus-client is not installed", "pip install 'kalloctrace[metrics]'"
        )
