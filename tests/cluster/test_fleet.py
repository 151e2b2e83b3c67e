# SPDX-License-Identifier: MIT
"""A fleet is asked by a Spark cluster: a standalone master and two workers on loopback (`make fleet-test`).

So it is by a server of Spark Connect, which has the cluster do the work.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kalloctrace.cli import main
from kalloctrace.fleet import verify
from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.frames import Engine
from tests.fleet_answers import Answers, answers, hold_equal, make_mixed_fleet, require_spark

pytestmark = [
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    pytest.mark.timeout(1800),
]
_PATIENCE = 300


@dataclass
class Cluster:
    """Processes of a cluster.

    Attributes:
        folder: of their logs.
        processes: by name; each leads a group, in which its executors are.
        url: of the master.
    """

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    url: str = ""

    def start(self, name: str, *words: str, wait: str) -> str:
        """Start a process of Spark's own, and return what its log has when it is ready."""
        return self.run(
            name, "spark-class", words[0], "--host", "127.0.0.1", "--webui-port", "0", *words[1:], wait=wait
        )

    def run(self, name: str, program: str, *words: str, wait: str) -> str:
        """Start a program of Spark, and return what its log has when it is ready."""
        import pyspark  # noqa: PLC0415 (it may be missing)

        log = self.folder / f"{name}.log"
        path = Path(pyspark.__file__).parent / "bin" / program
        with log.open("wb") as file:
            self.processes[name] = subprocess.Popen(
                [str(path), *words], stdout=file, stderr=file, start_new_session=True
            )
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self.processes[name].poll() is None:
            if found := re.search(wait, log.read_text(errors="replace")):
                return found[0]
            time.sleep(0.1)
        pytest.fail(f"{name} did not start: {log.read_text(errors='replace')[-2000:]}")

    def kill(self, name: str) -> None:
        """Kill a process with its executors."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait(_PATIENCE)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start a master and two workers."""
    require_spark()
    for name, value in (
        ("SPARK_LOCAL_IP", "127.0.0.1"),
        ("SPARK_DAEMON_MEMORY", "256m"),
        # Java that compiles less starts sooner.
        ("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1"),
    ):
        monkeypatch.setenv(name, value)
    started = Cluster(tmp_path)
    try:
        deploy = "org.apache.spark.deploy"
        started.url = started.start(
            "master", f"{deploy}.master.Master", "--port", "0", wait=r"spark://127\.0\.0\.1:[1-9]\d*"
        )
        for number in range(2):
            words = ("--cores", "1", "--memory", "1g", "--work-dir", str(tmp_path / f"work-{number}"), started.url)
            started.start(
                f"worker-{number}", f"{deploy}.worker.Worker", *words, wait="Successfully registered with master"
            )
        yield started
    finally:
        for name in started.processes:
            started.kill(name)


def killed_at_work(cluster: Cluster, name: str, asking: threading.Event) -> None:
    """Kill a worker as soon as both have tasks."""
    from pyspark import SparkContext  # noqa: PLC0415 (it may be missing)

    tracker = SparkContext.getOrCreate().statusTracker()
    while asking.is_set():
        stages = (tracker.getStageInfo(number) for number in tracker.getActiveStageIds())
        if any(stage is not None and stage.numActiveTasks >= 2 for stage in stages):
            cluster.kill(name)
            return
        time.sleep(0.01)


def judged_by_executors(path: Path, spark: Engine, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Let the executors judge a dataset, which leaves nothing to judge; return DuckDB's answers."""
    monkeypatch.setattr(verify, "MOST_HERE", 10)
    monkeypatch.setattr("kalloctrace.fleet.on_spark.TASKS", 4)
    with Dataset.opened(path) as opened:
        assert verify.judge_fleet(opened, spark) > 10
    with engine() as duckdb, Dataset.opened(path) as opened:
        assert verify.judge_fleet(opened, duckdb) == 0
        return answers(path, duckdb)


def test_a_cluster_answers_as_duckdb(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row; its executors judge; and a worker that is killed in mid-query changes nothing."""
    path = tmp_path / "fleet"
    make_mixed_fleet(path, tmp_path)
    with engine("spark", master=cluster.url, memory="1g") as spark:
        expected = judged_by_executors(path, spark, monkeypatch)
        assert expected["mismatches"]
        hold_equal(answers(path, spark), expected)
        hold_equal(asked_while_a_worker_dies(cluster, path, spark), expected)
    assert cluster.processes["worker-1"].poll() is not None
    assert cluster.processes["worker-0"].poll() is None


def test_spark_connect_answers_as_duckdb(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Row by row, and its executors judge; the program takes its address too."""
    # The server has it too, and its executors have this Python.
    monkeypatch.setenv("SPARK_DAEMON_MEMORY", "1g")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.executor.memory": "512m",
        "spark.ui.enabled": "false",
    }
    server = cluster.run(
        *("connect", "spark-submit", "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"),
        *("--master", cluster.url),
        *(word for name, value in settings.items() for word in ("--conf", f"{name}={value}")),
        "spark-internal",
        wait=r"Spark Connect server started at: (127\.0\.0\.1:\d+)",
    )
    master = f"sc://{server.rpartition(' ')[2]}"
    path = tmp_path / "fleet"
    make_mixed_fleet(path, tmp_path)
    with engine("spark", master=master) as spark:
        expected = judged_by_executors(path, spark, monkeypatch)
        hold_equal(answers(path, spark), expected)
    words = [sys.executable, "-m", "kalloctrace", "fleet", "report", "--json", str(path)]
    printed = [
        subprocess.run([*words, *more], check=True, capture_output=True, text=True)
        for more in ((), ("--engine", "spark", "--master", master))
    ]
    assert printed[0].stdout == printed[1].stdout != ""
    assert not printed[1].stderr
    cluster.kill("connect")
    assert main(["fleet", "report", "--engine", "spark", "--master", master, str(path)]) == 1
    assert capfd.readouterr().err.startswith("error: cannot reach Spark Connect\n")


def asked_while_a_worker_dies(cluster: Cluster, path: Path, spark: Engine) -> Answers:
    """Return the answers, during which a worker with tasks is killed."""
    asking = threading.Event()
    asking.set()
    killer = threading.Thread(target=killed_at_work, args=(cluster, "worker-1", asking))
    killer.start()
    try:
        return answers(path, spark)
    finally:
        asking.clear()
        killer.join()
