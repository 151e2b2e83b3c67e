# SPDX-License-Identifier: MIT
"""What a kernel prints about a state: its messages, line by line, as releases from 2.6.32 to 7.3 print them.

The formats are those of `warn_alloc` and `show_free_areas` in mm/page_alloc.c (since 6.5 mm/show_mem.c), `dump_header`
and `dump_tasks` in mm/oom_kill.c, `dump_stack_print_info` in kernel/printk/printk.c (lib/dump_stack.c), and `show_mem`
in lib/show_mem.c. What changed when, in the release that first has it:

- 3.1: "failure:" instead of "failure."; 3.8: types in the free lists; 3.10: `CPU: … PID: … Comm:` instead of `Pid:`;
- 4.2: `free_pcp`, and "free:" at the end of the totals; 4.6: the mask's names; 4.8: the counters of a node on a line of
  its own, `cpuset=` printed by `warn_alloc`; 4.11: `nodemask=`, and nodes outside it are left out;
- 4.20: one line each for the request and for the kill (`oom-kill:constraint=`); 5.3: `reserved_highatomic`;
- 5.18: `boost`; 6.8: `rss_anon rss_file rss_shmem`; 6.12: `UID:`; 6.16: `free_highatomic`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tests.logs.states import Process, State, Zone


class Message(NamedTuple):
    """One message of a kernel.

    Attributes:
        level: 3 is an error, 4 a warning, 6 information.
        parts: the text, as one printk and its continuations (`pr_cont`) print it; it may contain newlines.
    """

    level: int
    parts: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole message."""
        return "".join(self.parts)


Header = Literal["dot", "number", "names", "cpuset"]


@dataclass(frozen=True)
class Era:
    """What a release prints.

    Attributes:
        release: `uname -r`.
        version: of `uname -v`, what follows the release.
        zones: zones in lowmem_reserve.
        masks: the number and the text of each mask; None if only the number is printed.
        header: the form of the first line.
        types: the letters of free blocks in the order printed; "" if none are printed.
        pid: the form of the task's line: "old", "comm" or "uid".
        node_lines: whether a node's counters have a line of their own.
        fields: fields of a zone's line between "high" and "active_anon".
        filters: whether nodes outside the nodemask are left out.
    """

    release: str
    version: str
    zones: int
    masks: dict[tuple[str, ...], tuple[int, str | None]]
    header: Header
    types: str
    pid: Literal["old", "comm", "uid"]
    node_lines: bool
    fields: tuple[str, ...]
    filters: bool


_NORETRY = ("GFP_KERNEL", "__GFP_NORETRY", "__GFP_COMP")
_MOVABLE = ("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO")
_ATOMIC = ("GFP_ATOMIC",)
_OLD: dict[tuple[str, ...], tuple[int, str | None]] = {
    _NORETRY: (0x50D0, None),
    _MOVABLE: (0x280DA, None),
    _ATOMIC: (0x20, None),
}
_NEW: dict[tuple[str, ...], tuple[int, str | None]] = {
    _NORETRY: (0x50CC0, "GFP_KERNEL|__GFP_NORETRY|__GFP_COMP"),
    _MOVABLE: (0x100DCA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO"),
    _ATOMIC: (0x820, "GFP_ATOMIC"),
}

_RH, _FH = "reserved_highatomic", "free_highatomic"
_414: dict[tuple[str, ...], tuple[int, str | None]] = {
    _NORETRY: (0x14050C0, "GFP_KERNEL|__GFP_NORETRY|__GFP_COMP"),
    _MOVABLE: (0x14280CA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO"),
    _ATOMIC: (0x1080020, "GFP_ATOMIC"),
}
_510 = _NEW | {_ATOMIC: (0xA20, "GFP_ATOMIC")}

ERAS = {
    "2.6.32": Era("2.6.32-5-amd64", "#1", 4, _OLD, "dot", "", "old", node_lines=False, fields=(), filters=False),
    "3.10": Era(
        "3.10.0-1160.el7.x86_64", "#1", 4, _OLD, "number", "UEMRCI", "comm", node_lines=False, fields=(), filters=False
    ),
    "4.14": Era("4.14.336", "#1", 5, _414, "names", "UMEHCI", "comm", node_lines=True, fields=(), filters=True),
    "5.10": Era(
        "5.10.0-28-amd64",
        "#1 Debian 5.10.209-2",
        5,
        _510,
        "cpuset",
        "UMEHCI",
        "comm",
        node_lines=True,
        fields=(_RH,),
        filters=True,
    ),
    "6.12": Era("6.12.9", "#1", 5, _NEW, "cpuset", "UMEHCI", "uid", node_lines=True, fields=(_RH,), filters=True),
    "7.3": Era(
        "7.3.4+deb13-amd64",
        "#1 Debian 7.3.4-1~bpo13+1",
        5,
        _NEW,
        "cpuset",
        "UMEHCI",
        "uid",
        node_lines=True,
        fields=(_RH, _FH),
        filters=True,
    ),
}
"""By the release of the series."""

BOOST_SINCE = ("6.12", "7.3")
"""The eras whose zones have a boost, and whose tasks have parts of rss."""


def kernel_messages(state: State, release: str) -> list[Message]:
    """Return the messages of a failure or an OOM kill.

    Args:
        state: what is true.
        release: a key of ERAS.
    """
    return list(_Printer(state, ERAS[release], release)())


def shown_zones(state: State, release: str) -> list[Zone]:
    """Return the zones that a kernel prints."""
    if state.nodemask is None or not ERAS[release].filters:
        return list(state.zones)
    return [zone for zone in state.zones if str(zone.node) in state.nodemask.split(",")]


def _kb(pages: int) -> int:
    return 4 * pages


@dataclass(frozen=True)
class _Printer:
    state: State
    era: Era
    release: str

    def __call__(self) -> Iterator[Message]:
        state = self.state
        yield from self._header()
        yield from self._stack()
        yield Message(4, ("Mem-Info:",))
        yield from self._mem_info()
        if state.event == "oom":
            yield from self._tasks()
            yield from self._kill()

    def _mask(self) -> str:
        value, names = self.era.masks[self.state.gfp]
        return f"{value:#x}" if names is None else f"{value:#x}({names})"

    def _header(self) -> Iterator[Message]:
        state, era = self.state, self.era
        nodemask = state.nodemask or "(null)"
        cpuset = f"cpuset=/ mems_allowed={state.mems}"
        if state.event == "oom":
            yield Message(4, (self._oom(nodemask),))
            if era.header != "cpuset":
                yield Message(6, (f"{state.comm} {cpuset}",))
            return
        mark = "." if era.header == "dot" else ":"
        line = f"{state.comm}: page allocation failure{mark} order:{state.order}, mode:{self._mask()}"
        if era.header == "names":
            yield Message(4, (f"{line}, nodemask={nodemask}",))
            yield Message(6, (f"{state.comm} {cpuset}",))
        elif era.header == "cpuset":
            yield Message(4, (f"{line}, nodemask={nodemask}", f",{cpuset.replace(' ', ',')}"))
        else:
            yield Message(4, (line,))

    def _oom(self, nodemask: str) -> str:
        state = self.state
        middle = f" nodemask={nodemask}, " if self.era.header == "names" else ""
        adj = "oom_adj=0" if self.era.header == "dot" else "oom_score_adj=0"
        return f"{state.comm} invoked oom-killer: gfp_mask={self._mask()},{middle} order={state.order}, {adj}"

    def _stack(self) -> Iterator[Message]:
        state, era = self.state, self.era
        tail = f"Not tainted {era.release} {era.version}"
        if era.pid == "old":
            yield Message(4, (f"Pid: {state.pid}, comm: {state.comm} Not tainted {era.release} {era.version}",))
        else:
            uid = " UID: 0" if era.pid == "uid" else ""
            yield Message(4, (f"CPU: 3{uid} PID: {state.pid} Comm: {state.comm} {tail}",))
            yield Message(4, ("Hardware name: Example Server/Board, BIOS 1.2.3 01/02/2026",))
        yield Message(4, ("Call Trace:",))
        own = ("dump_stack", "dump_header", "oom_kill_process", "out_of_memory", "__alloc_pages_slowpath")
        for number, name in enumerate((own if state.event == "oom" else (own[0], "warn_alloc", own[4])) + state.frames):
            function, _, module = name.partition(" ")
            place = f"{function}+{0x40 + number:#x}/{0x200 + number:#x}" + (f" {module}" if module else "")
            yield Message(4, (f" [<{0xFFFFFFFF810B0000 + number:x}>] {place}" if era.pid == "old" else f" {place}",))

    def _mem_info(self) -> Iterator[Message]:
        state, zones = self.state, shown_zones(self.state, self.release)
        yield Message(4, (self._totals(),))
        if self.era.node_lines:
            for node in sorted({zone.node for zone in zones}):
                yield Message(4, (self._node(node),))
        for zone in zones:
            yield Message(4, (f"Node {zone.node} ", self._zone(zone)))
            pages = tuple(f" {number}" for number in zone.reserve[: self.era.zones])
            yield Message(4, ("lowmem_reserve[]:", *pages))
        for zone in zones:
            yield Message(4, tuple(self._blocks(zone)))
        for node in sorted({zone.node for zone in zones}):
            if self.era.header in ("cpuset", "names"):
                text = "hugepages_total=0 hugepages_free=0 hugepages_surp=0 hugepages_size=2048kB"
                yield Message(4, (f"Node {node} {text}",))
        yield Message(4, (f"{sum(zone.file for zone in state.zones) + state.shmem} total pagecache pages",))
        yield Message(4, ("0 pages in swap cache",))
        free, total = state.swap
        yield Message(4, (f"Free swap  = {_kb(free)}kB",))
        yield Message(4, (f"Total swap = {_kb(total)}kB",))
        yield Message(4, (f"{sum(zone.managed for zone in state.zones) + 1000} pages RAM",))
        yield Message(4, ("0 pages HighMem/MovableOnly",))
        yield Message(4, ("1000 pages reserved",))

    def _totals(self) -> str:
        state, zones = self.state, self.state.zones
        anon = sum(process.anon for process in state.processes)
        file = sum(zone.file for zone in zones)
        free, cma = sum(zone.free for zone in zones), sum(zone.cma for zone in zones)
        reclaimable, unreclaimable = state.slab
        old = self.era.header in ("dot", "number")
        lines = [
            f"active_anon:{anon - anon // 3} inactive_anon:{anon // 3} isolated_anon:0",
            f" active_file:{file - file // 2} inactive_file:{file // 2} isolated_file:0",
            f" unevictable:{state.unevictable} dirty:12 writeback:0" + (" unstable:0" if self.era.zones == 4 else ""),
            f" free:{free} slab_reclaimable:{reclaimable} slab_unreclaimable:{unreclaimable}"
            if old
            else f" slab_reclaimable:{reclaimable} slab_unreclaimable:{unreclaimable}",
            f" mapped:300 shmem:{state.shmem} pagetables:{sum(p.pgtables for p in state.processes) + 40} bounce:0",
        ]
        if self.era.header == "number":
            lines.append(f" free_cma:{cma}")
        if not old:
            lines.append(f" free:{free} free_pcp:0 free_cma:{cma}")
        return "\n".join(lines)

    def _node(self, node: int) -> str:
        state = self.state
        mine = [zone for zone in state.zones if zone.node == node]
        anon = sum(process.anon for process in state.processes) if node == int(state.nodemask or 0) else 0
        file = sum(zone.file for zone in mine)
        dead = "yes" if state.event == "oom" else "no"
        return (
            f"Node {node} active_anon:{_kb(anon - anon // 3)}kB inactive_anon:{_kb(anon // 3)}kB "
            f"active_file:{_kb(file - file // 2)}kB inactive_file:{_kb(file // 2)}kB unevictable:0kB "
            "isolated(anon):0kB isolated(file):0kB mapped:1200kB dirty:48kB writeback:0kB "
            f"shmem:{_kb(state.shmem)}kB writeback_tmp:0kB kernel_stack:2000kB all_unreclaimable? {dead}"
        )

    def _zone(self, zone: Zone) -> str:
        boost = zone.boost
        boosted = f" boost:{_kb(boost)}kB" if self.release in BOOST_SINCE else ""
        low, middle, high = (_kb(mark + boost) for mark in zone.marks)
        letters = sum(number << order for order, (number, types) in enumerate(zone.listed()) if types == "H")
        extra = {"reserved_highatomic": zone.highatomic, "free_highatomic": letters}
        more = "".join(f" {name}:{_kb(extra[name])}KB" for name in self.era.fields)
        file, tail = zone.file, ""
        if self.era.header not in ("dot", "number"):
            tail = f" bounce:0kB free_pcp:0kB local_pcp:0kB free_cma:{_kb(zone.cma)}kB"
        elif self.era.header == "number":
            tail = f" bounce:0kB free_cma:{_kb(zone.cma)}kB writeback_tmp:0kB"
        if not self.era.node_lines:
            tail += " pages_scanned:12 all_unreclaimable? no"
        managed = "" if self.era.header == "dot" else f" managed:{_kb(zone.managed)}kB"
        return (
            f"{zone.name} free:{_kb(zone.free)}kB{boosted} min:{low}kB low:{middle}kB high:{high}kB{more} "
            f"active_anon:0kB inactive_anon:0kB active_file:{_kb(file - file // 2)}kB "
            f"inactive_file:{_kb(file // 2)}kB unevictable:0kB present:{_kb(zone.managed) + 96}kB{managed} "
            f"mlocked:0kB{tail}"
        )

    def _blocks(self, zone: Zone) -> Iterator[str]:
        yield f"Node {zone.node} "
        yield f"{zone.name}: "
        for order, (number, types) in enumerate(zone.listed()):
            yield f"{number}*{4 << order}kB "
            if number and self.era.types:
                yield f"({''.join(letter for letter in self.era.types if letter in types)}) "
        yield f"= {_kb(sum(number << order for order, (number, _) in enumerate(zone.listed())))}kB"

    def _tasks(self) -> Iterator[Message]:
        if self.era.header == "cpuset":
            yield Message(6, ("Tasks state (memory values in pages):",))
        for text in _task_table(self.release, self.state.processes):
            yield Message(6, (text,))

    def _kill(self) -> Iterator[Message]:
        state = self.state
        if not state.processes:
            return
        victim = state.processes[0]
        sizes = f"total-vm:{_kb(victim.total_vm)}kB, anon-rss:{_kb(victim.anon)}kB, file-rss:{_kb(victim.file)}kB"
        if self.era.header == "cpuset":
            cpuset = f"cpuset=/,mems_allowed={state.mems}"
            yield Message(
                6,
                (
                    f"oom-kill:constraint=CONSTRAINT_{state.constraint},nodemask={state.nodemask or '(null)'}",
                    f",{cpuset}",
                    ",global_oom,task_memcg=/user.slice",
                    f",task={victim.name},pid={victim.pid},uid=0",
                ),
            )
            shmem = f"shmem-rss:{_kb(victim.shmem)}kB"
            rest = f"UID:0 pgtables:{_kb(victim.pgtables)}kB oom_score_adj:0"
            yield Message(
                3,
                (f"Out of memory: Killed process {victim.pid} ({victim.name}) {sizes}, {shmem}, {rest}",),
            )
            return
        yield Message(3, (f"Out of memory: Kill process {victim.pid} ({victim.name}) score 900 or sacrifice child",))
        shmem = f", shmem-rss:{_kb(victim.shmem)}kB" if self.era.header == "names" else ""
        yield Message(3, (f"Killed process {victim.pid} ({victim.name}) {sizes}{shmem}",))


def _task_table(release: str, processes: tuple[Process, ...]) -> Iterator[str]:
    if release == "2.6.32":
        yield "[ pid ]   uid  tgid total_vm      rss cpu oom_adj name"
    elif release == "3.10":
        yield "[ pid ]   uid  tgid total_vm      rss nr_ptes swapents oom_score_adj name"
    elif release == "4.14":
        yield "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name"
    elif release in BOOST_SINCE:
        yield (
            "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents "
            "oom_score_adj name"
        )
    else:
        yield "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"
    for each in processes:
        rss = each.anon + each.file + each.shmem
        if release == "2.6.32":
            yield f"[{each.pid:5}] {0:5} {each.pid:5} {each.total_vm:8} {rss:8} {1:3}     {0:3} {each.name}"
            continue
        start = f"[{each.pid:5}]" if release in {"3.10", "4.14"} else f"[{each.pid:7}]"
        start += f" {0:5} {each.pid:5} {each.total_vm:8} {rss:8}"
        end = f"{each.swapped:8}         {each.adj:5} {each.name}"
        if release == "3.10":
            yield f"{start} {each.pgtables:7} {end}"
        elif release == "4.14":
            yield f"{start} {each.pgtables:7} {3:7} {end}"
        elif release in BOOST_SINCE:
            parts = f"{each.anon:8} {each.file:8} {each.shmem:9}"
            yield f"{start} {parts} {each.pgtables * 4096:8} {end}"
        else:
            yield f"{start} {each.pgtables * 4096:8} {end}"
