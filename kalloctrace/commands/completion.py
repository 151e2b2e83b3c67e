# SPDX-License-Identifier: MIT
"""`kalloctrace completion`: shell completion of commands, options and their values."""

import click
from click.shell_completion import get_completion_class

from kalloctrace.console import stdout
from kalloctrace.errors import Exit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print a shell completion script for kalloctrace.

    The target folder must exist. For zsh it must also be in $fpath before compinit runs.

    \b
    Examples:
      kalloctrace completion bash > ~/.local/share/bash-completion/completions/kalloctrace
      kalloctrace completion zsh > ~/.zfunc/_kalloctrace
      kalloctrace completion fish > ~/.config/fish/completions/kalloctrace.fish
    """
    from kalloctrace.cli import cli

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 click provides these three
    stdout().lines(kind(cli, {}, "kalloctrace", "_KALLOCTRACE_COMPLETE").source().split("\n"))
    return Exit.OK
