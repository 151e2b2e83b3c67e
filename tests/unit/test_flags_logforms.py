# SPDX-License-Identifier: MIT
"""Masks and releases in single lines, with everything that is read from a line."""

import pytest

from kalloctrace.flags.logforms import MaskText, ReleaseText, masks_in, release_in


def _mask(line: str) -> MaskText:
    (found,) = masks_in(line)
    return found


def test_a_report_gives_task_form_and_names() -> None:
    """Every attribute of a mask in a report."""
    assert _mask("[1.0] java: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), x") == MaskText(
        column=52,
        form="page allocation failure",
        number=0x40CC0,
        names="GFP_KERNEL|__GFP_COMP",
        cut=False,
        task="[1.0] java",
        release_follows=True,
    )


def test_a_tracepoint_gives_its_name() -> None:
    """There is no task, and no release follows."""
    assert _mask("  cc1-6429  [000] 22.4: kmem:kmalloc: call_site=a gfp_flags=GFP_KERNEL|0x10") == MaskText(
        column=61,
        form="kmalloc",
        number=None,
        names="GFP_KERNEL|0x10",
        cut=False,
        task="",
        release_follows=False,
    )


@pytest.mark.parametrize(
    ("line", "form", "follows"),
    [
        ("x: Unexpected gfp: 0x2", "Unexpected gfp", True),
        ("java invoked oom-killer: gfp_mask=0x2", "oom-killer", True),
        ("java: page allocation stalls for 10ms, mode:0x2", "page allocation stall", True),
        ("java: page allocation stall for 10ms, mode:0x2", "page allocation stall", True),
        ("java: page allocation failure: mode:0x2", "page allocation failure", True),
        ("SLUB: Unable to allocate memory (gfp=0x2)", "SLUB", True),
        ("SLAB: Unable to allocate memory (gfp=0x2)", "SLAB", True),
        ("java: vmalloc: allocation failure, mode:0x2", "vmalloc", True),
        ("vmap allocation for size 4 failed, gfp=0x2", "vmalloc", True),
        ("Page allocated via order 0, mask 0x2", "page_owner", False),
        ("java: memory allocation failed, mode:0x2", "warn_alloc", True),
        ("some driver gfp=0x2", "gfp", False),
        ("trace: mm_page_alloc: gfp_flags=0x2", "mm_page_alloc", False),
        ("1: kmem:mm_page_alloc: order=0 gfp_flags=0x2", "mm_page_alloc", False),
        ("1: kmalloc: a:b gfp_flags=0x2", "gfp", False),
    ],
)
def test_the_kind_of_line_is_recognised(line: str, form: str, *, follows: bool) -> None:
    """By its own words, else by the key of the mask and the tracepoint before it."""
    found = _mask(line)
    assert (found.form, found.release_follows, found.number) == (form, follows, 2)


@pytest.mark.parametrize(
    ("line", "task"),
    [
        ("[1.0] a b: page allocation failure: mode:0x2", "[1.0] a b"),
        ("[1.0] a b: vmalloc: allocation failure, mode:0x2", "[1.0] a b"),
        ("[1.0] a b invoked oom-killer: gfp_mask=0x2", "[1.0] a b"),
        ("[1.0] SLUB: Unable to allocate memory (gfp=0x2)", ""),
    ],
)
def test_the_task_is_the_text_before_the_report(line: str, task: str) -> None:
    """Other lines name no task."""
    assert _mask(line).task == task


@pytest.mark.parametrize(
    ("mask", "number", "names", "cut"),
    [
        ("0xcc0(GFP_KERNEL)", 0xCC0, "GFP_KERNEL", False),
        ("0xcc0 (GFP_KERNEL)", 0xCC0, "GFP_KERNEL", False),
        ("0xCC0(GFP_KERNEL|0x10)", 0xCC0, "GFP_KERNEL|0x10", False),
        ("0x10(0x10)", 0x10, "0x10", False),
        ("0x0()", 0, "", False),
        ("0xcc0", 0xCC0, None, False),
        ("0xcc0(swapper)", 0xCC0, None, False),
        ("0xcc0(GFP_KERNEL|x", 0xCC0, "GFP_KERNEL|x", True),
        ("0xcc0(", 0xCC0, "", True),
        ("0xcc0(GFP_KERNEL, x", 0xCC0, None, False),
        ("0xcc0(x|GFP_KERNEL)", 0xCC0, None, False),
        ("none", None, "", False),
        ("GFP_KERNEL", None, "GFP_KERNEL", False),
        ("GFP_KERNEL|__GFP_ZERO|0x80000000", None, "GFP_KERNEL|__GFP_ZERO|0x80000000", False),
        ("0x80000000|GFP_KERNEL", None, "0x80000000|GFP_KERNEL", False),
        ("___GFP_IO", None, "___GFP_IO", False),
        ("GFP_KERNEL(GFP_USER", None, "GFP_KERNEL", False),
    ],
)
def test_a_mask_is_a_number_or_names(mask: str, number: int | None, names: str | None, *, cut: bool) -> None:
    """Names stand in parentheses after a number, or in its place; a line may end within them."""
    found = _mask(f"gfp_flags={mask}")
    assert (found.column, found.number, found.names, found.cut) == (11, number, names, cut)


def test_commas_that_a_copy_lost() -> None:
    """The next word follows the number at once; other words are no end of a number."""
    [mask] = masks_in("x invoked oom-killer: gfp_mask=0x800d0order=0oom_score_adj=0")
    assert (mask.number, mask.names) == (0x800D0, None)
    assert list(masks_in("x invoked oom-killer: gfp_mask=0x800d0other=0")) == []


@pytest.mark.parametrize("key", ["gfp_flags=", "gfp_mask=", "gfp=", "gfp: ", "gfp:", "gfp "])
def test_keys_of_a_mask(key: str) -> None:
    """A separator is one of = and :, with a space, or a space."""
    assert _mask(f"{key}0x10").column == len(key) + 1


@pytest.mark.parametrize(
    "line",
    [
        "gfp_flags=nonesuch",
        "gfp_flags=0x1G",
        "gfp_flags=0x1_",
        "gfp_flags=GFP_KERNEL|0x1G",
        "xgfp=0x1",
        "a.gfp=0x1",
        "gfp_flags 10",
        "gfp_flags=  0x1",
    ],
)
def test_similar_text_is_not_a_mask(line: str) -> None:
    """Words, numbers and keys must be whole."""
    assert list(masks_in(line)) == []


@pytest.mark.parametrize(("distance", "found"), [(295, 1), (296, 0)])
def test_the_context_of_an_ambiguous_key_is_near(distance: int, found: int) -> None:
    """The word "alloc" must lie within 300 characters before `mode:`; other messages use this key too."""
    line = f"alloc{' ' * distance}mode:0x20"
    assert len(list(masks_in(line))) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (", mode:0x2080020(GFP_ATOMIC)", 1),
        (", mode:0x40000(__GFP_COMP)", 1),
        (", mode:0x2080020", 0),
        ("open mode:0x20(RDONLY)", 0),
    ],
)
def test_names_of_gfp_flags_need_no_context(line: str, found: int) -> None:
    """Messages of several CPUs run into each other, so a mask may be a line of its own."""
    assert len(list(masks_in(line))) == found


@pytest.mark.parametrize(("distance", "form"), [(290, "kmalloc"), (292, "gfp")])
def test_the_tracepoint_of_a_mask_is_near(distance: int, form: str) -> None:
    """Its name must lie within 300 characters before the mask's key."""
    assert _mask(f"kmalloc: {' ' * distance}gfp_flags=0x20").form == form


def test_several_masks_of_a_line_are_in_order() -> None:
    """Each has its own column."""
    assert [(mask.column, mask.number) for mask in masks_in("gfp=0x1 gfp=0x2")] == [(5, 1), (13, 2)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "[1.0] CPU: 1 PID: 7 Comm: a b Tainted: G        W 6.1.0-49-amd64 #1 Debian 6.1.192-2",
            ReleaseText("6.1.0-49-amd64", " #1 Debian 6.1.192-2", "a b"),
        ),
        (
            "CPU: 1 UID: 0 PID: 7 Comm: x Not tainted 6.12.9 #1",
            ReleaseText("6.12.9", " #1", "x"),
        ),
        (
            "CPU: 1 PID: 7 Comm: x Kdump: loaded Not tainted 6.12.9",
            ReleaseText("6.12.9", "", "x"),
        ),
        ("Pid: 9, comm: y Not tainted 2.6.38-8-server #42-Ubuntu", ReleaseText("2.6.38-8-server", " #42-Ubuntu", "y")),
        ("[0.0] Linux version 6.1.0-49-amd64 (a@b) #1", ReleaseText("6.1.0-49-amd64", " (a@b) #1", None)),
        ("# os release : 6.12.117+deb13-amd64", ReleaseText("6.12.117+deb13-amd64", "", None)),
        ("Linux host 6.1.9 #1 SMP x86_64", ReleaseText("6.1.9", " #1 SMP x86_64", None)),
        ("uname: Linux host 6.1.9 #1 SMP", ReleaseText("6.1.9", " #1 SMP", None)),
    ],
)
def test_a_release_comes_with_version_and_task(line: str, expected: ReleaseText) -> None:
    """A line of a report names the task; a line that begins a log or a boot does not."""
    assert release_in(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "",
        "6.1.0-49-amd64",
        "x # os release : 6.1.9",
        "Linux host 6.1.9 SMP",
        "xLinux host 6.1.9 #1 SMP",
        "Linux version six",
        "CPU: 1 PID: 7 Comm: x 6.1.9 #1",
        "Comm: x Not tainted 6.1.9",
    ],
)
def test_other_lines_name_no_release(line: str) -> None:
    """Every part of the line must be there."""
    assert release_in(line) is None
