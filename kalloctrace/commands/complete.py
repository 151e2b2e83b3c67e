# SPDX-License-Identifier: MIT
"""Completion of the values of options: kernels, terms and gfp masks."""

import click


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

    before, bar, last = begun.rpartition("|")
    tables = default_tables()
    names = dict.fromkeys(name for name, _ in (*tables.gfp_print, *tables.gfp_bits))
    return [f"{before}{bar}{name}" for name in _beginning(last, names)]


def _beginning(begun: str, names: "list[str] | tuple[str, ...] | dict[str, None]") -> list[str]:
    return [name for name in names if name.startswith(begun)]
