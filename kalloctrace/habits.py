# SPDX-License-Identifier: MIT
"""What people type who come from perf, and the command that does it here."""

import difflib
from collections.abc import Iterable, Mapping

from kalloctrace.errors import Exit, KalloctraceError

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "stat": ("perf stat counts events", "kalloctrace record -- COMMAND, then kalloctrace report TRACE"),
    "script": ("perf script prints each event", "kalloctrace export --format jsonl TRACE"),
    "top": ("perf top watches events as they happen", "kalloctrace live"),
}
_INPUT = ("a trace is named without it", "kalloctrace {command} TRACE")
_ALL = ("all processes are captured, unless a filter is given", "leave it out")
_OPTIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    **{(command, "-i"): _INPUT for command in ("report", "verify", "export", "diff", "import")},
    ("record", "-a"): _ALL,
    ("live", "-a"): _ALL,
    ("record", "-g"): ("stacks have an option of their own", "kalloctrace record --mode stream --stack"),
    ("live", "-g"): ("stacks have an option of their own", "kalloctrace live --stack"),
    ("report", "-g"): ("stacks are a field", "kalloctrace report --by stack TRACE"),
    ("record", "-p"): ("a process has an option of its own", "kalloctrace record --pid PID"),
    ("live", "-p"): ("a process has an option of its own", "kalloctrace live --pid PID"),
    ("report", "-p"): ("processes are a field", "kalloctrace report --by pid TRACE"),
}


def no_command(word: str, commands: Iterable[str]) -> KalloctraceError:
    """Return the error for a command that does not exist, with the one that was probably meant.

    Args:
        word: as it was typed.
        commands: those that exist.
    """
    if word in _COMMANDS:
        why, fix = _COMMANDS[word]
        return KalloctraceError(f"no command {word}", f"{why}, which is another command here", fix, Exit.USAGE)
    near = difflib.get_close_matches(word, list(commands), n=3)
    fix = f"did you mean {' or '.join(near)}?" if near else "see all commands: kalloctrace --help"
    return KalloctraceError(f"no command {word}", "kalloctrace has no such command", fix, Exit.USAGE)


def no_option(command: str, option: str) -> KalloctraceError | None:
    """Return the error for an option of perf; None for any other.

    Args:
        command: name of the sub-command.
        option: as it was typed.
    """
    if (command, option) not in _OPTIONS:
        return None
    why, fix = _OPTIONS[command, option]
    return KalloctraceError(f"no option {option}", why, fix.format(command=command), Exit.USAGE)
