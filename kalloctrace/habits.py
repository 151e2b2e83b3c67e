# SPDX-License-Identifier: MIT
"""What people type who come from perf or memray, and the command that does it here."""

import difflib
from collections.abc import Iterable, Mapping

from kalloctrace.errors import Exit, KalloctraceError

_RECORD = "kalloctrace record -- COMMAND, then kalloctrace report TRACE"
COMMANDS: Mapping[str, tuple[str, str]] = {
    "stat": ("perf stat counts events", _RECORD),
    "script": ("perf script prints each event", "kalloctrace export --format jsonl TRACE"),
    "top": ("perf top watches events as they happen", "kalloctrace live"),
    "trace": ("perf trace watches events as they happen", "kalloctrace live"),
    "list": ("perf list names events to record", "kalloctrace record -- COMMAND"),
    "kmem": ("perf kmem counts page allocations by their callers", "kalloctrace report --by stack TRACE"),
    "annotate": (
        "perf annotate shows the code of a function",
        "kalloctrace explain --full --gfp MASK --order N",
    ),
    "run": ("memray run records a program", "kalloctrace record --children -- COMMAND"),
    "flamegraph": ("memray flamegraph writes a page with the callers", "kalloctrace report --html PAGE TRACE"),
    "table": ("memray table lists allocations", "kalloctrace report --by gfp,order TRACE"),
    "tree": ("memray tree shows the callers", "kalloctrace report --by stack TRACE"),
    "summary": ("memray summary adds allocations up", "kalloctrace report TRACE"),
    "stats": ("memray stats adds allocations up", "kalloctrace report TRACE"),
    "parse": ("memray parse prints each event", "kalloctrace export --format jsonl TRACE"),
    "transform": ("memray transform converts a recording", "kalloctrace export --format FORMAT TRACE"),
    "attach": ("memray attach follows a running process", "kalloctrace record --pid PID"),
    "detach": ("memray detach ends a recording", "press Ctrl-C in kalloctrace record"),
}
_INPUT = ("a trace is named without it", "kalloctrace {command} TRACE")
_OF_CAPTURE: Mapping[str, tuple[str, str]] = {
    "-a": ("all processes are captured, unless a filter is given", "leave it out"),
    "-p": ("a process has an option of its own", "kalloctrace {command} --pid PID"),
    "-t": ("threads are recorded with their process", "kalloctrace {command} --pid PID"),
    "-e": ("all page allocations are captured, and there are no other events", "leave it out; filters select calls"),
    "-F": ("each call is captured, at no frequency", "leave it out, or kalloctrace {command} --sample N for one in N"),
    "-C": ("all processors are captured", "kalloctrace report --by cpu TRACE, after record --mode stream"),
}
_STACKS = ("stacks have an option of their own", "kalloctrace record --mode stream --stack")
_STACKS_LIVE = ("stacks have an option of their own", "kalloctrace live --stack")
_STACK_FIELD = ("stacks are a field", "kalloctrace report --by stack TRACE")
_AS_TEXT = ("a report is text on the standard output", "leave it out; --html PAGE writes a page")
OPTIONS: Mapping[tuple[str, str], tuple[str, str]] = {
    **{(command, "-i"): _INPUT for command in ("report", "verify", "export", "diff", "import")},
    **{(command, option): hint for command in ("record", "live") for option, hint in _OF_CAPTURE.items()},
    **{("record", option): _STACKS for option in ("-g", "--call-graph", "--native")},
    **{("live", option): _STACKS_LIVE for option in ("-g", "--call-graph")},
    **{("report", option): _STACK_FIELD for option in ("-g", "--call-graph", "--children", "--no-children")},
    **{("report", option): _AS_TEXT for option in ("--stdio", "--tui", "--gtk")},
    ("record", "-c"): ("each call is captured", "leave it out, or kalloctrace record --sample N for one in N"),
    ("record", "-u"): ("the user that the command runs as has an option", "kalloctrace record --user NAME -- COMMAND"),
    ("record", "--follow-fork"): ("descendants have an option", "kalloctrace record --children -- COMMAND"),
    ("record", "--live"): ("what happens now is another command", "kalloctrace live"),
    ("live", "-d"): ("the seconds between updates have another option", "kalloctrace live --interval SECONDS"),
    ("live", "-s"): ("fields and their order have options", "kalloctrace live --by comm,order --sort bytes"),
    ("report", "-p"): ("processes are a field", "kalloctrace report --by pid TRACE"),
    ("report", "-C"): ("processors are a field", "kalloctrace report --by cpu TRACE"),
    ("report", "-s"): (
        "fields and their order have options",
        "kalloctrace report --by comm --sort bytes TRACE",
    ),
    ("report", "-F"): ("fields have an option of their own", "kalloctrace report --by comm,order TRACE"),
    ("report", "-n"): ("each group has the number of its calls", "kalloctrace report --by comm TRACE"),
}


def no_command(word: str, commands: Iterable[str]) -> KalloctraceError:
    """Return the error for a command that does not exist, with the one that was probably meant.

    Args:
        word: as it was typed.
        commands: those that exist.
    """
    if word in COMMANDS:
        why, fix = COMMANDS[word]
        return KalloctraceError(f"no command {word}", f"{why}, which is another command here", fix, Exit.USAGE)
    near = difflib.get_close_matches(word, list(commands), n=3)
    fix = f"did you mean {' or '.join(near)}?" if near else "see all commands: kalloctrace --help"
    return KalloctraceError(f"no command {word}", "kalloctrace has no such command", fix, Exit.USAGE)


def no_option(command: str, option: str) -> KalloctraceError | None:
    """Return the error for an option of perf or memray; None for any other.

    Args:
        command: name of the sub-command.
        option: as it was typed.
    """
    if (command, option) not in OPTIONS:
        return None
    why, fix = OPTIONS[command, option]
    return KalloctraceError(f"no option {option}", why, fix.format(command=command), Exit.USAGE)
