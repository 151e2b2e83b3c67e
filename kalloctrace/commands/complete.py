# SPDX-License-Identifier: MIT
"""Completion of the values of options: kernels, terms, masks and zones."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable


def kernels(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the releases that `--kernel` takes, "live", and the traces of this folder."""
    from pathlib import Path

    from kalloctrace.flags.builtin import builtin_kernels

    traces = sorted(path.name for path in Path().glob("*.arrows"))
    return _beginning(begun, [*builtin_kernels(), "live", *traces])


def terms(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Return the terms that have a page or an entry."""
    from kalloctrace.explain.glossary import term_names

    return [*_beginning(begun, term_names()), *([] if "|" in begun else gfp_masks(context, param, begun))]


def gfp_masks(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the names that continue a mask, also after a "|"."""
    from kalloctrace.flags.builtin import default_tables

    tables = default_tables()
    return _masks(begun, [*tables.gfp_print, *tables.gfp_bits])


def alloc_flags(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the names that continue alloc_flags, also after a "|"."""
    from kalloctrace.flags.builtin import default_tables

    return _masks(begun, default_tables().alloc)


def task_flags(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the PF_ names that continue current->flags, also after a "|"."""
    from kalloctrace.flags.builtin import default_tables

    return _masks(begun, default_tables().pf)


def any_masks(context: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Return the names that continue a mask of either kind."""
    return [*gfp_masks(context, param, begun), *alloc_flags(context, param, begun)]


def zones(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Return the names of zones, as in /proc/zoneinfo."""
    from kalloctrace.flags.builtin import default_tables

    return _beginning(begun, default_tables().zone_names)


def _masks(begun: str, named: "Iterable[tuple[str, int]]") -> list[str]:
    before, bar, last = begun.rpartition("|")
    names = dict.fromkeys(name for name, _ in named)
    return [f"{before}{bar}{name}" for name in _beginning(last, names)]


def _beginning(begun: str, names: "Iterable[str]") -> list[str]:
    return [name for name in names if name.startswith(begun)]
