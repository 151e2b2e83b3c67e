# SPDX-License-Identifier: MIT
"""The unit and the alert rules fit the program."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kalloctrace.monitor.metrics import ServiceCollector
from kalloctrace.monitor.recording import Cost
from kalloctrace.monitor.state import ServiceState
from kalloctrace.report.metrics import prometheus
from kalloctrace.trace.slow_split import PARTS, SlowSplit

CONTRIB = Path(__file__).parents[2] / "contrib"
RULES = CONTRIB / "prometheus" / "kalloctrace.rules.yml"
RULES_TESTS = RULES.with_name("kalloctrace.tests.yml")
UNIT = CONTRIB / "systemd" / "kalloctrace-monitor.service"
STATE = ServiceState(
    attached=True,
    starts=1,
    detached={"cpu": 1},
    cost=Cost(1.0, 1.0, 1.0, 1),
    bounds=(5.0, 1),
    segments=1,
    segment_bytes=1,
    removed={"age": 1},
    dropped=0,
    waiting=0,
)


def test_alerts_use_metrics_that_exist() -> None:
    """Those of the service, and those of a recording."""
    names = {sample.name for family in ServiceCollector(lambda: STATE).collect() for sample in family.samples}
    names |= {
        f"kalloctrace_{name}_total"
        for name in re.findall(r'_counter\(\s*"(\w+)"', Path(prometheus.__file__).read_text())
    }
    names |= {f"kalloctrace_{name}" for name in re.findall(r'_gauges?\("(\w+)"', Path(prometheus.__file__).read_text())}
    names |= {
        sample.name
        for family in prometheus.slow_times(SlowSplit(parts=dict.fromkeys(PARTS, 1)))
        for sample in family.samples
    }
    expressions = re.findall(r"^ +expr: (.+)$", RULES.read_text(), re.MULTILINE)
    used = {name for expression in expressions for name in re.findall(r"kalloctrace_\w+", expression)}
    assert len(expressions) == RULES.read_text().count("- alert:") > 5
    assert used <= names


@pytest.mark.parametrize("words", [["check", "rules", RULES], ["test", "rules", RULES_TESTS]], ids=["check", "test"])
@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's package prometheus is not installed")
def test_promtool_takes_the_rules(words: list[str | Path]) -> None:
    """Their syntax, and when those about stalls fire; `make setup` installs promtool."""
    done = subprocess.run(["promtool", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def exposure() -> tuple[float, set[str]]:
    """Return what systemd-analyze says about the unit: the exposure, and what it marks."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        check=False,
        capture_output=True,
        text=True,
    )
    overall = re.search(r"exposure level .*: (\d+\.\d+)", done.stdout)
    assert overall is not None, done.stderr
    return float(overall[1]), set(re.findall(r"^✗ ([A-Za-z]+)", done.stdout, re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_is_hardened() -> None:
    """And each mark that is left has its reason in a comment."""
    level, marks = exposure()
    assert level <= 2.5
    reasons = UNIT.read_text().partition("still marks, and why:")[2]
    for mark in marks:
        assert re.search(rf"^# - [^:]*\b{mark}\b", reasons, re.MULTILINE), mark
