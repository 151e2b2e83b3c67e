# SPDX-License-Identifier: MIT
"""`kalloctrace completion`: the shell's completion of commands, options and their values."""

import click
from click.shell_completion import get_completion_class

from kalloctrace.errors import Exit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print a script that makes a shell complete kalloctrace's command line.

    The folder must be there; zsh also wants it in $fpath, before compinit.

    \b
    Examples:
      kalloctrace completion bash > ~/.local/share/bash-completion/completions/kalloctrace
      kalloctrace completion zsh > ~/.zfunc/_kalloctrace
      kalloctrace completion fish > ~/.config/fish/completions/kalloctrace.fish
    """
    from kalloctrace.__main__ import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 click itself has these three
    click.echo(kind(cli, {}, "kalloctrace", "_KALLOCTRACE_COMPLETE").source())
    return Exit.OK
