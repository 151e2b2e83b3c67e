# SPDX-License-Identifier: MIT
"""`kalloctrace man`: manual pages, generated from the command line's parser."""

from contextlib import ExitStack
from pathlib import Path

import click

from kalloctrace.console import stderr, stdout
from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.output.files import complete_output
from kalloctrace.output.folders import create_folder
from kalloctrace.version import __version__


@click.command()
@click.argument("words", metavar="[COMMAND...]", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, readable=False),
    help="Write all pages into this folder, as NAME.1.",
)
@click.option("-f", "--force", is_flag=True, help="Replace existing pages.")
def command(words: tuple[str, ...], output: Path | None, force: bool) -> int:
    """Print the manual page of a command, or write all pages.

    \b
    Examples:
      kalloctrace man verify | man -l -
      kalloctrace man lab run | man -l -
      kalloctrace man -o ~/.local/share/man/man1
    """
    from kalloctrace.cli import cli
    from kalloctrace.manual import manual_page, pages

    found = dict(pages(cli, "kalloctrace"))
    if output is None:
        name = "-".join(("kalloctrace", *words))
        if name not in found:
            raise KalloctraceError(
                f"no command {' '.join(words)}",
                "kalloctrace has no such command",
                "see kalloctrace --help",
                Exit.USAGE,
            )
        stdout().lines(manual_page(name, found[name], __version__).splitlines())
        return Exit.OK
    if words:
        raise KalloctraceError(
            f"{' '.join(words)} does not go with -o", "with -o all pages are written", "leave it out", Exit.USAGE
        )
    create_folder(output)
    with ExitStack() as stack:
        # All are refused, or all are written.
        for name, page in found.items():
            file = stack.enter_context(complete_output(output / f"{name}.1", overwrite=force))
            file.write(manual_page(name, page, __version__).encode())
            file.flush()
    stderr().line(f"wrote {len(found)} pages into {output}")
    return Exit.OK
