# SPDX-License-Identifier: MIT
"""Every command with its arguments and options as one page of Markdown, generated from the parser."""

import re
from collections.abc import Iterator

import click

from kalloctrace.manual import pages

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|$~])")


def options_reference(root: click.Command, name: str) -> str:
    """Return the reference: for each command what it does, its usage and a table of its options.

    Args:
        root: the program's own command.
        name: the program's name.
    """
    return "\n".join(line for _, context in pages(root, name) for line in _command(context))


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    yield from (f"## {context.command_path}", "", _escaped(command.get_short_help_str(limit=200)), "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    # The usage names arguments, which have no help of their own.
    options = [record for record in records if record is not None and record[1]]
    if options:
        yield from ("| option | meaning |", "| --- | --- |")
        for spelling, meaning in options:
            code = spelling.replace("|", "\\|")
            yield f"| `{code}` | {_escaped(meaning)} |"
        yield ""


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
