# SPDX-License-Identifier: MIT
"""`kalloctrace explain`: how requests are prepared, rule by rule, and why logged allocations failed."""

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from kalloctrace.commands import complete
from kalloctrace.commands.pager import paged
from kalloctrace.console import stdout
from kalloctrace.errors import Exit, KalloctraceError

if TYPE_CHECKING:
    from kalloctrace.flags.tables import FlagTables
    from kalloctrace.kernel.snapshot import Snapshot

_MASK = re.compile(r"0x[0-9a-f]+|[0-9]+|(__)?GFP_\w+", re.IGNORECASE)
"""A part of a mask."""

_CONTEXTS = ("task", "bh_disabled", "softirq", "hardirq", "nmi")


@click.command
@click.argument("logs", metavar="[LOG... | -]", nargs=-1)
@click.option(
    "--kernel",
    metavar="K",
    shell_complete=complete.kernels,
    help="A release such as 5.10 or 7.3, 'live', or a trace file.",
)
@click.option(
    "--gfp",
    metavar="MASK",
    shell_complete=complete.gfp_masks,
    help="The gfp mask: a number, or names joined by | in quotes.",
)
@click.option("--order", metavar="N", help="The order: 2**N pages.")
@click.option("--nid", metavar="N", help="The preferred node; by default the first.")
@click.option("--nodemask", metavar="LIST", help="The caller's nodemask, such as 0,2-3; by default NULL.")
@click.option(
    "--entry", type=click.Choice(["normal", "nolock"]), help="The function that is called; by default normal."
)
@click.option("--alloc-flags", metavar="N", help="The function's argument alloc_flags (since 7.3).")
@click.option(
    "--task-flags",
    metavar="MASK",
    shell_complete=complete.task_flags,
    help="current->flags: a number, or PF_ names joined by |.",
)
@click.option("--context", type=click.Choice(_CONTEXTS), help="The context of the call; by default task.")
@click.option("--preempt-count", metavar="N", help="The context as this kernel's raw preempt_count.")
@click.option("--cpusets/--no-cpusets", default=None, help="Cpusets are in use, or not.")
@click.option("--mems-allowed", metavar="LIST", help="current->mems_allowed; by default all nodes.")
@click.option("--defrag-mode", is_flag=True, help="The sysctl vm.defrag_mode is on.")
@click.option("--alloc-context", metavar="FILE", help="A JSON file with the context and machine, as in a batch line.")
@click.option("--machine", "machine_trace", metavar="TRACE", help="The trace whose nodes and zones to use.")
@click.option(
    "--set",
    "settings",
    metavar="NAME[=VALUE]",
    multiple=True,
    help="Change one input, and show the result before and after: cpusets, PF_MEMALLOC_NOFS, __GFP_WRITE=off, order=1. "
    "Can be repeated.",
)
@click.option(
    "--brief", is_flag=True, help="Print the answer and the rules that decided it, the default; no lesson in JSON."
)
@click.option("--full", is_flag=True, help="Print every step, how other kernels differ, and what would change it.")
@click.option(
    "--term",
    metavar="NAME",
    shell_complete=complete.terms,
    help="Print the page about a term, such as ALLOC_CPUSET; 'index' lists the terms.",
)
@click.option(
    "--lang", type=click.Choice(["en", "zh-cn"]), help="The page's language; by default the locale's, or English."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--page-size", metavar="SIZE", help="The page size of a log's kernel, such as 16k; by default as printed."
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, readable=False),
    metavar="FILE",
    help="Write a page about logs that opens offline.",
)
@click.option("-f", "--force", is_flag=True, help="Replace the page if it exists.")
@click.option("--batch", metavar="FILE", help="Answer a file of JSON lines; '-' is standard input.")
def command(
    *,
    logs: tuple[str, ...],
    kernel: str | None,
    gfp: str | None,
    order: str | None,
    nid: str | None,
    nodemask: str | None,
    entry: str | None,
    alloc_flags: str | None,
    task_flags: str | None,
    context: str | None,
    preempt_count: str | None,
    cpusets: bool | None,
    mems_allowed: str | None,
    defrag_mode: bool,
    alloc_context: str | None,
    machine_trace: str | None,
    settings: tuple[str, ...],
    brief: bool,
    full: bool,
    term: str | None,
    lang: str | None,
    as_json: bool,
    page_size: str | None,
    html: Path | None,
    force: bool,
    batch: str | None,
) -> int:
    """Show how the page allocator prepares one request, and the rules that decided it.

    With --full each step shows the kernel's function and condition, its inputs, its result, how other kernels differ,
    and what would change the result: the model runs again with one input changed.

    \b
    Examples:
      kalloctrace explain --kernel 5.10 --gfp GFP_KERNEL --order 0
      kalloctrace explain --full --kernel 7.3 --gfp 0x820 --order 1 --context hardirq --cpusets
      kalloctrace explain --kernel 6.12 --gfp GFP_KERNEL --order 0 --set PF_MEMALLOC_NOFS --set cpusets
      kalloctrace explain --term ALLOC_CPUSET
      kalloctrace explain --batch requests.jsonl
      dmesg | kalloctrace explain -
      kalloctrace explain --html failures.html /var/log

    With kernel logs (files, folders, or - for standard input) it explains why page allocations failed, zone by zone.
    Several logs are shown as a table by kind, caller, order and kernel. --kernel is the kernel to judge by; --gfp,
    --order and --page-size complete a log that does not show them.

    A batch has one JSON object a line and gets one answer a line, in the same order. A line that is not valid (also an
    empty one) gets an error object, and the exit code is 1. A line needs order, kernel unless --kernel names it, and
    gfp unless the entry takes none (nolock before 6.18). Every other key is optional and defaults to the kernel's usual
    value:

    \b
    {"kernel": "7.3", "entry": "normal"|"nolock", "gfp": N, "order": N,
     "preferred_nid": N, "nodemask": null|[nids], "alloc_flags": N,
     "task_flags": N, "numa_node_id": N,
     "preempt_count": N or "context": "task"|"bh_disabled"|"softirq"|...,
     "machine": {"cpusets_enabled": bool, "mems_allowed": [nids],
       "gfp_allowed_mask": N, "page_group_by_mobility_disabled": bool,
       "defrag_mode": bool, "config_cma": bool,
       "nodes": {"0": ["DMA", "DMA32", "Normal"]},
       "fallback_order": {"0": [0]}}}
    """
    single: dict[str, object] = {
        "--nid": nid,
        "--nodemask": nodemask,
        "--entry": entry,
        "--alloc-flags": alloc_flags,
        "--task-flags": task_flags,
        "--context": context,
        "--preempt-count": preempt_count,
        "--cpusets": cpusets,
        "--mems-allowed": mems_allowed,
        "--defrag-mode": defrag_mode or None,
        "--alloc-context": alloc_context,
        "--machine": machine_trace,
        "--set": settings or None,
        "--brief": brief or None,
        "--full": full or None,
    }
    _check_language(lang, term)
    of_logs: dict[str, object] = {"--page-size": page_size, "--html": html, "--force": force or None}
    if logs and term is None:
        _refuse_words(logs)
        from kalloctrace.commands.explain_log import explain_logs
        from kalloctrace.commands.log_reader import LogOptions

        options = LogOptions(kernel, gfp, order, page_size, html, force=force, as_json=as_json)
        return explain_logs(logs, options, _given(single | {"--batch": batch}))
    single |= {"--gfp": gfp, "--order": order}
    if term is not None:
        _refuse_with_term(single | of_logs | {"LOG": logs or None, "--kernel": kernel, "--batch": batch})
        return _term(term, lang, as_json=as_json)
    for option in _given(of_logs):
        raise _usage(f"{option} needs a log", "it does not go with a single request", "name a log, or - for one")
    given = _given(single)
    if batch is not None:
        if given:
            raise _usage(f"{given[0]} does not go with --batch", "each line of a batch has its own", "leave it out")
        return _batch(batch, kernel)

    _require(
        {
            "--kernel 5.10": kernel or machine_trace,
            # Some of the entries without locks take none.
            "--gfp GFP_KERNEL": gfp or entry == "nolock",
            "--order 0": order,
        }
    )
    snapshot = _snapshot(kernel, machine_trace)
    tables = snapshot.tables
    line = _alloc_context(alloc_context)
    machine = line.setdefault("machine", {})
    request: dict[str, Any] = {
        "kernel": snapshot.release,
        "gfp": _gfp(gfp, entry, snapshot),
        "order": _number(str(order), "--order"),
        "preferred_nid": None if nid is None else _number(nid, "--nid"),
        "nodemask": None if nodemask is None else _nodes(nodemask, "--nodemask"),
        "entry": entry,
        "alloc_flags": None if alloc_flags is None else _alloc_flags(alloc_flags, tables),
        "task_flags": None if task_flags is None else _task_flags(task_flags, tables),
        "context": context,
        "preempt_count": None if preempt_count is None else _number(preempt_count, "--preempt-count"),
    }
    line |= {key: value for key, value in request.items() if value is not None}
    if isinstance(machine, dict):
        if cpusets is not None:
            machine["cpusets_enabled"] = cpusets
        if mems_allowed is not None:
            machine["mems_allowed"] = _nodes(mems_allowed, "--mems-allowed")
        if defrag_mode:
            machine["defrag_mode"] = True
    _single(snapshot, line, settings, brief=brief, full=full, as_json=as_json)
    return Exit.OK


def _given(options: dict[str, object]) -> list[str]:
    return [option for option, value in options.items() if value is not None]


def _check_language(lang: str | None, term: str | None) -> None:
    if lang is not None and term is None:
        raise _usage("--lang needs --term", "only pages about terms are in two languages", "leave it out")


def _refuse_with_term(options: dict[str, object]) -> None:
    for option in _given(options):
        raise _usage(f"{option} does not go with --term", "a page explains a term, not a request", "leave it out")


def _term(name: str, lang: str | None, *, as_json: bool) -> int:
    from kalloctrace.explain.glossary import language_of, read_term

    page = read_term(name, lang or language_of(os.environ))
    if as_json:
        stdout().json(page.to_json())
    else:
        with paged() as console:
            page.write(console)
    return Exit.OK


def _single(
    snapshot: "Snapshot",
    line: dict[str, Any],
    settings: tuple[str, ...],
    *,
    brief: bool,
    full: bool,
    as_json: bool,
) -> None:
    if brief and full:
        raise _usage("--brief does not go with --full", "one is the answer, the other every step", "leave one out")
    from kalloctrace.explain.explanation import Explanation
    from kalloctrace.explain.request import BadRequestError, WhatIf

    try:
        explanation = Explanation.of(snapshot.release, WhatIf(lambda _: snapshot).answer(line), settings)
    except BadRequestError as error:
        raise _usage(
            "cannot explain this request", str(error), "change the request; see kalloctrace explain --help"
        ) from None
    if as_json:
        stdout().json(explanation.to_json(brief=brief))
    else:
        with paged() as console:
            explanation.write(console, full=full)


def _batch(name: str, kernel: str | None) -> int:
    from kalloctrace.commands.input_lines import InputLines
    from kalloctrace.explain.batch import LONGEST, Batch
    from kalloctrace.explain.request import WhatIf

    batch = Batch(WhatIf(_snapshots(kernel)), kernel)
    with _lines(name) as stream, _progress(name, stream):
        lines = InputLines(stream, LONGEST).raw()
        stdout().json_lines(batch.reply(number, text) for number, text in enumerate(lines, 1))
    return Exit.FAILED if batch.failed else Exit.OK


def _snapshots(kernel: str | None) -> Callable[[str], "Snapshot"]:
    """Return what resolves the kernel names of a batch: built-in kernels, and the one that --kernel names."""
    from kalloctrace.commands.kernel_source import kernel_snapshot
    from kalloctrace.kernel.builtin import builtin_snapshot

    if kernel is None:
        return builtin_snapshot
    snapshot = kernel_snapshot(kernel)
    return lambda name: snapshot if name == kernel else builtin_snapshot(name)


def _progress(name: str, lines: IO[bytes]) -> AbstractContextManager[None]:
    from kalloctrace.commands.progress import show_progress

    if name == "-":
        return nullcontext()
    size = os.fstat(lines.fileno()).st_size
    return show_progress(f"answering {name}", lambda: os.lseek(lines.fileno(), 0, os.SEEK_CUR) / size if size else 0.0)


@contextmanager
def _lines(name: str) -> Iterator[IO[bytes]]:
    if name == "-":
        yield sys.stdin.buffer
    else:
        with Path(name).open("rb") as stream:
            yield stream


def _snapshot(kernel: str | None, machine_trace: str | None) -> "Snapshot":
    from kalloctrace.commands.kernel_source import kernel_snapshot, trace_snapshot

    if machine_trace is None:
        return kernel_snapshot(kernel or "")
    traced = trace_snapshot(machine_trace)
    if kernel is None:
        return traced
    snapshot = kernel_snapshot(kernel)
    if snapshot.tables.zone_type != traced.tables.zone_type:
        raise _usage(
            f"cannot put the machine of {machine_trace} under kernel {kernel}",
            "the two kernels number their zones differently",
            "use --kernel with that trace as well, or another trace",
        )
    # gfp_allowed_mask belongs to the kernel, not to the machine: it has a bit for each flag of this kernel.
    mask = snapshot.machine.gfp_allowed_mask
    return replace(snapshot, machine=replace(traced.machine, gfp_allowed_mask=mask))


def _alloc_context(path: str | None) -> dict[str, Any]:
    """Read the members of a batch line from a file; members of "machine" may also be at its top level."""
    if path is None:
        return {}
    from kalloctrace.explain.batch import LONGEST
    from kalloctrace.explain.request import CONTEXT_KEYS, MACHINE_KEYS

    with Path(path).open("rb") as stream:
        text = stream.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise _usage(f"cannot read {path}", f"it is longer than {LONGEST:,} bytes", "see the batch line's members")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _usage(f"cannot read {path}", f"not JSON: {error}", "see the batch line's members in --help") from None
    if not isinstance(data, dict):
        raise _usage(f"cannot read {path}", "it is not a JSON object", "see the batch line's members in --help")
    unknown = data.keys() - CONTEXT_KEYS - MACHINE_KEYS
    if unknown:
        raise _usage(
            f"cannot read {path}",
            f"unknown key {', '.join(sorted(unknown))}",
            f"use {', '.join(sorted(CONTEXT_KEYS | MACHINE_KEYS))}",
        )
    machine = data.get("machine", {})
    flat = {key: data.pop(key) for key in MACHINE_KEYS & data.keys()}
    return {**data, "machine": {**machine, **flat} if isinstance(machine, dict) else machine}


def _require(options: dict[str, object]) -> None:
    missing = [example for example, given in options.items() if not given]
    if missing:
        raise _missing(missing)


def _missing(examples: Sequence[str]) -> KalloctraceError:
    """Return the error about a request without its kernel, mask or order.

    Args:
        examples: an example of each option that is missing.
    """
    *first, last = [example.split()[0] for example in examples]
    what = f"{', '.join(first)} and {last} are missing" if first else f"{last} is missing"
    # Who names none of the three may not want a request at all.
    log = "; to explain a log: dmesg | kalloctrace explain -" if len(first) > 1 else ""
    why = "a request has a gfp mask and an order, and the rules depend on the kernel"
    return _usage(what, why, f"add {' '.join(examples)}{log}")


def _refuse_words(names: tuple[str, ...]) -> None:
    """Refuse masks and terms that are named as if they were logs."""
    from kalloctrace.explain.glossary import term_names

    for name in names:
        if os.path.lexists(name):
            continue
        if all(map(_MASK.fullmatch, name.split("|"))):
            word = shlex.quote(name)
            fix = f"kalloctrace explain --kernel 5.10 --gfp {word} --order 0; its meaning: kalloctrace decode {word}"
            raise _usage(f"there is no log {name}", "a mask belongs to --gfp", fix)
        if name in term_names():
            fix = f"kalloctrace explain --term {name}"
            raise _usage(f"there is no log {name}", "a term belongs to --term", fix)


def _gfp(text: str | None, entry: str | None, snapshot: "Snapshot") -> int | None:
    from kalloctrace.explain.request import takes_gfp
    from kalloctrace.flags.decode import parse_flags

    if text is not None:
        return parse_flags(text, snapshot.tables)
    if takes_gfp(snapshot.features, entry or "normal"):
        raise _missing(["--gfp GFP_KERNEL"])
    return None


def _alloc_flags(text: str, tables: "FlagTables") -> int:
    from kalloctrace.flags.decode import parse_flags

    return parse_flags(text, tables, "alloc_flags")


def _task_flags(text: str, tables: "FlagTables") -> int:
    from kalloctrace.explain.settings import parse_task_flags

    try:
        return parse_task_flags(text, tables)
    except ValueError as error:
        raise _usage(
            f"--task-flags cannot be {error.args[0]!r}",
            f"no step of kernel {tables.kernel} reads a task flag of this name",
            f"give a number, or {', '.join(name for name, _ in tables.pf)}",
        ) from None


def _number(text: str, option: str) -> int:
    from kalloctrace.explain.settings import parse_number

    try:
        return parse_number(text)
    except ValueError:
        raise _usage(
            f"{option} cannot be {text!r}", "it is not a number", "give a decimal or a 0x hex number"
        ) from None


def _nodes(text: str, option: str) -> list[int]:
    from kalloctrace.explain.settings import parse_nodes
    from kalloctrace.kernel.nodelist import MAX_NUMNODES, node_ids

    try:
        return list(node_ids(parse_nodes(text)))
    except ValueError:
        fix = f"give ids below {MAX_NUMNODES} and ranges, such as 0,2-3"
        raise _usage(f"{option} cannot be {text!r}", "it is not a list of nodes", fix) from None


def _usage(what: str, why: str, fix: str) -> KalloctraceError:
    return KalloctraceError(what, why, fix, Exit.USAGE)
