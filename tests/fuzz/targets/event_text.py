# SPDX-License-Identifier: MIT
"""`import`: the text of events that another tool recorded.

An input that begins with a zero byte is choices that assemble lines of the tools; the others are the text itself.
"""

import io
from functools import partial

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.decode import parse_flags
from kalloctrace.trace.ftrace_import import event_rows, import_text
from kalloctrace.trace.ftrace_text import EventText
from tests.fuzz.choices import Choices
from tests.fuzz.surface import answers, surface

_MASK = partial(parse_flags, tables=builtin_tables("6.1"))
_U64_MAX = (1 << 64) - 1
_WORDS = (
    *("kmem:mm_page_alloc: ", "page=", "pfn=0x1", "order=", "migratetype=", "gfp_flags=GFP_KERNEL|__GFP_ZERO"),
    *("[000] ", "1.000001: ", " (-------) ", "# tracer: nop", "# entries-in-buffer/entries-written: 1/2", "\n"),
    *("CPU:0 [LOST 7 EVENTS]", "CPU:0 [7 EVENTS DROPPED]", "PERF_RECORD_LOST lost 3", "Linux host 6.1.0 x86_64"),
    *("# os release : 6.1.0", "\tffffffff81200000 __alloc_pages+0x10 ([kernel.kallsyms])", "18446744073709551615"),
)
_NUMBERS = (
    "0",
    "1",
    "7",
    "0x3",
    "2147483647",
    "2147483648",
    "-1",
    "18446744073709551615",
    "9" * 21,
    "0x",
    "",
    "\u0664",
)
_MASKS = (
    *("GFP_KERNEL|__GFP_ZERO", "GFP_HIGHUSER_MOVABLE", "0xcc0", "none", "3264", "0x400", "__GFP_NOT", "gfp_kernel"),
    *("__GFP_BITS_MASK", "0x1ffffffff", "|", "GFP_KERNEL|0x80000000", "GFP_ATOMIC|", "9" * 5000),
)
_NAMES = ("sh", "a b", "kworker/0:1", "<...>", "x-1", "\x1b[31m", "name of sixteen!", "[000]")
_PLAIN = (
    *("# tracer: nop", "# os release : 6.1.0", "Linux host 6.1.0-49-amd64 x86_64", "Linux host 999.1 x86_64", ""),
    *("# entries-in-buffer/entries-written: {}/{}   #P:2", "CPU:0 [LOST {} EVENTS]", "CPU:1 [{} EVENTS DROPPED]"),
    *("x 1 [000] 1.0: PERF_RECORD_LOST lost {}", "PERF_RECORD_LOST_SAMPLES lost {}", "cpus=2", "mm_page_alloc:"),
    *("\tffffffff8162184b __alloc_pages+0x26b ([kernel.kallsyms])", "\t  7f0000001000 main+0x1 (/bin/sh)"),
    *("\tffffffff8162184b a (b) ([kernel.kallsyms])", "\tffffffff8162184b [unknown] (", "        cafe4a11 f (g)"),
)
_EVENTS = (
    "{comm:>16} {number} [{cpu}] {time}: kmem:mm_page_alloc: {fields}",
    "{comm:>16} {number}/{number} [{cpu}] d.h. {time}:          1 kmem:mm_page_alloc: {fields}",
    "{comm:>16}-{number}   [{cpu}] ..... {time}: mm_page_alloc: {fields}",
    "{comm:>16}-{number}   (-------) [{cpu}] .N.1 {time}: mm_page_alloc: {fields}",
    "kt: {comm:>16}-{number} ({number}) [{cpu}] {time}: kmem:mm_page_alloc: {fields}",
)


def _text(choices: Choices) -> str:
    """Return a text of up to ten lines."""
    return "".join(_line(choices) + choices.of(("\n", "\n", "\n", "\r\n", "\0")) for _ in range(1 + choices.below(10)))


def _line(choices: Choices) -> str:
    if choices.below(2):
        return choices.of(_PLAIN).format(_number(choices), _number(choices))
    fields = [("page", "0x3cdd31"), ("pfn", _number(choices)), ("order", _number(choices))]
    fields += [("migratetype", _number(choices)), ("gfp_flags", choices.of(_MASKS) if choices.below(2) else _MASKS[0])]
    if choices.below(8) == 1:
        del fields[choices.below(len(fields))]
    line = choices.of(_EVENTS).format(
        comm=choices.of(_NAMES),
        number=_number(choices),
        cpu=_number(choices),
        time=choices.of(("1.000001", "15028.548044", "0.0", "12345", "9" * 20, "9" * 20 + ".1", "1." + "1" * 20, "1.")),
        fields=" ".join(f"{name}={value}" for name, value in fields),
    )
    return line[: choices.below(len(line))] if choices.below(16) == 1 else line


def _number(choices: Choices) -> str:
    """Return a number that fits most fields, or sometimes none."""
    return choices.of(_NUMBERS) if choices.below(4) == 1 else _NUMBERS[1]


@surface(max_len=1024, covers=("trace/ftrace_text.py", "trace/ftrace_import.py", "flags/decode.py"), words=_WORDS)
def fuzz_event_text(data: bytes) -> None:
    """Every text becomes rows, or is refused."""
    choices = Choices(data[1:])
    content = _text(choices) if data.startswith(b"\0") else data.decode("utf-8", errors="replace")
    lines = content.splitlines(keepends=True)
    with answers():
        text = EventText(lines)
        events = list(text.events())
        assert 0 <= text.lost <= _U64_MAX
        event_rows(events, _MASK).validate(full=True)
    # A whole import takes long, because it writes a trace.
    if choices.below(32) == 1:
        with answers():
            totals = import_text(EventText(lines), io.BytesIO(), None, name="text").totals
            assert totals.submitted == len(events)
