# SPDX-License-Identifier: MIT
"""Prototypes are compared before anything is attached."""

from dataclasses import replace

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.probe.plan import check_prototypes

PAGE = "struct page *"
ENTRY_5_10 = ("gfp_t", "unsigned int", "int", "nodemask_t *")
FREELIST = ("gfp_t", "unsigned int", "int", "const struct alloc_context *")


class FakeBtf:
    """The prototypes of a kernel that is not there.

    Args:
        functions: parameter types by name.
        returned: what each function returns.
    """

    def __init__(self, functions: dict[str, tuple[str, ...]], returned: str = PAGE) -> None:
        self._functions = functions
        self._returned = returned

    def parameters(self, function: str) -> tuple[str, ...] | None:
        """Return the parameter types of a function."""
        return self._functions.get(function)

    def returns(self, function: str) -> str | None:
        """Return the return type of a function."""
        return self._returned if function in self._functions else None


def check(functions: dict[str, tuple[str, ...]], kernel: str = "5.10", returned: str = PAGE) -> None:
    """Check prototypes as those of a built-in kernel."""
    check_prototypes(FakeBtf(functions, returned), builtin_features(kernel))  # type: ignore[arg-type] # the two it asks


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
    """What is found and what was expected are both in the message."""
    functions = {"__alloc_pages_nodemask": ENTRY_5_10, "get_page_from_freelist": FREELIST, function: parameters}
    with pytest.raises(KalloctraceError) as caught:
        check(functions)
    assert function in caught.value.what
    assert ", ".join(parameters) in caught.value.why
    assert "nothing was attached" in caught.value.mend


def test_other_return_type_is_refused() -> None:
    """A function that returns a folio is not the one that is modelled."""
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
    check_prototypes(FakeBtf(functions), features)  # type: ignore[arg-type] # the two methods it asks
