# SPDX-License-Identifier: MIT
"""`import`: the text of events that another tool recorded."""

from functools import partial

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.decode import parse_flags
from kalloctrace.trace.ftrace_import import event_rows
from kalloctrace.trace.ftrace_text import EventText
from tests.fuzz.surface import answers, surface

_MASK = partial(parse_flags, tables=builtin_tables("6.1"))
_U64_MAX = (1 << 64) - 1
_WORDS = (
    *("kmem:mm_page_alloc: ", "page=", "pfn=0x1", "order=", "migratetype=", "gfp_flags=GFP_KERNEL|__GFP_ZERO"),
    *("[000] ", "1.000001: ", " (-------) ", "# tracer: nop", "# entries-in-buffer/entries-written: 1/2", "\n"),
    *("CPU:0 [LOST 7 EVENTS]", "CPU:0 [7 EVENTS DROPPED]", "PERF_RECORD_LOST lost 3", "Linux host 6.1.0 x86_64"),
    *("# os release : 6.1.0", "\tffffffff81200000 __alloc_pages+0x10 ([kernel.kallsyms])", "18446744073709551615"),
)


@surface(max_len=1024, covers=("trace/ftrace_text.py", "trace/ftrace_import.py", "flags/decode.py"), words=_WORDS)
def fuzz_event_text(data: bytes) -> None:
    """Every text becomes rows, or is refused."""
    with answers():
        text = EventText(line.decode("utf-8", errors="replace") for line in data.splitlines(keepends=True))
        events = list(text.events())
        event_rows(events, _MASK).validate(full=True)
        assert 0 <= text.lost <= _U64_MAX
