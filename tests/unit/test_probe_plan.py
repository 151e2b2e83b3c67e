# SPDX-License-Identifier: MIT
"""Prototypes are compared before anything is attached."""

import re
from dataclasses import replace

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.preemption import Preemption
from kalloctrace.probe.attach.choice import ASKED, Asked, Attachment, Shown, Way, choose_attachment
from kalloctrace.probe.attach.optprobe import call_sites
from kalloctrace.probe.attach.plan import (
    Mode,
    Plan,
    UnknownPrototypeError,
    check_prototypes,
    find_bulk,
    find_nolock,
)
from kalloctrace.probe.layout import bpf_folder

JUMPS = Attachment("pair", "jump", "")
PAGE = "struct page *"
ENTRY_5_10 = ("gfp_t", "unsigned int", "int", "nodemask_t *")
FREELIST = ("gfp_t", "unsigned int", "int", "const struct alloc_context *")


class FakeBtf:
    """The prototypes of a fake kernel.

    Args:
        functions: parameter types by name.
        returned: what each function returns.
    """

    def __init__(self, functions: dict[str, tuple[str, ...]], returned: str = PAGE) -> None:
        self._functions = functions
        self._returned = returned

    def has_function(self, function: str) -> bool:
        """Return whether there is a function of that name."""
        return function in self._functions

    def parameters(self, function: str) -> tuple[str, ...] | None:
        """Return the parameter types of a function."""
        return self._functions.get(function)

    def return_type(self, function: str) -> str | None:
        """Return the return type of a function."""
        return self._returned if function in self._functions else None


def check(functions: dict[str, tuple[str, ...]], kernel: str = "5.10", returned: str = PAGE) -> None:
    """Check prototypes as those of a built-in kernel."""
    check_prototypes(FakeBtf(functions, returned), builtin_features(kernel))  # type: ignore[arg-type] # the two methods it calls


def test_expected_prototypes_pass() -> None:
    """Debian's 5.10 has these."""
    check({"__alloc_pages_nodemask": ENTRY_5_10, "get_page_from_freelist": FREELIST})


def test_fifth_argument_is_expected_of_7_3_only() -> None:
    """The entry of 7.3 takes alloc_flags; the same function with four arguments is an older kernel's."""
    entry = "__alloc_frozen_pages_noprof"
    five = (*ENTRY_5_10, "unsigned int")
    check({entry: five, "get_page_from_freelist": FREELIST}, "7.3")
    with pytest.raises(KalloctraceError):
        check({entry: five, "get_page_from_freelist": FREELIST}, "7.2")
    with pytest.raises(KalloctraceError):
        check({entry: ENTRY_5_10, "get_page_from_freelist": FREELIST}, "7.3")


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        ("__alloc_pages_nodemask", ("unsigned int", "gfp_t", "int", "nodemask_t *")),
        ("__alloc_pages_nodemask", ENTRY_5_10[:3]),
        ("__alloc_pages_nodemask", (*ENTRY_5_10, "int")),
        ("get_page_from_freelist", ("gfp_t", "unsigned int", "int", "struct zonelist *")),
    ],
)
def test_other_prototype_is_refused_by_name(function: str, parameters: tuple[str, ...]) -> None:
    """The message has both the prototype found and the one expected."""
    functions = {"__alloc_pages_nodemask": ENTRY_5_10, "get_page_from_freelist": FREELIST, function: parameters}
    with pytest.raises(KalloctraceError) as caught:
        check(functions)
    assert function in caught.value.what
    assert ", ".join(parameters) in caught.value.why
    assert "nothing was attached" in caught.value.fix


def test_other_return_type_is_refused() -> None:
    """A function that returns a folio is not the modelled one."""
    with pytest.raises(KalloctraceError, match="will not attach"):
        check({"__alloc_pages_nodemask": ENTRY_5_10, "get_page_from_freelist": FREELIST}, returned="struct folio *")


def test_function_without_btf_is_refused() -> None:
    """The kernel attaches tracing programs to functions that its BTF describes."""
    with pytest.raises(KalloctraceError) as caught:
        check({"get_page_from_freelist": FREELIST})
    assert caught.value.what == "cannot attach to __alloc_pages_nodemask"


def test_features_name_the_entry() -> None:
    """The entry is a feature, not a version."""
    features = replace(builtin_features("5.10"), entry="renamed_entry")
    functions = {"renamed_entry": ENTRY_5_10, "get_page_from_freelist": FREELIST}
    check_prototypes(FakeBtf(functions), features)  # type: ignore[arg-type] # it has the two methods that are called
    with pytest.raises(KalloctraceError, match="renamed_entry"):
        check_prototypes(FakeBtf({"get_page_from_freelist": FREELIST}), features)  # type: ignore[arg-type] # likewise


WRAPPER = "alloc_pages_nolock_noprof"
FROZEN = "alloc_frozen_pages_nolock_noprof"
BULK_5 = ("gfp_t", "int", "nodemask_t *", "int", "struct page * *")
BULK_6 = (*BULK_5[:4], "struct list_head *", BULK_5[4])


@pytest.mark.parametrize(
    ("kernel", "functions", "expected"),
    [
        ("6.12", {}, None),
        ("6.15", {"try_alloc_pages_noprof": ("int", "unsigned int")}, "try_alloc_pages_noprof"),
        ("6.16", {WRAPPER: ("int", "unsigned int")}, WRAPPER),
        ("6.18", {WRAPPER: ("gfp_t", "int", "unsigned int"), FROZEN: ("gfp_t", "int", "unsigned int")}, FROZEN),
        ("7.3", {WRAPPER: ("gfp_t", "int", "unsigned int"), FROZEN: ("gfp_t", "int", "unsigned int")}, None),
    ],
)
def test_entry_without_locks(kernel: str, functions: dict[str, tuple[str, ...]], expected: str | None) -> None:
    """The function that contains the stage, never the wrapper around it."""
    assert find_nolock(FakeBtf(functions), builtin_features(kernel)) == expected  # type: ignore[arg-type] # the methods it calls


@pytest.mark.parametrize(
    ("functions", "expected"),
    [
        ({}, None),
        ({"__alloc_pages_bulk": BULK_6}, "__alloc_pages_bulk"),
        ({"alloc_pages_bulk_noprof": BULK_6}, "alloc_pages_bulk_noprof"),
        ({"alloc_pages_bulk_noprof": BULK_5}, "alloc_pages_bulk_noprof"),
    ],
)
def test_bulk_allocator(functions: dict[str, tuple[str, ...]], expected: str | None) -> None:
    """With the list argument, which 6.14 dropped, or without."""
    assert find_bulk(FakeBtf(functions, "long unsigned int")) == expected  # type: ignore[arg-type] # the methods it calls


@pytest.mark.parametrize("parameters", [BULK_5[:4], (*BULK_5[:3], "long", BULK_5[4]), (*BULK_6, "int")])
def test_unknown_bulk_allocator_is_left_out(parameters: tuple[str, ...]) -> None:
    """The error has its prototype, for people."""
    with pytest.raises(UnknownPrototypeError, match="alloc_pages_bulk_noprof"):
        find_bulk(FakeBtf({"alloc_pages_bulk_noprof": parameters}, "long unsigned int"))  # type: ignore[arg-type] # likewise


def test_unknown_entry_without_locks_is_left_out() -> None:
    """Arguments in another order would be read wrongly."""
    functions = {FROZEN: ("int", "gfp_t", "unsigned int")}
    with pytest.raises(UnknownPrototypeError, match=FROZEN):
        find_nolock(FakeBtf(functions), builtin_features("6.18"))  # type: ignore[arg-type] # likewise


@pytest.mark.parametrize(
    ("nolock", "bulk", "prepare", "mode", "way", "sources"),
    [
        (None, None, False, "returns", "fentry", "common alloc fentry"),
        (None, None, False, "returns", "jump", "common alloc kprobe"),
        ("n", "b", True, "returns", "jump", "common bulk nolock alloc prepare kprobe"),
        (None, None, False, "aggregate", "fentry", "common context aggregate pair fentry"),
        ("n", "b", False, "stream", "jump", "common bulk nolock context stream pair kprobe"),
    ],
)
def test_program_has_what_the_kernel_has(
    nolock: str | None, bulk: str | None, mode: Mode, way: Way, sources: str, *, prepare: bool
) -> None:
    """What comes first is used by what follows."""
    plan = Plan("e", nolock, bulk, prepare, None, (), {}, mode, Attachment("pair", way, ""))
    assert plan.sources() == [f"{name}.bpf.c" for name in sources.split()]
    assert all((bpf_folder() / name).is_file() for name in plan.sources())
    extra = [name for name in (nolock, bulk, "prepare_alloc_pages" if prepare else None) if name]
    assert plan.attached() == ["e", "get_page_from_freelist", *extra]


@pytest.mark.parametrize("way", ["fentry", "jump"])
def test_slow_path_is_followed_where_the_entry_calls_it(way: Way) -> None:
    """With kprobes at the call and after it, however the rest is attached; not if it is disabled."""
    plan = Plan("e", None, None, False, 0x99, (), {"SLOW": 1}, "aggregate", Attachment("pair", way, ""))
    hooks = [hook for hook in plan.hooks() if not hook.hot]
    assert [hook.definition(1) for hook in hooks] == [
        "p:kalloctrace/on_slowpath_1 e+153\n",
        "p:kalloctrace/on_slowpath_return_1 e+158\n",
    ]
    assert not any(hook.to_jump or hook.at_return for hook in hooks)
    assert plan.sources()[:3] == ["common.bpf.c", "parts.bpf.c", "slow.bpf.c"]
    without = plan.without_slow()
    assert not {"parts.bpf.c", "slow.bpf.c"} & {*without.sources()}
    assert "SLOW" not in without.constants
    assert all(hook.hot for hook in without.hooks())


def test_calls_are_found_by_their_target() -> None:
    """Before and after the function, and only of that function."""
    code = bytes.fromhex("90 e8 fa0f0000 e8 f5efffff 90 e8 00000000")
    assert call_sites(code, 0x1000, 0x2000) == [1]
    assert call_sites(code, 0x1000, 0x0) == [6]
    assert call_sites(code, 0x1000, 0x3000) == []


def test_every_hook_has_its_program() -> None:
    """Each function is hooked at its entry and its return, get_page_from_freelist() at its entry alone."""
    hooks = Plan("e", "n", "b", False, None, (), {}, "returns", JUMPS).hooks()
    assert {(hook.function, hook.at_return) for hook in hooks} == {
        ("get_page_from_freelist", False),
        *((function, at_return) for function in "enb" for at_return in (False, True)),
    }
    source = (bpf_folder() / "kprobe.bpf.c").read_text()
    functions = re.findall(r"^int (\w+)\(struct pt_regs \*ctx\)$", source, re.MULTILINE)
    assert {hook.program for hook in hooks} == set(functions)
    fewer = Plan("e", None, None, False, None, (), {}, "returns", JUMPS).hooks()
    assert [hook.program for hook in fewer] == ["on_freelist", "on_entry", "on_entry_return"]
    pair = Plan("e", None, None, False, None, (), {}, "aggregate", JUMPS).hooks()
    assert [hook.program for hook in pair] == ["on_freelist", "on_entry"]
    by_fentry = Plan("e", "n", "b", False, None, (), {}, "returns", Attachment("pair", "fentry", ""))
    assert (by_fentry.hooks(), by_fentry.trampolines()) == ([], hooks)
    programs = re.findall(r"^TRAMPOLINE\((\w+),", (bpf_folder() / "fentry.bpf.c").read_text(), re.MULTILINE)
    assert set(programs) == set(functions)


LAZY, VOLUNTARY = Preemption(preemptible=True, evidence="lazy"), Preemption(preemptible=False, evidence="voluntary")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (Shown(VOLUNTARY, multi=True, multi_is_cheap=True), "pair:fentry"),
        (Shown(LAZY, multi=True, multi_is_cheap=True), "pair:multi"),
        (Shown(LAZY, multi=True, multi_is_cheap=False), "pair:jump"),
        (Shown(LAZY, multi=False, multi_is_cheap=True), "pair:jump"),
    ],
)
def test_default_misses_no_call_at_the_lowest_cost(shown: Shown, expected: str) -> None:
    """A preemptible kernel gets kprobes, in the cheaper way; the reason names the evidence."""
    chosen = choose_attachment(Asked(), shown)
    assert str(chosen) == expected
    assert shown.preemption.evidence in chosen.reason


@pytest.mark.parametrize("preemption", [LAZY, VOLUNTARY])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        *((word, word) for word in ("pair:fentry", "pair:multi", "pair:jump")),
        *(("fentry", "pair:fentry"), ("kprobe", "pair:jump")),
    ],
)
def test_request_decides(word: str, expected: str, preemption: Preemption) -> None:
    """On every kernel, by its word or an earlier one."""
    chosen = choose_attachment(ASKED[word], Shown(preemption, multi=True, multi_is_cheap=False))
    assert str(chosen) == expected
    assert chosen.reason == "as requested"


def test_missing_way_is_refused() -> None:
    """A kernel without kprobe.multi does not silently get another one."""
    with pytest.raises(KalloctraceError, match=r"kprobe\.multi"):
        choose_attachment(ASKED["pair:multi"], Shown(LAZY, multi=False, multi_is_cheap=False))


def test_pair_alone_leaves_the_way_open() -> None:
    """As the default does."""
    for preemption, expected in ((LAZY, "pair:jump"), (VOLUNTARY, "pair:fentry")):
        shown = Shown(preemption, multi=False, multi_is_cheap=False)
        assert str(choose_attachment(ASKED["pair"], shown)) == expected
