# SPDX-License-Identifier: MIT
"""The command line: runs one sub-command and turns every error into an exit code."""

import errno
import importlib
import keyword
import os
import sys
import termios
from collections.abc import Iterator, Sequence
from itertools import takewhile

import click

from kalloctrace.console import stderr
from kalloctrace.errors import NO_SPACE, Exit, KalloctraceError
from kalloctrace.recorders import interrupted_code
from kalloctrace.version import __version__

COMMANDS = {
    "bench": "measure what tracing costs on this machine",
    "completion": "print a shell completion script",
    "decode": "explain what the bits of gfp masks and alloc_flags mean",
    "diff": "show what differs between two traces, or between two kernel logs",
    "doctor": "check whether this machine can be traced, and how to fix it",
    "explain": "show how one request is prepared, or why those in a kernel log failed",
    "export": "write a trace for other tools",
    "fleet": "ask one question over the traces of many machines",
    "import": "make a trace from what perf or trace-cmd recorded",
    "lab": "boot a real kernel in a virtual machine and run a command in it",
    "live": "watch page allocations as they happen",
    "man": "print the manual page of a command, or write all pages",
    "monitor": "record for months, as a service",
    "prebuild": "compile the programs of recordings, for machines without a compiler",
    "record": "capture page allocations live",
    "report": "summarise a trace",
    "serve-metrics": "serve a recording's numbers to Prometheus",
    "verify": "check a trace against the model",
}


class _LazyGroup(click.Group):
    """Imports a sub-command's module only when that sub-command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        # A module's name has no hyphen and is not a Python keyword.
        module = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command: click.Command = importlib.import_module(f"kalloctrace.commands.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is named; refuse another name with the one that was probably meant."""
        if args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            from kalloctrace.habits import no_command

            raise no_command(args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kalloctrace")
@click.option("--debug", is_flag=True, help="Show Python's traceback when something fails.")
def cli(debug: bool) -> None:
    """Record how Linux prepares each page allocation, predict it, and show where the two differ.

    \b
    Start here:
      dmesg | kalloctrace explain -               why did an allocation fail?
      kalloctrace doctor                          can this machine be traced?
      sudo kalloctrace record -o my.arrows -- ls  capture what a command allocates
      kalloctrace report my.arrows                what failed, what was slow?
      kalloctrace verify my.arrows                does the kernel match the model?
      kalloctrace decode 0xcc0                    what does this mask mean?
    """
    del debug


def main(argv: Sequence[str]) -> int:
    """Run the program.

    Args:
        argv: the arguments after the program's name.

    Returns:
        The exit code, one of `kalloctrace.errors.Exit`.
    """
    debug = "--debug" in _before_command(argv)
    # click checks only whether the output is a terminal.
    color = False if os.environ.get("NO_COLOR") else None
    try:
        # Not cli.main(), which would turn a closed pipe into exit code 1.
        with cli.make_context("kalloctrace", list(argv), color=color) as context:
            code = cli.invoke(context)
        sys.stdout.flush()
    except KalloctraceError as error:
        if debug:
            raise
        stderr().error(error)
        return error.code
    except click.UsageError as error:
        return _misused(error)
    except click.exceptions.Exit as done:
        return done.exit_code
    except KeyboardInterrupt:
        stderr().line("interrupted")
        return interrupted_code(argv)
    except OSError as error:
        if debug and not isinstance(error, BrokenPipeError):
            raise
        return _system_failed(error)
    return code if isinstance(code, int) else Exit.OK


def _misused(error: click.UsageError) -> Exit:
    """Print what is wrong with the command line; print the help if it is empty."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        command = error.ctx.command_path if error.ctx is not None else "kalloctrace"
        if isinstance(error, click.NoSuchOption):
            from kalloctrace.habits import no_option

            if known := no_option(command.split()[-1], error.option_name):
                stderr().error(known)
                return Exit.USAGE
        # On one line: click lists the choices of a missing option on lines of their own.
        what = " ".join(error.format_message().split()).rstrip(".")
        missing = isinstance(error, click.MissingParameter)
        why = f"{command} requires it" if missing else f"{command} does not accept it"
        fix = f"see its options and arguments: {command} --help"
        stderr().error(KalloctraceError(what, why, fix))
    return Exit.USAGE


def _system_failed(error: OSError) -> Exit:
    """Print what the system refused; a closed pipe (`| head`) or terminal is not a failure."""
    gone = isinstance(error, BrokenPipeError) or _terminal_gone(error)
    if not gone:
        # Every other file is written by `kalloctrace.output`, whose errors name it.
        unnamed = "cannot write standard output" if error.errno in NO_SPACE else "cannot read or write"
        what = unnamed if error.filename is None else f"cannot use {error.filename}"
        why = error.strerror or str(error)
        stderr().error(KalloctraceError(what, why, "check the path, its permissions and the free space"))
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes again at exit, and would complain. A recorder may not open /dev/null for writing any more.
        os.dup2(os.memfd_create("discarded"), sys.stdout.fileno())
    return Exit.OK if gone else Exit.FAILED


def _terminal_gone(error: OSError) -> bool:
    """Return whether standard output is a terminal that was closed: every system call on it fails with EIO."""
    if error.errno != errno.EIO:
        return False
    try:
        termios.tcgetattr(sys.stdout)
    except termios.error as found:
        return bool(found.args[0] == errno.EIO)
    return False


def _before_command(argv: Sequence[str]) -> Iterator[str]:
    return takewhile(lambda word: word.startswith("-"), argv)
