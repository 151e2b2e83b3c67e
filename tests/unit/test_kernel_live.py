# SPDX-License-Identifier: MIT
"""The rules of a kernel are read from its types and symbols, whatever its release is."""

from dataclasses import replace

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.features import Features
from kalloctrace.kernel.live import observed_features
from kalloctrace.kernel.memory_layout import page_flags_of

OLD = "__alloc_pages_nodemask"
FROZEN = "__alloc_frozen_pages_noprof"
FOUR = ("gfp_t", "unsigned int", "int", "nodemask_t *")
NOLOCK = "alloc_frozen_pages_nolock_noprof"
SOURCE = "built-in row"


class Shown:
    """The types and symbols that determine a kernel's features; by default those of Debian's 6.12.

    Args:
        entry: the entry's name.
        functions: parameters of the functions that BTF describes.
        cma: whether MIGRATE_CMA exists.
        rt: whether task_struct has softirq_disable_cnt.
        preempt_count: the size of the variable __preempt_count; None if BTF does not have it.
        lists: the number of per-CPU lists.
        symbols: additional symbols.
    """

    def __init__(
        self,
        entry: str = "__alloc_pages_noprof",
        *,
        functions: dict[str, tuple[str, ...]] | None = None,
        cma: bool = False,
        rt: bool = False,
        preempt_count: int | None = None,
        lists: int = 14,
        symbols: tuple[str, ...] = (),
    ) -> None:
        self._functions = {entry: FOUR, **(functions or {})}
        self._migratetypes = (("MIGRATE_PCPTYPES", 3), *((("MIGRATE_CMA", 4),) if cma else ()))
        self._rt = rt
        self._preempt_count = preempt_count
        self._sizes = {("zone", "free_area"): 11 * 88, ("per_cpu_pages", "lists"): 16 * lists}
        self._symbols = {entry, "cpusets_enabled_key", "node_data", *symbols}

    def parameters(self, function: str) -> tuple[str, ...] | None:
        """Return a function's parameters."""
        return self._functions.get(function)

    def has_function(self, function: str) -> bool:
        """Return whether BTF describes a function."""
        return function in self._functions

    def enum(self, name: str) -> tuple[tuple[str, int], ...]:
        """Return the only enum in use."""
        assert name == "migratetype"
        return self._migratetypes

    def has_member(self, struct: str, member: str) -> bool:
        """Return whether a structure has a member."""
        assert (struct, member) == ("task_struct", "softirq_disable_cnt")
        return self._rt

    def variable_size(self, name: str) -> int | None:
        """Return the size of a variable."""
        assert name == "__preempt_count"
        return self._preempt_count

    def member_size(self, struct: str, member: str) -> int:
        """Return the size of an array."""
        return self._sizes[struct, member]

    def size(self, struct: str) -> int:
        """Return the size of an array's element."""
        return {"free_area": 88, "list_head": 16}[struct]

    def address(self, name: str) -> int | None:
        """Return a symbol's address."""
        return 1 if name in self._symbols else None


def features(shown: Shown, expected: str) -> Features:
    """Return the features of a kernel whose release is `expected`."""
    return observed_features(shown, shown, builtin_features(expected), SOURCE)[0]  # type: ignore[arg-type] # what it calls


SHOWN = {
    "5.10": Shown(OLD),
    "6.1": Shown("__alloc_pages", preempt_count=4),
    "6.12": Shown(),
    "6.16": Shown(
        FROZEN,
        functions={"alloc_pages_nolock_noprof": ("int", "unsigned int")},
        preempt_count=4,
        symbols=("defrag_mode", "__alloc_pages_noprof"),
    ),
    "7.2": Shown(
        FROZEN,
        functions={NOLOCK: ("gfp_t", "int", "unsigned int"), "alloc_pages_nolock_noprof": ()},
        cma=True,
        preempt_count=4,
        symbols=("defrag_mode",),
    ),
    "7.3": Shown(
        FROZEN,
        functions={FROZEN: (*FOUR, "unsigned int"), NOLOCK: ("gfp_t", "int", "unsigned int")},
        cma=True,
        preempt_count=8,
        symbols=("defrag_mode",),
    ),
}


@pytest.mark.parametrize("release", SHOWN)
def test_features_of_a_known_kernel_are_those_of_its_release(release: str) -> None:
    """The built-in rows agree with Debian's images."""
    assert features(SHOWN[release], release) == builtin_features(release)


@pytest.mark.parametrize("release", [release for release in SHOWN if release != "5.10"])
def test_features_are_found_without_a_known_release(release: str) -> None:
    """Starting from the newest release's rules gives the same features."""
    assert features(SHOWN[release], "7.3") == builtin_features(release)


def test_each_feature_has_its_evidence() -> None:
    """Only features that no kernel shows depend on the release."""
    _, evidence = observed_features(SHOWN["7.3"], SHOWN["7.3"], builtin_features("7.3"), SOURCE)  # type: ignore[arg-type] # likewise
    assert set(evidence) == set(builtin_features("7.3").to_json())
    assert {name for name, where in evidence.items() if where == SOURCE} == {"context_test", "pf_memalloc_noreclaim"}


def test_orders_without_locks_follow_the_lists() -> None:
    """Without transparent huge pages there is no list of order 9."""
    shown = Shown(FROZEN, functions={NOLOCK: ()}, lists=12)
    assert features(shown, "6.18").nolock_orders == (0, 1, 2, 3)


def test_rt_flavour_is_recognised_by_its_task_struct() -> None:
    """The release does not show it."""
    assert features(Shown(rt=True), "6.12") == replace(builtin_features("6.12"), config_preempt_rt=True)


def test_kernel_without_a_known_entry_is_refused() -> None:
    """There would be nothing to attach to."""
    with pytest.raises(KalloctraceError, match="cannot find the page allocator's entry"):
        features(Shown("renamed"), "7.3")


@pytest.mark.parametrize(
    ("flags", "place"),
    [(0, (0, 0)), (2 << 51 | 0x17FFFFC0000000, (0, 2)), (3 << 54 | 1 << 51 | 0x800, (3, 1)), (1023 << 54, (1023, 0))],
)
def test_place_of_a_page(flags: int, place: tuple[int, int]) -> None:
    """1024 nodes and 5 zones take the upper 13 bits of page->flags."""
    assert tuple(page_flags_of(nodes=1024, zones=5).place(flags)) == place
