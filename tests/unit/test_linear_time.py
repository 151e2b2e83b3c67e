# SPDX-License-Identifier: MIT
"""Readers of foreign text take time in proportion to it: four times the text, four times the time.

Each text was made to take quadratic time, by one expression or loop of a reader.
"""

import time
from collections.abc import Callable

import pytest

from tests.fuzz.surface import all_surfaces

SURFACES = all_surfaces()
BYTES = 16_000
_ROUNDS = 6
"""How often both are run before a reader is called too slow; a surface may do some of its work only once."""
FAILURE = "<4>x: page allocation failure: order:1, mode:0x20\n"
EVENT = "a-1 [000] 1.0: kmem:mm_page_alloc: "
FIELDS = "page=0 pfn=1 order=0 migratetype=0 gfp_flags=0"
TEXTS: dict[str, tuple[str, str, str]] = {
    "a word that is no field of a zone": ("log", FAILURE + "<4>Node 0 DMA free:1kB ", "a"),
    "OOM killers without an order": ("log", "", "x invoked oom-killer: gfp_mask="),
    "cpusets without nodes": ("log", FAILURE + "<4>", "cpuset="),
    "lines without a prefix behind a failure": ("log", FAILURE, "some other line of a log\n"),
    "anchors of prefixes": ("log", "[ 1.0] gfp\n", "x{} Mem-Info: \n"),
    "first lines cut between their words": ("log", FAILURE, "page allocation\n"),
    "pieces of a long line in a container": ("log", "gfp\n", "2026-01-01T00:00:00.000Z stderr P a\n"),
    "continuations of a message": ("log", "4,1,2,c;gfp\n", "4,1,2,+;a\n"),
    "fragments of a message": ("log", "4,1,2,-,ncfrag=0/9;gfp\n", "4,1,2,-,ncfrag=1/9;a\n"),
    "strings that do not end": ("log", 'gfp {"log": "', '\\"'),
    "objects within objects": ("log", "gfp\n", '{"a":'),
    "escaped newlines": ("log", "gfp", "\\n[ 1.0] a"),
    "soft line breaks of mail": ("log", "gfp=3D\n", "a=\n"),
    "marks of quotes": ("log", "gfp\n", "> "),
    "tokens of a prefix": ("log", "gfp\n", "[1.0] <4>Jan 1 12:34:56 "),
    "names of hosts": ("log", "gfp kernel\n", "a.b-c "),
    "zones without end": ("log", FAILURE, "<4>Node {} DMA free:1kB min:1kB low:1kB high:1kB\n"),
    "a word that is no field of an event": ("event_text", EVENT, "a"),
    "brackets in a frame": ("event_text", f"{EVENT}{FIELDS}\n ffffffff81000000 f", " ("),
    "losses that are none": ("event_text", "", "PERF_RECORD_LOST"),
    "a release without an end": ("event_text", "Linux host 6.1", "1"),
    "a task line without a release": ("masks", "CPU: 1 PID: 1 Comm: a Tainted:", " "),
    "masks without an end": ("masks", "gfp_flags=GFP_KERNEL", "|GFP_KERNEL"),
    "tables without an end": ("format", "", "__print_flags(gfp_flags"),
    "spaces in a table": ("format", '__print_flags(gfp_flags, "|", {1, "A"}', " "),
    "a sum": ("gfp", "1", "+1"),
    "a word that is close to no name": ("gfp", "", "GFP_"),
}


def _cpu(run: Callable[[bytes], None], data: bytes) -> float:
    """Return the CPU time of one run, in seconds."""
    begin = time.process_time()
    run(data)
    return time.process_time() - begin


@pytest.mark.parametrize("what", TEXTS)
def test_time_grows_with_the_text(what: str) -> None:
    """Four times the text takes at most eight times as long (a quadratic reader takes 16 times), or next to nothing."""
    name, head, repeated = TEXTS[what]
    short, long = (
        (head + "".join(repeated.replace("{}", str(i)) for i in range(size // len(repeated)))).encode()
        for size in (BYTES, 4 * BYTES)
    )
    run = SURFACES[name].run
    # A busy machine makes a run slower, never faster: the least of each is what the reader takes.
    least_short = least_long = float("inf")
    for _ in range(_ROUNDS):
        least_short = min(least_short, _cpu(run, short))
        least_long = min(least_long, _cpu(run, long))
        if least_long < max(8 * least_short, 0.02):
            return
    pytest.fail(f"{least_short:.3f} s for {BYTES:,} bytes, {least_long:.3f} s for {4 * BYTES:,}")
