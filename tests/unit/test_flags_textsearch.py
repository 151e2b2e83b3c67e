# SPDX-License-Identifier: MIT
"""Masks in logs, traces and dumps."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kalloctrace.flags.builtin import builtin_tables
from kalloctrace.flags.decode import Decoded, decode_gfp
from kalloctrace.flags.textsearch import Found, find_masks

_BOOT = "[    0.000000] Linux version {} (build@host) (gcc 12.2.0, GNU ld 2.40) #1 SMP PREEMPT_DYNAMIC Debian {} (2026)"
_TASK = "[   99.000002] CPU: 1 PID: 77 Comm: {} Not tainted {} #1  Debian"
_FAILURE = "[   99.000001] {}: page allocation failure: order:4, mode:{}, nodemask=(null),cpuset=/,mems_allowed=0"


def _find(*lines: str, kernel: str | None = None) -> list[Found]:
    return list(find_masks(lines, None if kernel is None else builtin_tables(kernel)))


def _text(found: Found) -> str | None:
    return None if found.decoded is None else found.decoded.text


@pytest.mark.parametrize(
    ("line", "form", "value"),
    [
        (
            "java: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null),cpuset=/",
            "page allocation failure",
            0x40CC0,
        ),
        ("java: page allocation failure. order:0, mode:0x20", "page allocation failure", 0x20),
        ("java: page allocation failure: order:-1, mode:0x0(), nodemask=(null)", "page allocation failure", 0),
        (
            "a.out: page allocation stalls for 10014ms, order:0, mode:0x100dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)",
            "page allocation stall",
            0x100DCA,
        ),
        (
            "node invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
            "oom-killer",
            0x100CCA,
        ),
        ("node invoked oom-killer: gfp_mask=0xcc0, order=0, oom_adj=0", "oom-killer", 0xCC0),
        ("SLUB: Unable to allocate memory on node -1, gfp=0xa20(GFP_ATOMIC)", "SLUB", 0xA20),
        ("SLUB: Unable to allocate memory on node -1 (gfp=0x20)", "SLUB", 0x20),
        ("SLAB: Unable to allocate memory on node 0, gfp=0xcc0(GFP_KERNEL)", "SLAB", 0xCC0),
        ("SLAB: Unable to allocate memory on node 0 (gfp=0x20)", "SLAB", 0x20),
        (
            "insmod: vmalloc error: size 8192, failed to allocate pages, mode:0xcc2(GFP_KERNEL|__GFP_HIGHMEM)",
            "vmalloc",
            0xCC2,
        ),
        ("insmod: vmalloc: allocation failure: 8192 bytes, mode:0xcc0(GFP_KERNEL), nodemask=(null)", "vmalloc", 0xCC0),
        ("dma: allocation of 7 blocks failed, mode:0xcc0(GFP_KERNEL), nodemask=(null)", "warn_alloc", 0xCC0),
        (
            "Page allocated via order 0, mask 0x100cca(GFP_HIGHUSER_MOVABLE), pid 1, tgid 1 (swapper/0), ts 7 ns",
            "page_owner",
            0x100CCA,
        ),
        (
            "Page allocated via order 0, migratetype Movable, mask 0x100cca(GFP_HIGHUSER_MOVABLE)",
            "page_owner",
            0x100CCA,
        ),
        (
            "page last allocated via order 0, migratetype Movable, gfp_mask 0x100cca(GFP_HIGHUSER_MOVABLE), pid 9",
            "page_owner",
            0x100CCA,
        ),
        (
            (
                "cc1  6429 [000]  22.498450: kmem:mm_page_alloc: page=0x176a17 pfn=0x176a17 order=0 migratetype=0 "
                "gfp_flags=GFP_KERNEL|__GFP_ZERO"
            ),
            "mm_page_alloc",
            0xDC0,
        ),
        (
            (
                "  cc1-6429  [000]    22.498450: mm_page_alloc:        page=0xffffea0003db9f40 pfn=1155800 order=0 "
                "migratetype=0 gfp_flags=GFP_KERNEL"
            ),
            "mm_page_alloc",
            0xCC0,
        ),
        (
            (
                " 24)        |  /* mm_page_alloc: page=0000000082b1fe73 pfn=17 order=0 migratetype=1 "
                "gfp_flags=GFP_HIGHUSER_MOVABLE|__GFP_ZERO */"
            ),
            "mm_page_alloc",
            0x100DCA,
        ),
        (
            "  cc1-6429  [000] ..... 22.4: mm_page_alloc: page=0x1 pfn=0x1 order=0 migratetype=0 gfp_flags=0xcc0",
            "mm_page_alloc",
            0xCC0,
        ),
        (
            (
                "  cc1-6429  [000] ..... 22.4: kmalloc: call_site=a+0x1/0x2 ptr=0000 bytes_req=8 bytes_alloc=8 "
                "gfp_flags=GFP_KERNEL|0x80000000 node=-1 accounted=false"
            ),
            "kmalloc",
            0x80000CC0,
        ),
        ("  cc1-6429  [000] ..... 22.4: kmem_cache_alloc: ptr=0000 gfp_flags=none", "kmem_cache_alloc", 0),
        (
            "  cc1-6429  [000] ..... 22.4: mm_vmscan_direct_reclaim_begin: order=0 gfp_flags=GFP_NOFS",
            "mm_vmscan_direct_reclaim_begin",
            0xC40,
        ),
    ],
)
@pytest.mark.parametrize(
    "prefix", ["", "[12345.678901] ", "Oct 12 19:00:20 host-1 kernel: [ 8523.347168] ", "<4>[    9.1][  T123] "]
)
def test_each_form_is_found_after_each_prefix(prefix: str, line: str, form: str, value: int) -> None:
    """Every kind of line is recognised, with the column of its mask."""
    (found,) = _find(prefix + line, kernel="5.10")
    assert (found.form, found.value, found.note) == (form, value, "")
    assert found.kernel == "5.10"
    mask = (prefix + line)[found.column - 1 :]
    assert mask.startswith(("0x", "none", "GFP_", "__GFP_"))


def test_unexpected_gfp_carries_two_masks() -> None:
    """The wrong bits and the remaining mask, each with a space before the parentheses."""
    bad, fixed = _find(
        "[ 1.2] Unexpected gfp: 0x2 (__GFP_HIGHMEM). Fixing up to gfp: 0xdc0 (GFP_KERNEL|__GFP_ZERO). Fix your code!",
        kernel="6.12",
    )
    assert (bad.value, _text(bad), bad.note) == (2, "__GFP_HIGHMEM", "")
    assert (fixed.value, _text(fixed), fixed.note) == (0xDC0, "GFP_KERNEL|__GFP_ZERO", "")
    assert bad.column < fixed.column


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Linux agpgart interface v0.103",
        "vmap allocation for size 36864 failed: use vmalloc=<size> to increase size",
        "drm: switched to mode:0x13",
        "net: mask 0xffffff00 applied",
        "cpumask=0xff",
        "gfp_flags field added",
        "__alloc_pages_nodemask+0x22e",
    ],
)
def test_lines_without_masks_give_nothing(line: str) -> None:
    """Similar words are not mistaken for masks."""
    assert _find(line, kernel="6.1") == []


@pytest.mark.parametrize(
    ("task", "kernel"),
    [
        ("CPU: 1 PID: 123 Comm: foo Not tainted 6.1.0-49-amd64 #1  Debian 6.1.192-2", "6.1"),
        ("CPU: 1 PID: 123 Comm: foo Tainted: G        W  OE     5.10.0-46-amd64 #1 Debian 5.10.262-1", "5.10"),
        ("CPU: 1 PID: 123 Comm: foo Kdump: loaded Tainted: P           OE      6.6.0-1-cloud #1", "6.6"),
        ("CPU: 3 UID: 1000 PID: 4108 Comm: foo Not tainted 7.1.5-273-vendor #1 PREEMPT  b7db3962554a", "7.1"),
        ("CPU: 1 PID: 183960 Comm: foo Not tainted 5.15.0-1041-azure #48-Ubuntu", "5.15"),
        ("CPU: 0 PID: 29 Comm: foo Not tainted 6.8.0", "6.8"),
        ("CPU: 3 UID: 0 PID: 1 Comm: foo Tainted: G        W           6.12.0-rc2-g123-dirty #7 NONE", "6.12"),
    ],
)
def test_the_release_below_a_report_decodes_it(task: str, kernel: str) -> None:
    """The line with the task's name follows the mask, and names the kernel."""
    (found,) = _find("[1.1] foo: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)", f"[1.2] {task}")
    assert (found.kernel, found.source, _text(found), found.note) == (kernel, "builtin", "GFP_KERNEL", "")


@pytest.mark.parametrize(
    "release",
    [
        _BOOT.format("6.12.117+deb13-amd64", "6.12.117-1"),
        "# os release : 6.12.117+deb13-amd64",
        "Linux host 6.12.117+deb13-amd64 #1 SMP PREEMPT_DYNAMIC Debian 6.12.117-1 x86_64 GNU/Linux",
    ],
)
def test_a_release_above_decodes_what_follows(release: str) -> None:
    """Boot messages, perf's header and uname's output name the kernel of the lines below."""
    found = _find("cpus=8", "version = 7", release, *["noise"] * 20, "x: mm_page_alloc: gfp_flags=GFP_ATOMIC")
    assert [(one.kernel, one.value, one.line) for one in found] == [("6.12", 0x820, 24)]


def test_each_report_has_its_own_kernel() -> None:
    """In concatenated logs of several machines, each report is decoded with its own tables."""
    found = _find(
        *(_FAILURE.format("a", "0xa20(GFP_ATOMIC)"), _TASK.format("a", "5.10.0-46-amd64")),
        *(_FAILURE.format("b", "0x820(GFP_ATOMIC)"), _TASK.format("b", "6.12.117+deb13-amd64")),
        *(_FAILURE.format("c", "0x1100cca(GFP_HIGHUSER_MOVABLE)"), _TASK.format("c", "5.15.0-1041-azure")),
    )
    assert [(one.line, one.kernel, one.note) for one in found] == [(1, "5.10", ""), (3, "6.12", ""), (5, "5.15", "")]


def test_the_kernel_of_another_task_is_not_used() -> None:
    """The name in the task's line must be that of the report above."""
    found = _find(_FAILURE.format("first", "0x20"), _FAILURE.format("second", "0x20"), _TASK.format("second", "6.1.9"))
    assert [one.kernel for one in found] == ["", "6.1"]


def test_a_mask_without_a_task_takes_the_release_below_it() -> None:
    """Slab messages name no task; the next task's line decodes them if no report begins in between."""
    (found,) = _find(
        "SLUB: Unable to allocate memory on node -1 (gfp=0x820)", "  cache: x", _TASK.format("b", "6.12.9")
    )
    assert (found.kernel, _text(found)) == ("6.12", "GFP_ATOMIC")


def test_a_mask_without_a_task_above_another_report_has_no_kernel() -> None:
    """It may be the end of another log."""
    alone, report = _find(
        "__alloc_pages: 0-order allocation failed (gfp=0x1d2/0)",
        _FAILURE.format("b", "0x820(GFP_ATOMIC)"),
        _TASK.format("b", "6.12.9"),
    )
    assert (alone.kernel, alone.decoded) == ("", None)
    assert report.kernel == "6.12"


def test_a_boot_message_does_not_decode_masks_above_it() -> None:
    """Masks above the first "Linux version" belong to an unknown kernel."""
    found = _find(_FAILURE.format("a", "0x20"), _BOOT.format("6.1.0-49-amd64", "6.1.192-2"))
    assert [(one.kernel, one.decoded) for one in found] == [("", None)]


def test_the_wait_for_a_release_is_bounded() -> None:
    """A mask is yielded after at most eight lines, with or without a release."""
    read = 0

    def lines() -> Iterator[str]:
        nonlocal read
        for line in [_FAILURE.format("a", "0x20"), *["noise"] * 100, _TASK.format("a", "6.1.9")]:
            read += 1
            yield line

    found = next(find_masks(lines(), None))
    assert read == 9
    assert (found.kernel, found.decoded) == ("", None)


def test_the_order_of_the_text_is_kept() -> None:
    """A trace line is not yielded before a report that is still waiting for its release."""
    found = _find(
        _FAILURE.format("a", "0xcc0(GFP_KERNEL)"), "x: mm_page_alloc: gfp_flags=GFP_KERNEL", _TASK.format("a", "6.1.9")
    )
    assert [(one.line, one.kernel) for one in found] == [(1, "6.1"), (2, "")]


def test_the_text_overrides_the_given_tables() -> None:
    """The caller's tables apply until the text names another kernel."""
    before, after = _find(
        "x: mm_page_alloc: gfp_flags=GFP_ATOMIC",
        "# os release : 6.12.117+deb13-amd64",
        "x: mm_page_alloc: gfp_flags=GFP_ATOMIC",
        kernel="5.10",
    )
    assert (before.kernel, before.value) == ("5.10", 0xA20)
    assert (after.kernel, after.value) == ("6.12", 0x820)


def test_given_tables_of_the_same_release_are_kept() -> None:
    """For its own kernel, a trace's tables are better than built-in ones."""
    base = builtin_tables("6.12")
    own = type(base).from_json({**base.to_json(), "kernel": "6.12.117+deb13-amd64", "source": "tracefs+btf"})
    (found,) = find_masks(["# os release : 6.12.117+deb13-amd64", "gfp_flags=0x1000cc0"], own)
    assert (found.kernel, found.source, found.note) == (own.kernel, "tracefs+btf", "")


@pytest.mark.parametrize(
    "release",
    ["2.6.38-8-server", "3.10.0-1160.el7.x86_64", "4.18.0-553.el8_10.x86_64", "5.4.58", "5.14.0-427.el9.x86_64"],
)
def test_kernels_with_another_layout_keep_the_printed_names(release: str) -> None:
    """Names are reported as printed and the value unchecked; a bare mask stays unknown."""
    named, bare, names_only = _find(
        f"# os release : {release}",
        _FAILURE.format("a", "0x24280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)"),
        _FAILURE.format("a", "0x20"),
        "x: mm_page_alloc: gfp_flags=GFP_KERNEL",
    )
    assert (named.value, _text(named), named.kernel) == (0x24280CA, "GFP_HIGHUSER_MOVABLE|__GFP_ZERO", release)
    assert "not checked bit by bit" in named.note
    assert (bare.value, bare.decoded, bare.printed) == (0x20, None, ())
    assert "unknown" in bare.note
    assert (names_only.value, names_only.decoded, names_only.printed) == (None, None, ("GFP_KERNEL",))


@pytest.mark.parametrize("comm_line", ["Pid: 9, comm: a Tainted: P            2.6.38-8-server #42-Ubuntu"])
def test_very_old_task_lines_name_the_kernel_too(comm_line: str) -> None:
    """Before 3.9 the line begins with the pid."""
    (found,) = _find("a: page allocation failure. order:0, mode:0x4020", comm_line)
    assert found.kernel == "2.6.38-8-server"


def test_without_a_release_the_printed_names_are_the_answer() -> None:
    """Names that some known kernel prints for this value are certain; a bare mask is not."""
    named, bare = _find(_FAILURE.format("a", "0x820(GFP_ATOMIC)"), _FAILURE.format("a", "0x820"))
    assert (_text(named), named.kernel, named.source, named.note) == ("GFP_ATOMIC", "", "text", "")
    assert bare.decoded is None
    assert "names no kernel release" in bare.note


def test_without_a_release_names_that_fit_no_kernel_are_shown_as_printed() -> None:
    """Names that no known kernel prints may come from another bit layout, so the value is not checked."""
    (found,) = _find(_FAILURE.format("a", "0x24280ca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO)"))
    assert _text(found) == "GFP_HIGHUSER_MOVABLE|__GFP_ZERO"
    assert "not checked bit by bit" in found.note


def test_without_a_release_names_have_a_value_only_if_all_kernels_agree() -> None:
    """GFP_KERNEL is the same from 5.8 to 7.3, GFP_ATOMIC is not."""
    kernel, atomic, zero = _find(
        "x: mm_page_alloc: gfp_flags=GFP_KERNEL", "x: mm_page_alloc: gfp_flags=GFP_ATOMIC", "x: y: gfp_flags=none"
    )
    assert (kernel.value, "5.8 to 7.3" in kernel.note) == (0xCC0, True)
    assert (atomic.value, atomic.decoded, atomic.printed) == (None, None, ("GFP_ATOMIC",))
    assert "differs" in atomic.note
    assert (zero.value, zero.note) == (0, "")


def test_names_that_contradict_the_mask_are_noted() -> None:
    """The value is decoded, and the note quotes the text."""
    (found,) = _find(_FAILURE.format("a", "0xcc0(GFP_ATOMIC)"), kernel="6.12")
    assert (_text(found), found.printed) == ("GFP_KERNEL", ("GFP_ATOMIC",))
    assert "GFP_ATOMIC" in found.note


def test_the_printed_name_of_a_build_option_bit_wins() -> None:
    """A kernel with LOCKDEP prints bit 24 as __GFP_NOLOCKDEP, unlike the built-in rows."""
    (found,) = _find(_FAILURE.format("a", "0x1000cc0(GFP_KERNEL|__GFP_NOLOCKDEP)"), kernel="7.1")
    assert (_text(found), found.source) == ("GFP_KERNEL|__GFP_NOLOCKDEP", "text")
    assert "GFP_KERNEL|__GFP_NO_OBJ_EXT" in found.note


@pytest.mark.parametrize(("kernel", "unsure"), [("5.10", "0x800000"), ("6.1", "0x4000000"), ("7.2", "0x1000000")])
def test_a_bare_bit_of_a_build_option_is_not_certain(kernel: str, unsure: str) -> None:
    """Without names the meaning of such a bit is unknown."""
    (found,) = _find(_FAILURE.format("a", unsure), kernel=kernel)
    assert unsure in found.note


def test_a_name_of_a_build_option_has_no_certain_value() -> None:
    """If a trace prints only names, the value of such a bit is uncertain."""
    (found,) = _find("x: mm_page_alloc: gfp_flags=GFP_KERNEL|__GFP_NO_OBJ_EXT", kernel="7.1")
    assert "__GFP_NO_OBJ_EXT" in found.note


def test_names_in_another_order_agree() -> None:
    """A backport may print the same names in the order of another release."""
    (found,) = _find(_FAILURE.format("a", "0x40dc0(GFP_KERNEL|__GFP_ZERO|__GFP_COMP)"), kernel="6.12")
    assert found.note == ""


def test_a_line_that_is_cut_off_is_decoded_from_its_value() -> None:
    """An incomplete name is not listed."""
    (found,) = _find("a: page allocation failure: order:0, mode:0x40dc0(GFP_KERNEL|__GFP_ZE", kernel="6.12")
    assert (_text(found), found.printed) == ("GFP_KERNEL|__GFP_COMP|__GFP_ZERO", ("GFP_KERNEL",))
    assert "cut off" in found.note


@pytest.mark.parametrize("tail", [" (swapper/0)", "(order 3)", " (x", " (swapper)"])
def test_parentheses_without_names_are_ignored(tail: str) -> None:
    """Other text after a bare mask is not mistaken for its names."""
    (found,) = _find(f"a invoked oom-killer: gfp_mask=0xcc0{tail}, order=0", kernel="6.12")
    assert (found.printed, found.note) == ((), "")


def test_names_without_underscores_are_kept() -> None:
    """Early kernels of 2016 printed GFP_ZERO for __GFP_ZERO."""
    (found,) = _find(_FAILURE.format("a", "0x24280ca(GFP_HIGHUSER_MOVABLE|GFP_ZERO)"))
    assert found.printed == ("GFP_HIGHUSER_MOVABLE", "GFP_ZERO")


def test_more_than_32_bits_are_not_a_mask() -> None:
    """A damaged number is reported, not truncated."""
    (found,) = _find(_FAILURE.format("a", "0x123456789"), kernel="6.12")
    assert found.decoded is None
    assert "32 bits" in found.note


@pytest.mark.parametrize("word", ["CPU: Comm: ", "Linux version ", "gfp_mask=0x1(GFP_A|", "Comm: x Not tainted "])
def test_no_line_makes_the_search_slow(word: str) -> None:
    """A line of repeated beginnings takes linear time: quadratic expressions take minutes for this one."""
    began = time.process_time()
    _find(word * 20000)
    assert time.process_time() - began < 5


def test_line_ends_and_foreign_bytes_do_not_matter() -> None:
    """Windows line ends and replacement characters are ignored."""
    (found,) = _find("\ufffd\ufffd x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0\r\n", kernel="6.1")
    assert (found.value, found.printed) == (0xCC0, ("GFP_KERNEL",))


def test_printed_names_are_kept_with_the_decoded_ones() -> None:
    """Unnamed bits are not names."""
    (found,) = _find(_FAILURE.format("a", "0x1000cc0(GFP_KERNEL|0x1000000)"), kernel="6.12")
    assert (found.printed, _text(found), found.note) == (("GFP_KERNEL",), "GFP_KERNEL|0x1000000", "")


def test_repeated_release_keeps_the_kernel() -> None:
    """Each report repeats the release; the second one decodes like the first."""
    found = _find(
        *(_FAILURE.format("a", "0x820(GFP_ATOMIC)"), _TASK.format("a", "6.12.9")),
        *(_FAILURE.format("a", "0x820(GFP_ATOMIC)"), _TASK.format("a", "6.12.9")),
        "x: mm_page_alloc: gfp_flags=GFP_ATOMIC",
    )
    assert [(one.kernel, one.value, one.note) for one in found] == [("6.12", 0x820, "")] * 3


def test_names_that_the_kernel_does_not_have_give_no_value() -> None:
    """The names are shown as printed."""
    (found,) = _find("x: mm_page_alloc: gfp_flags=GFP_KERNEL|__GFP_ATOMIC", kernel="6.12")
    assert (found.value, found.decoded, found.printed) == (None, None, ("GFP_KERNEL", "__GFP_ATOMIC"))
    assert (found.kernel, found.source) == ("6.12", "text")
    assert found.note == "6.12 does not have all of these names, so the value is not known"


def test_unknown_release_is_named_with_its_cause() -> None:
    """A backporting vendor and an unknown release have different notes."""
    (vendor,) = _find("# os release : 5.14.0-427.el9.x86_64", _FAILURE.format("a", "0x20"))
    (old,) = _find("# os release : 5.4.58", _FAILURE.format("a", "0x20"))
    assert vendor.note == (
        "unknown: the vendor of 5.14.0-427.el9.x86_64 moves code between releases, and no names are printed in full"
    )
    assert old.note == (
        "unknown: the bits of 5.8 to 7.3 are known here, those of 5.4.58 are not, and no names are printed in full"
    )


def test_a_mask_without_a_task_above_a_report_may_end_another_log() -> None:
    """Slab messages above a report keep their own kernel, also when another task's report stands in between."""
    slab = "SLUB: Unable to allocate memory on node -1 (gfp=0x820)"
    report = (_FAILURE.format("b", "0x820(GFP_ATOMIC)"), _TASK.format("b", "6.12.9"))
    assert [one.kernel for one in _find(slab, *report)] == ["", "6.12"]
    assert [one.kernel for one in _find(slab, report[0], _FAILURE.format("x", "0x20"), report[1])] == ["", "6.12", ""]
    assert [one.kernel for one in _find(slab, _FAILURE.format("x", "0x20"), *report)] == ["", "", "6.12"]


def test_a_task_keeps_the_kernel_of_its_first_log() -> None:
    """Two machines may run a task of the same name."""
    found = _find(
        *(_FAILURE.format("a", "0x20"), _TASK.format("a", "5.10.0-46-amd64")),
        *(_FAILURE.format("a", "0x20"), _TASK.format("a", "6.12.9")),
    )
    assert [one.kernel for one in found] == ["5.10", "6.12"]


def test_a_task_may_be_named_like_the_beginning_of_its_line() -> None:
    """A task chooses its name: prctl(2), PR_SET_NAME."""
    for line in ("CPU: 1 PID: 7 Comm: CPU: 0 Not tainted 6.12.9 #1", "Pid: 7, comm: Pid: 0 Not tainted 6.12.9 #1"):
        name = line.partition("omm: ")[2][:6]
        (found,) = _find(_FAILURE.format(name, "0x820"), line)
        assert (found.kernel, _text(found)) == ("6.12", "GFP_ATOMIC")


def test_a_trace_line_is_yielded_at_once() -> None:
    """No release follows it, so nothing is waited for."""
    lines = iter(["x: mm_page_alloc: gfp_flags=GFP_KERNEL", "noise"])
    next(find_masks(lines, None))
    assert list(lines) == ["noise"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_is_cut_off_before_its_end_mark(end: str) -> None:
    """All complete names are listed, whatever ends the line."""
    (found,) = _find(
        "a: page allocation failure: order:0, mode:0x40dc0(GFP_KERNEL|__GFP_COMP|__GFP_ZE" + end, kernel="6.12"
    )
    assert found.printed == ("GFP_KERNEL", "__GFP_COMP")
    assert found.note == "the line is cut off within the names"


def test_a_cut_line_without_a_kernel_has_both_notes() -> None:
    """What is missing, and why the value alone does not help."""
    (found,) = _find("a: page allocation failure: order:0, mode:0x40dc0(GFP_KERNEL|__GFP_ZE")
    assert found.note == (
        "the line is cut off within the names; "
        "unknown: the text names no kernel release, and no names are printed in full"
    )
    assert found.source == "text"


def test_a_name_may_be_missing_after_the_last_sign() -> None:
    """There is no empty name."""
    (found,) = _find(_FAILURE.format("a", "0xcc0(GFP_KERNEL|)"), kernel="6.12")
    assert (found.printed, found.note) == (("GFP_KERNEL",), "")


@pytest.mark.parametrize("own", [False, True])
def test_a_number_wider_than_a_mask_keeps_its_kernel(*, own: bool) -> None:
    """gfp_t has 32 bits (include/linux/types.h): 0xffffffff is the widest mask."""
    base = builtin_tables("6.12")
    release = "6.12.117+deb13-amd64"
    tables = replace(base, kernel=release, source="tracefs") if own else None
    wide, widest = find_masks(
        [f"# os release : {release}", _FAILURE.format("a", "0x123456789"), _FAILURE.format("a", "0xffffffff")], tables
    )
    assert (wide.value, wide.decoded, wide.kernel, wide.source) == (0x123456789, None, release, "text")
    assert widest.decoded == decode_gfp(0xFFFFFFFF, base)


@pytest.mark.parametrize(
    ("kernel", "name", "source"), [(None, "", "text"), ("5.10", "5.10", "builtin")], ids=["no kernel", "5.10"]
)
def test_zero_is_no_flags_on_every_kernel(kernel: str | None, name: str, source: str) -> None:
    """With names it contradicts itself, which is noted."""
    bare, empty, named = _find(
        *(_FAILURE.format("a", text) for text in ("0x0", "0x0()", "0x0(GFP_KERNEL)")), kernel=kernel
    )
    for found in (bare, empty, named):
        assert (found.value, found.decoded) == (0, Decoded("gfp", 0, (), 0, ""))
        assert (found.kernel, found.source) == (name, source)
    assert (bare.note, empty.note, named.note) == ("", "", "the text prints GFP_KERNEL for no bits")


def test_the_lowest_bit_is_a_flag() -> None:
    """___GFP_DMA is 0x01u (include/linux/gfp.h:19 of 5.10)."""
    (found,) = _find(_FAILURE.format("a", "0x1"), kernel="5.10")
    assert (found.value, _text(found)) == (1, "GFP_DMA")


def test_names_of_a_build_option_keep_value_and_kernel() -> None:
    """Only the names are those of the text."""
    (found,) = _find(_FAILURE.format("a", "0x1000cc0(GFP_KERNEL|__GFP_NOLOCKDEP)"), kernel="7.1")
    names = ("GFP_KERNEL", "__GFP_NOLOCKDEP")
    assert (found.value, found.kernel) == (0x1000CC0, "7.1")
    assert found.decoded == Decoded("gfp", 0x1000CC0, names, 0, "GFP_KERNEL|__GFP_NOLOCKDEP")


def test_a_contradiction_in_a_certain_bit_is_not_put_down_to_the_configuration() -> None:
    """__GFP_ZERO is 0x100 in every configuration, so the value is right and the names are wrong."""
    (found,) = _find(_FAILURE.format("a", "0x1000cc0(GFP_KERNEL|__GFP_ZERO|__GFP_NOLOCKDEP)"), kernel="7.1")
    assert _text(found) == "GFP_KERNEL|__GFP_NO_OBJ_EXT"
    assert found.note == ("the text prints GFP_KERNEL|__GFP_ZERO|__GFP_NOLOCKDEP, which is not 0x1000cc0 on 7.1")


def test_empty_parentheses_contradict_a_mask() -> None:
    """The kernel prints the names of all bits."""
    (found,) = _find(_FAILURE.format("a", "0xcc0()"), kernel="6.12")
    assert found.note == "the text prints no names, which is not 0xcc0 on 6.12"


def test_names_of_a_trace_are_decoded_with_the_kernels_tables() -> None:
    """In its own order, from its own tables."""
    (found,) = _find("x: mm_page_alloc: gfp_flags=__GFP_ZERO|GFP_KERNEL", kernel="6.12")
    assert (found.value, _text(found), found.source, found.note) == (0xDC0, "GFP_KERNEL|__GFP_ZERO", "builtin", "")
    assert found.printed == ("__GFP_ZERO", "GFP_KERNEL")


def test_names_on_a_kernel_without_tables() -> None:
    """Their decoded form is the text; without a number there is no value."""
    named, names_only, bare = _find(
        "# os release : 5.4.58",
        _FAILURE.format("a", "0x1000cc0(GFP_KERNEL|0x1000000)"),
        "x: mm_page_alloc: gfp_flags=GFP_KERNEL",
        _FAILURE.format("a", "0x20"),
    )
    why = "the bits of 5.8 to 7.3 are known here, those of 5.4.58 are not"
    assert named.decoded == Decoded("gfp", 0x1000CC0, ("GFP_KERNEL",), 0x1000000, "GFP_KERNEL|0x1000000")
    assert named.note == f"names as printed; value not checked bit by bit: {why}"
    assert names_only.note == f"names as printed; value not known: {why}"
    assert [one.kernel for one in (named, names_only, bare)] == ["5.4.58"] * 3
    assert [one.source for one in (named, names_only, bare)] == ["text"] * 3


def test_names_without_any_kernel() -> None:
    """They have a value only if every known kernel has them, with one value."""
    kernel, atomic, moon, wide = _find(
        *(f"x: mm_page_alloc: gfp_flags={names}" for names in ("GFP_KERNEL|0x80000000", "GFP_ATOMIC", "GFP_MOON")),
        "x: mm_page_alloc: gfp_flags=0x1ffffffff|GFP_KERNEL",
    )
    assert kernel.decoded == Decoded("gfp", 0x80000CC0, ("GFP_KERNEL",), 0x80000000, "GFP_KERNEL|0x80000000")
    assert kernel.note == "the value holds for kernels from 5.8 to 7.3"
    assert atomic.note == "names as printed; their value differs between kernels from 5.8 to 7.3"
    assert moon.note == "names as printed; their value is not known on kernels from 5.8 to 7.3"
    assert [(one.value, one.decoded) for one in (atomic, moon, wide)] == [(None, None)] * 3
    assert [(one.kernel, one.source) for one in (kernel, atomic, moon, wide)] == [("", "text")] * 4


def test_a_number_with_names_without_any_kernel() -> None:
    """The names are as printed, and the value is the printed one."""
    fits, other = _find(_FAILURE.format("a", "0x820(GFP_ATOMIC)"), _FAILURE.format("a", "0x24000c0(GFP_KERNEL)"))
    assert fits.decoded == Decoded("gfp", 0x820, ("GFP_ATOMIC",), 0, "GFP_ATOMIC")
    assert (fits.value, fits.note) == (0x820, "")
    assert other.decoded == Decoded("gfp", 0x24000C0, ("GFP_KERNEL",), 0, "GFP_KERNEL")
    assert (other.value, other.kernel, other.source) == (0x24000C0, "", "text")
    assert other.note == ("names as printed; value not checked bit by bit: no kernel from 5.8 to 7.3 prints it so")
