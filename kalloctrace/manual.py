# SPDX-License-Identifier: MIT
"""Manual pages, generated from the objects that parse the command line."""

import inspect
import textwrap
from collections.abc import Iterator

import click

_SECTION = "1"
_RAW = "\b"
_EXIT_CODES = (
    ("0", "success"),
    ("1", "failure"),
    ("2", "wrong usage"),
    ("3", "the kernel did not do what the model predicts"),
    ("4", "the data is incomplete, and --strict was given"),
)


def pages(root: click.Command, name: str) -> Iterator[tuple[str, click.Context]]:
    """Yield the name of each manual page, "kalloctrace-lab-run", with the context of its command.

    Args:
        root: the program's own command.
        name: the program's name.
    """
    yield from _pages(click.Context(root, info_name=name), name)


def _pages(context: click.Context, name: str) -> Iterator[tuple[str, click.Context]]:
    yield name, context
    if isinstance(context.command, click.Group):
        for child in context.command.list_commands(context):
            command = context.command.get_command(context, child)
            if command is not None and not command.hidden:
                yield from _pages(click.Context(command, info_name=child, parent=context), f"{name}-{child}")


def manual_page(name: str, context: click.Context, version: str) -> str:
    """Return one manual page as roff, which `man -l -` shows.

    Args:
        name: its name, "kalloctrace-verify".
        context: the command's context.
        version: the program's version.
    """
    command = context.command
    first, *paragraphs = _paragraphs(command.help or "")
    lines = [
        f'.TH "{_roff(name.upper())}" "{_SECTION}" "" "kalloctrace {version}" "kalloctrace manual"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(_one_line(first).rstrip('.'))}",
        ".SH SYNOPSIS",
        f"\\fB{_roff(context.command_path)}\\fR {_roff(' '.join(command.collect_usage_pieces(context)))}",
    ]
    examples = [paragraph for paragraph in paragraphs if _is_examples(paragraph)]
    lines += _described(first, [paragraph for paragraph in paragraphs if not _is_examples(paragraph)])
    lines += _listed("OPTIONS", _records(context))
    if isinstance(command, click.Group):
        lines += _listed("COMMANDS", _commands(context, command))
    for paragraph in examples:
        lines += [".SH EXAMPLES", *_verbatim(paragraph.splitlines()[2:])]
    lines += _listed("EXIT STATUS", _EXIT_CODES)
    lines += [".SH SEE ALSO", ", ".join(f"\\fB{_roff(other)}\\fR(1)" for other in _see_also(name, context))]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    return [part for part in inspect.cleandoc(text).split("\n\n") if part.strip()]


def _is_examples(paragraph: str) -> bool:
    lines = paragraph.splitlines()
    return len(lines) > 1 and lines[0].strip() == _RAW and lines[1].strip().rstrip(":").lower() in _EXAMPLES


_EXAMPLES = {"examples", "start here"}


def _described(first: str, paragraphs: list[str]) -> list[str]:
    lines = [".SH DESCRIPTION", _roff(_one_line(first))]
    for paragraph in paragraphs:
        body = paragraph.splitlines()
        lines += [".PP"]
        lines += _verbatim(body[1:]) if body[0].strip() == _RAW else [_roff(_one_line(paragraph))]
    return lines


def _verbatim(lines: list[str]) -> list[str]:
    text = textwrap.dedent("\n".join(lines)).splitlines()
    return [".nf", *(_roff(line) or "\\&" for line in text), ".fi"]


def _listed(heading: str, items: Iterator[tuple[str, str]] | tuple[tuple[str, str], ...]) -> list[str]:
    lines = [f".SH {heading}"]
    for term, text in items:
        lines += [".TP", f"\\fB{_roff(term)}\\fR", _roff(_one_line(text)) or "\\&"]
    return lines if len(lines) > 1 else []


def _records(context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            yield record


def _commands(context: click.Context, group: click.Group) -> Iterator[tuple[str, str]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is not None and not command.hidden:
            yield name, command.get_short_help_str(limit=200)


def _see_also(name: str, context: click.Context) -> list[str]:
    parents = []
    parent = context.parent
    while parent is not None:
        parents.append(parent.command_path.replace(" ", "-"))
        parent = parent.parent
    children = [
        f"{name}-{child}"
        for child in (context.command.list_commands(context) if isinstance(context.command, click.Group) else ())
    ]
    return [*parents, *children] or ["bpf", "perf"]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _roff(text: str) -> str:
    """Return text escaped for roff."""
    safe = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")
    )
    return f"\\&{safe}" if safe.startswith(".") else safe
