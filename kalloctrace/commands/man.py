# SPDX-License-Identifier: MIT
"""`kalloctrace man`: manual pages, generated from the command line's parser."""

from pathlib import Path

import click

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.version import __version__


@click.command()
@click.argument("words", metavar="[COMMAND...]", nargs=-1)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write all pages into this folder, as NAME.1.")
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
        click.echo(manual_page(name, found[name], __version__), nl=False)
        return Exit.OK
    if words:
        raise KalloctraceError(
            f"{' '.join(words)} does not go with -o", "with -o all pages are written", "leave it out", Exit.USAGE
        )
    paths = {name: output / f"{name}.1" for name in found}
    there = [path for path in paths.values() if path.exists()]
    if there and not force:
        raise KalloctraceError(f"{there[0]} exists", "it would be overwritten", "add -f to replace it")
    output.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        path.write_text(manual_page(name, found[name], __version__), encoding="utf-8")
    click.echo(f"wrote {len(paths)} pages into {output}", err=True)
    return Exit.OK
