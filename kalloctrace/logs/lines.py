# SPDX-License-Identifier: MIT
"""The lines of the kernel's memory reports: how each begins, when it is complete, and what may continue it.

The forms are those of mm/page_alloc.c, mm/show_mem.c, mm/oom_kill.c, mm/memcontrol.c, mm/slub.c, mm/vmalloc.c and
lib/dump_stack.c of linux 2.6.32 to 7.3.
"""

import re
from typing import NamedTuple

_ZONE = r"(?:DMA32|DMA|Normal|HighMem|Movable|Device)"
_NODE_ZONE = rf"(?:Node \d{{1,5}} )?{_ZONE}"
_TOTAL = (
    r"(?:active_anon|active_file|Active|unevictable|slab_reclaimable|mapped|free|kernel_misc_reclaimable|sec_pagetables):"
    r"\d{1,15}(?: |$)"
)
_FIELD = r"[a-z_]{1,32}(?:\([a-z_]{1,16}\))?:\d{1,15}"

ANCHOR = re.compile(
    r"Mem-[Ii]nfo:|lowmem_reserve\[\]:|protections?\[\]:|Call [Tt]race:|Hardware name: |Linux version \d"
    rf"|{_NODE_ZONE}(?: free:|: \d{{1,15}}[*_]\d)|Node \d{{1,5}} (?:active_anon:|hugepages_total=)"
    r"|CPU: \d{1,5} (?:UID: \d{1,10} )?PID: \d{1,10} Comm: |Pid: \d{1,10}, comm: "
    r"|active_anon:\d{1,15} inactive_anon:|active_file:\d{1,15} inactive_file:|Swap cache stats: "
    r"|(?:Free|Total) swap +=|\d{1,15} (?:total pagecache pages|pages in swap cache|pages RAM|pages reserved)"
    r"|oom-kill:constraint=|Out of memory: Kill|Memory cgroup out of memory: Kill|\[ *pid *\]"
    r"|Tasks state \(memory values"
)
"""What stands at the beginning of a message only, and in no task's name."""

START = (
    r"(?:Mem-[Ii]nfo:|lowmem_reserve\[\]|protections?\[\]|Call [Tt]race:|Hardware name:|Linux version|Node -?\d{1,5} "
    rf"|{_ZONE}(?: free:|: ?\d|:$|: per-cpu)|CPU: \d|CPU +\d{{1,5}}:|Pid: \d|Tasks state|Swap |Free swap|Total swap"
    r"|\[ *pid *\] |\[ *\d{1,10} *\](?: +\d{1,10}){3}|oom-kill:|oom_reaper:|Out of memory|Killed process"
    r"|Memory cgroup|Memory limit|(?:memory|memory\+swap|swap|kmem): usage|Task in /|Modules linked in|Workqueue:"
    rf"|R[A-Z0-9]{{2}}:|RIP|RSP|Code:|{_TOTAL}"
    r"|\d{1,15} (?:total |pages|reserved|slab|free |swap)|<?/?(?:IRQ|TASK|NMI|EOI|SOFTIRQ)>|\[<[0-9a-f]{8,16}>\]"
    r"|(?:\? )?[\w.]{1,128}\+0x[0-9a-f]{1,8}/0x|SLUB:|SLAB:|vmalloc|(?:WARNING|BUG|INFO): |-{3,}|Kernel panic"
    r"|Unreclaimable|Memory allocations:|cache: |node \d{1,5}: slabs|cma: |audit:|\S{1,64} cpuset=)"
)
"""How a message begins that no line before it can continue."""

HEADER = re.compile(
    r"(?P<comm>.{0,200}?)"
    r"(?:(?::? ?)page allocation (?:failure[.:] ?order:|stalls? for )| invoked oom-killer: ?gfp_mask=)"
)
"""The first line of a report."""

PHRASES = ("pageallocationfailure", "pageallocationstall", "invokedoom-killer", "vmallocationfailure", "vmallocerror")
"""Words of a report's first line, without spaces."""
LONGEST_PHRASE = max(map(len, PHRASES))
HEADLESS = re.compile(r":? ?page allocation (?:failure|stall)|invoked oom-killer|(?:oom-)?killer: ?gfp_mask")
"""A first line whose task's name is missing."""

_HEADER_WORDS = ("page allocation", "invoked oom-killer", "vmemmap alloc failure", "vmalloc error", "vmalloc: ")
_NAMES = r"0x[0-9a-f]{1,16}(?:\([\w|]*\))?"


class Form(NamedTuple):
    """One kind of line.

    Attributes:
        begin: its beginning.
        complete: matches a complete line, which nothing continues; None if every word may be the last.
        word: a whole word of it.
        digits: a bare number is a word of it.
    """

    begin: re.Pattern[str]
    complete: re.Pattern[str] | None
    word: re.Pattern[str]
    digits: bool = False

    def is_word(self, text: str) -> bool:
        """Return whether a text is a whole word of such a line."""
        return self.word.fullmatch(text) is not None or (self.digits and text.isdecimal())

    def is_complete(self, text: str) -> bool:
        """Return whether nothing can continue a text."""
        return self.complete is not None and self.complete.fullmatch(text) is not None


def _form(begin: str, complete: str | None, word: str, *, digits: bool = False) -> Form:
    ends = None if complete is None else re.compile(complete)
    return Form(re.compile(begin), ends, re.compile(word), digits)


FORMS: dict[str, Form] = {
    "zone": _form(
        rf"{_NODE_ZONE} free:|Node \d{{1,5}} active_anon:",
        r".*all_unreclaimable\? (?:yes|no)$",
        rf"{_FIELD}[kK]B|pages_scanned:\d+|all_unreclaimable\?|yes|no",
    ),
    "blocks": _form(rf"{_NODE_ZONE}:(?! per-cpu)", r".*= \d+kB$", r"\d+[*_]\d+kB|\([A-Z]+\)|=|\d+kB"),
    "reserve": _form(r"lowmem_reserve\[\]:|protections?\[\]:", None, r"\d+", digits=True),
    "totals": _form(
        _TOTAL,
        None,
        _FIELD,
    ),
    "header": _form(
        rf".{{0,200}}?(?:{'|'.join(_HEADER_WORDS)})",
        r".*(?:mems_allowed=[\d,-]*\d$|oom_(?:score_)?adj=-?\d+$|oomkilladj=-?\d+$)",
        r"page|allocation|failure[.:]|stalls?|for|\d+ms,|invoked|oom-killer:|order:\d+,|order=-?\d+,?|order:|mode:|"
        rf"(?:mode:|gfp_mask=){_NAMES},?|oom_(?:score_)?adj=-?\d+,?|oomkilladj=-?\d+|size|bytes,|"
        r"nodemask=(?:\(null\)|[\d,-]*\d),?(?:cpuset=[^,\s]*,?(?:mems_allowed=[\d,-]*\d)?)?|"
        r",?cpuset=[^,\s]*,?(?:mems_allowed=[\d,-]*\d)?|mems_allowed=[\d,-]*\d",
    ),
    "cpu": _form(
        r"CPU:|Pid:",
        None,
        r"CPU:|U?ID:|PID:|Pid:|[Cc]omm:|Kdump:|loaded|Not|tainted|Tainted:|[A-Z]|\[[A-Z]\]=\w+,?|\d+\.\d+\S*|#\d+(?:[~.+-][\w~.+-]*)?|Debian|SMP|PREEMPT\w*",
        digits=True,
    ),
    "kill": _form(
        r"(?:Memory cgroup o|O)ut of memory|Killed process|Task in /",
        r".*(?:oom_score_adj:-?\d+|sacrifice child|as a result of limit of \S+)$",
        r"process|Kill(?:ed)?|\d+|\(.*\),?|(?:total-vm|[a-z]+-rss|pgtables):\d+kB,?|UID:\d+,?|oom_score_adj:-?\d+|score|or|"
        r"sacrifice|child|killed|as|result|of|limit|/\S*",
        digits=True,
    ),
    "summary": _form(
        r"oom-kill:", r".*,uid=\d+$", r"[a-z_]+=\S*|\S*(?:task_memcg|task|pid|uid|cpuset|mems_allowed)=\S*"
    ),
    "usage": _form(
        r"(?:memory|memory\+swap|swap|kmem): usage", r".*failcnt \d+$", r"usage|limit|failcnt|\d+kB,?", digits=True
    ),
    "task": _form(r"\[ *\d{1,10} *\] +\d", r".* [^\s\d-]\S*$", r"-?\d+|[^\s=]{1,15}", digits=True),
    "cpuset": _form(r"\S{1,64} cpuset=", r".*mems_allowed=[\d,-]*\d$", r"cpuset=\S+|/\S*|mems_allowed=[\d,-]*\d"),
    "machine": _form(
        r"Hardware name:", r".*(?:\d\d/\d\d/\d{4}|\(.* Tree\))$", r"BIOS|\d[\w.]*|\d\d/\d\d/\d{4}|\(?Device|Tree\)"
    ),
    "tasks": _form(r"Tasks state", r".*:$", r"state|\(memory|values|in|pages\):"),
    "heading": _form(r"\[ *pid *\]", r".* name$", r"[a-z_]{2,16}"),
    "pages": _form(
        r"\d{1,15} (?:total|pages)(?: |$)",
        r".*(?:pagecache pages|swap cache|pagetable cache|RAM|HighMem|HighMem/MovableOnly|reserved|hwpoisoned|shared)$",
        r"pages|pagecache|in|swap|cache|RAM|[Hh]igh[Mm]em\S*|cma|reserved|hwpoisoned|pagetable|non-shared|shared",
    ),
    "swap": _form(r"(?:Free|Total) swap", r".*= *\d+kB$", r"swap|=|\d+kB"),
    "hugepages": _form(r"Node \d{1,5} hugepages_", r".*hugepages_size=\d+kB$", r"hugepages_[a-z]+=\d+(?:kB)?"),
    "frame": _form(r"(?:\[<[0-9a-f]{8,16}>\] )?(?:\? )?[\w.]{1,128}\+0x[0-9a-f]+/0x[0-9a-f]+$", None, r"\[\w+\]"),
    "slub": _form(r"SLUB: |SLAB: |cache: ", None, r"\(gfp=\S*|gfp=\S*|\w+:|\d+,?|node|on|memory|allocate|size:|order:"),
}
"""The kinds of lines that are long enough to be wrapped, or that the kernel prints word by word."""

PARTIAL = re.compile(
    rf"Node(?: \d{{1,5}}(?: \w{{0,16}}(?::| \w{{0,4}})?)?)?|\[ *\d{{0,10}} *\]?(?: *\d{{1,10}})?"
    rf"|{_ZONE}(?: f?r?e?)?|CPU|Pi?d?|Mem-?(?:In?f?o?)?|low[a-z_]{{0,11}}\[?\]?"
)
"""A beginning that is too short to tell what follows, in every log."""


_BEGINS = re.compile("|".join(f"(?P<{name}>{form.begin.pattern})" for name, form in FORMS.items() if name != "header"))


def form_of(text: str) -> Form | None:
    """Return the kind of line that a text begins as."""
    match = _BEGINS.match(text)
    if match is not None:
        return FORMS[match.lastgroup or ""]
    return FORMS["header"] if any(map(text.__contains__, _HEADER_WORDS)) else None


def may_be_header(text: str) -> bool:
    """Return whether a text may match `HEADER`; this is quick."""
    return "page allocation" in text or "oom-killer" in text
