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
    r"|Tasks state \(memory values|SL[AU]B: Unable to allocate memory on |cache: \S+, object size: "
    r"|node \d{1,5}: slabs: \d|cma: \w*cma_alloc: |HugeTLB: allocating \d"
)
"""What stands at the beginning of a message only, and in no task's name."""

_CERTAIN_START = (
    r"(?:Mem-[Ii]nfo:|lowmem_reserve\[\]|protections?\[\]|Call [Tt]race:|Hardware name:|Linux version|Node -?\d{1,5} "
    rf"|{_ZONE}(?: free:|: ?\d|:$|: per-cpu)|CPU: \d|CPU +\d{{1,5}}:|Pid: \d|Tasks state|Swap |Free swap|Total swap"
    r"|\[ *pid *\] |\[ *\d{1,10} *\](?: +\d{1,10}){3}|oom-kill:|oom_reaper:|Out of memory|Killed process"
    r"|Memory cgroup|Memory limit|(?:memory|memory\+swap|swap|kmem): usage|Task in /|Modules linked in|Workqueue:"
    rf"|Tainted: \[|R[A-Z0-9]{{2}}:|RIP|RSP|Code:|{_TOTAL}"
    r"|\d{1,15} (?:total |pages|reserved|slab|free |swap(?!per))|<?/?(?:IRQ|TASK|NMI|EOI|SOFTIRQ)>|\[<[0-9a-f]{8,16}>\]"
    r"|(?:\? )?[\w.]{1,128}\+0x[0-9a-f]{1,8}/0x|SLUB:|SLAB:|(?:WARNING|BUG|INFO): |-{3,}|Kernel panic"
    r"|Unreclaimable|Memory allocations:|cache: |node \d{1,5}: slabs|cma: |HugeTLB: |audit:)"
)
START = rf"(?:{_CERTAIN_START}|vmalloc(?!=)|\S{{1,64}} cpuset=)"
"""How a message begins that no line before it can continue."""

starts = re.compile(START).match
"""Whether a text begins as a message does."""
starts_certainly = re.compile(rf"\s*{_CERTAIN_START}").match
"""The same behind blanks, unless it may also be the name of a host or a file."""

HEADER = re.compile(
    r"(?P<comm>.{0,200}?)"
    r"(?:(?::? ?)page allocation (?:failure[.:] ?order:|stalls? for )| invoked oom-killer: ?gfp_mask=)"
)
"""The first line of a report."""

PHRASES = (
    *("pageallocationfailure", "pageallocationstall", "invokedoom-killer", "vmallocerror:size", "vmallocsize"),
    *("vmalloc:allocationfailure", "vmemmapallocfailure", "vmapallocationforsize", "vmalloc_node_rangeforsize"),
    *("allocationfailed:outofvmallocspace", "Outofmemory:Kill"),
)
"""Words of a report's first line, without spaces."""
LONGEST_PHRASE = max(map(len, PHRASES))
HEADLESS = re.compile(r":? ?page allocation (?:failure|stall)|invoked oom-killer|(?:oom-)?killer: ?gfp_mask")
"""A first line whose task's name is missing."""

_CUT_HEADER = re.compile(
    r"(?P<words>[a-z -]{2,22})[.:]"
    r"(?= ?order:(?P<order>\d{1,3}), ?mode:0x[0-9a-f]| ?gfp_mask=0x[0-9a-f]{1,16}.*, *order=-?\d)"
)
_CUT_WORDS = ("page allocation failure", "invoked oom-killer")
_ORDERS_OF_VMEMMAP = frozenset(("9", "11", "13"))
"""A huge page of pages of 4, 16 and 64 kB: what `vmemmap_alloc_block` asks for, mm/sparse-vmemmap.c."""


def with_beginning(text: str) -> str:
    """Return a report's first line with all of its words, if it begins within them.

    The log begins there, or another writer's text is in the line before.
    """
    match = _CUT_HEADER.match(text)
    if match is None:
        return text
    words = next((words for words in _CUT_WORDS if words.endswith(match["words"]) and words != match["words"]), None)
    if words is None or (words.endswith("killer") == (match["order"] is not None)):
        return text
    if "vmemmap alloc failure".endswith(match["words"]) and match["order"] in _ORDERS_OF_VMEMMAP:
        return text
    return words + text[match.end("words") :]


_HEADER_WORDS = ("page allocation", "invoked oom-killer", "vmemmap alloc failure")
_VMALLOC_WORDS = (
    *("vmalloc error", "vmalloc: ", "vmalloc size", "vmap allocation for size", "vmalloc_node_range for size"),
    "out of vmalloc space",
)
_NAMES = r"0x[0-9a-f]{1,16}(?:\([\w|]*\))?"


class Form(NamedTuple):
    """One kind of line.

    Attributes:
        begin: its beginning.
        complete: matches a complete line, which nothing continues; None if every word may be the last.
        word: a whole word of it.
        digits: a bare number is a word of it.
        named: matches a line that ends in a name, which may have more words than those of a complete line; None if
            it has no such end.
    """

    begin: re.Pattern[str]
    complete: re.Pattern[str] | None
    word: re.Pattern[str]
    digits: bool = False
    named: re.Pattern[str] | None = None

    def is_word(self, text: str) -> bool:
        """Return whether a text is a whole word of such a line."""
        return self.word.fullmatch(text) is not None or (self.digits and text.isdecimal())

    def is_complete(self, text: str) -> bool:
        """Return whether nothing can continue a text, unless it is the rest of a name."""
        return self.complete is not None and self.complete.fullmatch(text) is not None

    def is_named(self, text: str) -> bool:
        """Return whether a text ends in a name of several words."""
        return self.named is not None and self.named.fullmatch(text) is not None


def _form(begin: str, complete: str | None, word: str, *, digits: bool = False, named: str | None = None) -> Form:
    ends = None if complete is None else re.compile(complete)
    return Form(re.compile(begin), ends, re.compile(word), digits, None if named is None else re.compile(named))


FORMS: dict[str, Form] = {
    "zone": _form(
        rf"{_NODE_ZONE} free:|Node \d{{1,5}} active_anon:",
        r".*all_unreclaimable\? (?:yes|no)$",
        rf"{_FIELD}[kK]B|pages_scanned:\d+|all_unreclaimable\?|yes|no",
    ),
    "blocks": _form(rf"{_NODE_ZONE}:(?! per-cpu)", r".*= \d+kB$", r"\d+[*_]\d+kB|\([A-Z]*\)|=|\d+kB"),
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
    "vmalloc": _form(
        rf".{{0,200}}?(?:{'|'.join(_VMALLOC_WORDS)})",
        r".*(?:mems_allowed=[\d,-]*\d|to increase size\.?|restricted to 0x[0-9a-f]+ - 0x[0-9a-f]+)$",
        r"error:|allocation|failure[:,]|size\.?|align|0x[0-9a-f]+,?|\d+,|vm_struct|fail(?:ed|s)[:,.]?|to|alloc(?:ated?)?|pages?,?"
        r"|array|map|exceeds|total|order|of|bytes?,?|for|use|vmalloc=<size>|increase|Address|range|restricted|-|Retrying[.,]*"
        rf"|mode:(?:{_NAMES},?)?|nodemask=(?:\(null\)|[\d,-]*\d),?(?:cpuset=[^,\s]*,?(?:mems_allowed=[\d,-]*\d)?)?"
        r"|,?cpuset=[^,\s]*,?(?:mems_allowed=[\d,-]*\d)?|mems_allowed=[\d,-]*\d",
        digits=True,
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
        r"process|Kill(?:ed)?|\d+|\(.*\),?|\([^()]*|[^()]*\),?|(?:total-vm|[a-z]+-rss|pgtables):\d+kB,?|UID:\d+,?|oom_score_adj:-?\d+|score|or|"
        r"sacrifice|child|killed|as|result|of|limit|/\S*",
        digits=True,
    ),
    "summary": _form(
        r"oom-kill:", r".*,uid=\d+$", r"[a-z_]+=\S*|\S*(?:task_memcg|task|pid|uid|cpuset|mems_allowed)=\S*"
    ),
    "usage": _form(
        r"(?:memory|memory\+swap|swap|kmem): usage", r".*failcnt \d+$", r"usage|limit|failcnt|\d+kB,?", digits=True
    ),
    # The name has no more than 15 characters: TASK_COMM_LEN in include/linux/sched.h, less one.
    "task": _form(
        r"\[ *\d{1,10} *\] +\d",
        r".* [^\s\d-]\S*$",
        r"-?\d+|[^\s=]{1,15}",
        digits=True,
        named=r"\[ *\d{1,10} *\](?: +-?\d{1,20}){6,}+ (?=[^\s\d-]).{3,15}",
    ),
    "cpuset": _form(r".{1,64}? cpuset=", r".*mems_allowed=[\d,-]*\d$", r"cpuset=\S+|/\S*|mems_allowed=[\d,-]*\d"),
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
    "frame": _form(
        r"(?:\[<[0-9a-f]{8,16}>\] )?(?:\? )?[\w.]{1,128}\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+)?$",
        None,
        r"\[\w+\]?|[0-9a-f]{16,64}\]",
    ),
    "cma": _form(
        r"cma: (?:\w*cma_alloc: |number of available)",
        r".*(?:ret: -?\d+|total pages)$",
        r"alloc|failed,|req-size:|pages[,:]?|ret:|-\d+|[\w,.-]+:|number|of|available|free|total|\d+@\d+\S*",
        digits=True,
    ),
    "hugetlb": _form(
        r"HugeTLB: allocating ",
        r".*Only allocated \d+ hugepages\.?$",
        r"of|page|size|\d+\.\d+|[KMGT]i?B|failed\.?|node\d+\.|Only|allocated|hugepages\.?",
        digits=True,
    ),
    "slub": _form(
        r"SLUB: |SLAB: |cache: |node \d{1,5}: slabs: ",
        None,
        r"\(gfp=\S*|gfp=\S*|\w+:|\d+,?|node|on|memory|allocate|object|buffer|default|min|size:|order:",
    ),
}
"""The kinds of lines that are long enough to be wrapped, or that the kernel prints word by word."""

PARTIAL = re.compile(
    rf"Node(?: \d{{1,5}}(?: \w{{0,16}}(?::| \w{{0,4}})?)?)?|\[ *\d{{0,10}} *\]?(?: *\d{{1,10}})?"
    rf"|{_ZONE}(?: f?r?e?)?|CPU|Pi?d?|Mem-?(?:In?f?o?)?|low[a-z_]{{0,11}}\[?\]?"
)
"""A beginning that is too short to tell what follows, in every log."""


_ANYWHERE = ("header", "vmalloc", "cpuset")
"""A task's name or a prefix may stand before these."""
_BEGINS = re.compile(
    "|".join(f"(?P<{name}>{form.begin.pattern})" for name, form in FORMS.items() if name not in _ANYWHERE)
)


def form_of(text: str) -> Form | None:
    """Return the kind of line that a text begins as."""
    match = _BEGINS.match(text)
    if match is not None:
        return FORMS[match.lastgroup or ""]
    if any(map(text.__contains__, _HEADER_WORDS)):
        return FORMS["header"]
    if "vm" in text and any(map(text.__contains__, _VMALLOC_WORDS)):
        return FORMS["vmalloc"]
    return FORMS["cpuset"] if " cpuset=" in text and FORMS["cpuset"].begin.match(text) is not None else None


def may_be_header(text: str) -> bool:
    """Return whether a text may match `HEADER`; this is quick."""
    return "page allocation" in text or "oom-killer" in text
