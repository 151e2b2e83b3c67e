# SPDX-License-Identifier: MIT
"""`explain LOG`: a kernel log is read, and its reports are explained."""

import io
import json
import zlib
from collections.abc import Iterator

from kalloctrace.diagnose.from_log import explain_failure
from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.diagnose.reports.pairing import find_failures
from kalloctrace.diagnose.to_json import failure_json
from kalloctrace.logs.files import LogLines
from kalloctrace.logs.messages import read_messages
from tests.failure_text import failure_text
from tests.fuzz.surface import surface

_WORDS = (
    *(": page allocation failure: order:", ", mode:0x", "(GFP_KERNEL|__GFP_COMP)", ", nodemask=(null)"),
    *(",cpuset=/,mems_allowed=0-1", ": page allocation stalls for ", "ms, order:", " invoked oom-killer: gfp_mask="),
    *("oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0", "Memory cgroup out of memory"),
    *("memory: usage 1kB, limit 1kB", "Node 0 Normal free:", "kB min:", "kB low:", "kB high:", "lowmem_reserve[]: 0 0"),
    *("Node 0 DMA32: 1*4kB (U) 2*8kB (UME) = 20kB", "CPU: 1 PID: 7 Comm: x Not tainted 6.1.0-49-amd64 #1 Debian "),
    *("<4>[    1.000000] ", "Jan  9 01:21:31 host kernel: ", "2026-04-17T19:55:54+02:00 ", "> ", "\r\n", "HighMem"),
    *(
        "4,1,5,-,caller=T7;",
        "4,1,5,-,ncfrag=0/9;",
        '{"log": "',
        '"MESSAGE" : "',
        "MESSAGE=",
        "__CURSOR=",
        "\\n",
        "#012",
    ),
    *("2026-01-01T00:00:00.0Z stderr P ", "&lt;4&gt;", "<br>", "=3D", "=\n", "\x1b[31m", "[3: task:7] ", "c3 1108 "),
    *("host <kern.warning> kernel: ", "Mem-Info:", "invoked", "page", "\x1f\x8b", "\xff\xfe", "(\xb5/\xfd"),
)
_EXPLAINED: set[int] = set()
"""The reports that were explained, as hashes."""


@surface(
    max_len=2048,
    covers=("logs/*.py", "diagnose/reports/*.py", "flags/logforms.py", "flags/textsearch.py"),
    words=_WORDS,
)
def fuzz_log(data: bytes) -> None:
    """Every log can be read."""
    for _ in _reports(data):
        pass


@surface(
    max_len=2048,
    covers=("diagnose/*.py", "diagnose/answers/*.py"),
    words=_WORDS,
)
def fuzz_failure(data: bytes) -> None:
    """Every report has an answer."""
    # Most mutations leave a report as it was, and explaining it takes longer than reading it.
    new = {text: report for report in _reports(data) if (text := hash(repr(report))) not in _EXPLAINED}
    _EXPLAINED.update(new)
    failures = [explain_failure(report) for report in new.values()]
    for failure in failures:
        json.dumps(failure_json(failure))
    # The text for people takes most of the time, so it is written for some inputs only, always the same ones.
    if failures and zlib.crc32(data) % 8 == 0:
        failure_text(failures)


def _reports(data: bytes) -> Iterator[LoggedFailure]:
    return find_failures(read_messages(LogLines(io.BytesIO(data))))
