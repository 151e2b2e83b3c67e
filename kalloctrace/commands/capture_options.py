# SPDX-License-Identifier: MIT
"""The options that select which calls are captured, for all commands that capture."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import click

from kalloctrace.commands import complete
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.tables import FlagTables
from kalloctrace.probe.attach.choice import ASKED

if TYPE_CHECKING:
    from kalloctrace.probe.attach.filters import Filters

_F = TypeVar("_F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--pid", type=click.IntRange(min=1), help="Only calls of this process."),
    click.option("--comm", metavar="NAME", help="Only calls of tasks with this name (15 bytes)."),
    click.option("--order", type=click.IntRange(min=0), help="Only calls of this order."),
    *(
        click.option(
            f"--gfp-{name}",
            metavar="MASK",
            shell_complete=complete.gfp_masks,
            help=f"Only calls with {share} of these gfp flags.",
        )
        for name, share in (("any", "at least one"), ("all", "all"), ("none", "none"))
    ),
    click.option("--node", type=click.IntRange(min=-1), help="Only calls that prefer this node."),
    click.option(
        "--zone",
        metavar="NAME",
        shell_complete=complete.zones,
        help="Only calls whose preferred zone has this name, such as Normal.",
    ),
    click.option(
        "--alloc-flags",
        metavar="FLAGS",
        shell_complete=complete.alloc_flags,
        help="Only calls that were prepared with all of these flags.",
    ),
    click.option("--sample", type=click.IntRange(min=2), metavar="N", help="Only one call in N."),
    click.option(
        "--max-rate", type=click.IntRange(min=1), metavar="N", help="At most N calls a second; needs stream mode."
    ),
)

attach_option = click.option(
    "--attach",
    type=click.Choice(list(ASKED)),
    default="auto",
    show_default=True,
    metavar="WORD",
    help="How to attach: one or pair, with :fentry, :multi or :jump as the way. auto loses no call, at the least cost.",
)
"""How programs are attached; `ASKED` has what its values mean. fentry and kprobe are its earlier values."""


class CaptureOptions(TypedDict):
    """The values of these options, as click passes them to a command."""

    pid: int | None
    comm: str | None
    order: int | None
    gfp_any: str | None
    gfp_all: str | None
    gfp_none: str | None
    node: int | None
    zone: str | None
    alloc_flags: str | None
    sample: int | None
    max_rate: int | None


def with_capture_options(command: _F) -> _F:
    """Add these options to a command."""
    return reduce(lambda decorated, option: option(decorated), reversed(_OPTIONS), command)


def filters_of(options: CaptureOptions, tables: FlagTables, *, failed: bool = False) -> "Filters":
    """Return the filters that the options describe.

    Args:
        options: the values of the options.
        tables: the flags of the running kernel, to look names up in.
        failed: capture only calls that returned no page.

    Raises:
        KalloctraceError: this kernel has no flag or zone of that name.
    """
    from kalloctrace.probe.attach.filters import Filters

    return Filters(
        options["pid"],
        options["comm"],
        options["order"],
        _flags(options["gfp_any"], tables),
        _flags(options["gfp_all"], tables),
        _flags(options["gfp_none"], tables),
        options["node"],
        _zone(options["zone"], tables),
        _flags(options["alloc_flags"], tables, "alloc_flags"),
        failed,
        options["sample"],
        options["max_rate"],
    )


def require(work: str, needed: str, given: Mapping[str, object]) -> None:
    """Refuse options that have no effect without another option.

    Args:
        work: what the command does, for the message.
        needed: the option that is missing.
        given: the options that need it, with their values.
    """
    for option, value in given.items():
        if value:
            raise KalloctraceError(
                f"cannot {work} with {option} alone",
                f"only {needed} captures what it needs",
                f"add {needed}, or leave out {option}",
                Exit.USAGE,
            )


def _flags(text: str | None, tables: FlagTables, kind: Literal["gfp", "alloc_flags"] = "gfp") -> int | None:
    from kalloctrace.flags.decode import parse_flags

    return None if text is None else parse_flags(text, tables, kind)


def _zone(name: str | None, tables: FlagTables) -> int | None:
    if name is None:
        return None
    index = tables.zone_index(name)
    if index is None:
        names = ", ".join(tables.zone_name(number) for _, number in tables.zone_type)
        raise KalloctraceError(f"{name!r} is not a zone", f"this kernel has {names}", "use one of these", Exit.USAGE)
    return index
