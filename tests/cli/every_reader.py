# SPDX-License-Identifier: MIT
"""Runs every command that reads a trace, on each file that it is given: `python -m tests.cli.every_reader FILE...`.

It prints a JSON object for each run. The memory is that of the process so far, so it tells which run took it.
"""

import contextlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from kalloctrace import api, cli
from kalloctrace.errors import KalloctraceError
from kalloctrace.signals import Ending

EXPORTS = (
    *(("parquet",), ("csv",), ("jsonl",), ("perfetto",), ("folded",), ("speedscope",), ("tables",), ("duckdb",)),
    *(("csv", "--pseudonymous"), ("tables", "--pseudonymous"), ("arrows", "--pseudonymous")),
)
"""Each format, and options."""
READERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "verify": (("verify", "{}"), ("verify", "--json", "{}"), ("verify", "--ktap", "{}")),
    "report": (
        ("report", "{}"),
        ("report", "--json", "{}"),
        ("report", "--failures", "--slower-than", "0", "{}"),
        ("report", "--failures", "--slower-than", "0", "--json", "{}"),
        ("report", "--html", "page.html", "-f", "{}"),
        ("report", "--slow", "{}"),
        ("report", "--slow", "--by", "comm,cgroup,stack", "--json", "{}"),
        ("report", "--by", "gfp,order,node,zone,migratetype,alloc_flags,outcome", "{}"),
        ("report", "--by", "comm,pid,cgroup,stack", "--sort", "bytes", "{}"),
        ("report", "--by", "comm,stack,cpu", "--slower-than", "0", "--sort", "time", "--json", "{}"),
    ),
    "export": tuple(("export", "--format", form, *more, "-f", "-o", f"out.{form}", "{}") for form, *more in EXPORTS),
    "diff": (("diff", "{}", "{}"), ("diff", "--json", "{}", "{}")),
    "explain": (
        ("explain", "--kernel", "6.12", "--gfp", "0xcc0", "--order", "0", "--machine", "{}"),
        ("explain", "--kernel", "{}", "--gfp", "0xcc0", "--order", "0"),
    ),
    "decode": (("decode", "--kernel", "{}", "0xcc0"),),
    "fleet": (("fleet", "add", "fleet", "{}"), ("fleet", "add", "--json", "--pseudonymous", "fleet", "{}")),
    "live": (
        ("live", "--plain", "--replay", "{}", "--count", "1", "-i", "0.1"),
        ("live", "--json", "--replay", "{}", "--count", "1", "-i", "0.1"),
    ),
    "serve-metrics": (("serve-metrics", "--port", "0", "{}"),),
}
OTHERS = frozenset({"bench", "completion", "doctor", "import", "lab", "man", "monitor", "prebuild", "record"})
"""Commands that read no trace."""


def commands() -> set[str]:
    """Return the names of all commands."""
    return set(cli.cli.list_commands(click.Context(cli.cli)))


def use_api(path: str) -> int:
    """Use the public API on a trace."""
    try:
        with api.open_trace(path) as trace:
            trace.verify().to_json()
            trace.to_arrow()
            list(trace.slow_calls())
            for row, _ in trace.allocations():
                trace.explain(row)
                break
    except KalloctraceError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.code)
    return 0


def run(words: list[str], work: Callable[[], int]) -> dict[str, object]:
    """Run one command in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    begin, raised, code = time.monotonic(), "", -1
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = int(work())
        except BaseException as error:  # noqa: BLE001  (whatever it is, the test names it)
            raised = repr(error)
    err.flush()
    return {
        "words": words,
        "code": code,
        "raised": raised,
        "stderr": err.buffer.getvalue().decode(),
        "seconds": time.monotonic() - begin,
        "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def main() -> None:
    """Run all commands on the files of the command line."""
    with TemporaryDirectory() as folder:
        files = [str(Path(name).resolve()) for name in sys.argv[1:]]
        os.chdir(folder)
        # `serve-metrics` ends as soon as it serves.
        Ending.wait = lambda *_: "SIGTERM"  # type: ignore[method-assign]
        for file in files:
            for words in (words for invocations in READERS.values() for words in invocations):
                named = [file if word == "{}" else word for word in words]
                print(json.dumps(run(named, lambda named=named: cli.main(named))), flush=True)  # type: ignore[misc]
            print(json.dumps(run(["api", file], lambda file=file: use_api(file))), flush=True)  # type: ignore[misc]


if __name__ == "__main__":
    main()
