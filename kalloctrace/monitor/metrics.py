# SPDX-License-Identifier: MIT
"""Metrics of the service itself: its attachment, its cost, and its segments."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kalloctrace.monitor.state import ServiceState


class ServiceCollector(Collector):
    """Builds the metrics of the service for each scrape.

    Args:
        now: returns its present state.
    """

    def __init__(self, now: Callable[[], ServiceState]) -> None:
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Return nothing, like the collector of a recording."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        state = self._now()
        cost, (cpu, memory) = state.cost, state.bounds
        yield _gauge("attached", "1 while something is attached to the kernel.", int(state.attached))
        yield _counter("attachments", "Recordings attached since the service started.", state.starts)
        yield _counters("detachments", "Recordings detached, by reason.", "reason", state.detached)
        spent = {"programs": cost.programs, "recorder": cost.recorder}
        about = "CPU seconds of this recording: the programs by a known cost for each call, and the recorder itself."
        yield _counters("cpu_seconds", about, "part", spent)
        if cost.share is not None:
            yield _gauge("cpu_percent", "Percent of all processors that the recording takes.", cost.share)
        yield _gauge("cpu_percent_limit", "Above this percentage the recording is detached.", cpu)
        yield _gauge("memory_bytes", "Resident memory of the recorder.", cost.memory)
        yield _gauge("memory_limit_bytes", "Above this the recording is detached.", memory)
        yield _gauge("segments", "Segments that are kept.", state.segments)
        yield _gauge("segment_bytes", "Their size.", state.segment_bytes)
        yield _counters("segments_removed", "Segments removed, by reason.", "reason", state.removed)
        yield _counter("dropped", "Calls that are in no segment, as the disk was full.", state.dropped)
        yield _gauge("waiting_bytes", "What waits for room on the disk.", state.waiting)


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"kalloctrace_monitor_{name}", about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(f"kalloctrace_monitor_{name}", about, value=value)


def _counters(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"kalloctrace_monitor_{name}", about, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
