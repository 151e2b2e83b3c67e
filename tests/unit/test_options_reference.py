# SPDX-License-Identifier: MIT
"""The options reference of the site, held against the parser."""

import click
import pytest

from kalloctrace.cli import COMMANDS, cli
from kalloctrace.manual import pages
from kalloctrace.options_reference import options_reference


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """Return the reference's sections by the command's path."""
    parts = options_reference(cli, "kalloctrace").split("## ")[1:]
    return {part.partition("\n")[0]: part for part in parts}


def test_every_command_has_its_section(sections: dict[str, str]) -> None:
    """Each command and sub-command is there, once."""
    assert {f"kalloctrace {name}" for name in COMMANDS} <= sections.keys()
    assert list(sections) == [context.command_path for _, context in pages(cli, "kalloctrace")]


def test_every_option_has_a_row(sections: dict[str, str]) -> None:
    """Each option that --help shows is in its command's table, with its spellings."""
    for _, context in pages(cli, "kalloctrace"):
        options = [one for one in context.command.params if isinstance(one, click.Option) and not one.hidden]
        rows = [line for line in sections[context.command_path].splitlines() if line.startswith("| `")]
        for option in options:
            assert any(option.opts[0] in row.partition("` |")[0] for row in rows), option.opts
        assert all(row.count(" | ") == 1 for row in rows)
