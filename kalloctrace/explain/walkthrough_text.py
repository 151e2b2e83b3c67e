# SPDX-License-Identifier: MIT
"""A walkthrough as text for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator

from kalloctrace.console import Console
from kalloctrace.explain.walkthrough import SAME_EVERYWHERE, Alternative, Difference, Walkthrough, WalkthroughStep

_LABEL = 9
_INDENT = " " * 5
_HERE = " (here)"

Entry = str | tuple[str, str]
"""A line, or a label and a text that is wrapped."""


def walkthrough_lines(walkthrough: Walkthrough, width: int) -> Iterator[str]:
    """Yield the lines of the steps, and of the rules that this kernel lacks.

    Args:
        walkthrough: the walkthrough.
        width: columns.
    """
    return _lines(_steps(walkthrough), width)


def write_alternatives(walkthrough: Walkthrough, console: Console, width: int) -> None:
    """Print what would change the answer, and where to read more.

    Args:
        walkthrough: the walkthrough.
        console: where to print; headings are bold on a terminal.
        width: columns.
    """
    _write(console, "what would change the answer", _what_would_change(walkthrough), width)
    if walkthrough.kernels:
        _write(console, "other kernels, same request", _alternatives(walkthrough.kernels), width)
    _write(console, "read more", _read_more(walkthrough), width)


def write_comparison(
    alternative: Alternative, before: Walkthrough, after: Walkthrough, console: Console, width: int
) -> None:
    """Print the effect of settings: the arguments before and after, and the steps whose result changes.

    Args:
        alternative: the comparison.
        before: the walkthrough of the original request.
        after: the walkthrough with the settings.
        console: where to print; headings are bold on a terminal.
        width: columns.
    """
    _write(console, f"with --set {alternative.setting}", _before_and_after(alternative), width)
    if alternative.rules:
        _write(console, "steps that change", _other_steps(alternative.rules, before, after), width)


def _steps(walkthrough: Walkthrough) -> Iterator[Entry]:
    for step in walkthrough.steps:
        yield from _step(step)
    if walkthrough.not_here:
        yield "  not on this kernel:"
        for difference in walkthrough.not_here:
            yield "", f"{difference.since}: {difference.what} [{difference.source}]"


def _what_would_change(walkthrough: Walkthrough) -> Iterator[Entry]:
    yield from _alternatives(walkthrough.alternatives)
    if walkthrough.passed_through:
        yield "  these gfp bits only pass through to get_page_from_freelist:"
        yield "", ", ".join(walkthrough.passed_through)


def _read_more(walkthrough: Walkthrough) -> Iterator[Entry]:
    yield "", ", ".join(walkthrough.terms)
    yield f"  for example: kalloctrace explain --term {walkthrough.terms[0]}"


def _before_and_after(alternative: Alternative) -> Iterator[Entry]:
    if not alternative.changes:
        yield "  nothing changes: get_page_from_freelist receives the same"
    for change in alternative.changes:
        yield f"  {change.field}"
        yield "before", change.before
        yield "after", change.after


def _other_steps(rules: Iterable[str], before: Walkthrough, after: Walkthrough) -> Iterator[Entry]:
    for rule in rules:
        steps = [
            next((step for step in walkthrough.steps if step.rule == rule), None) for walkthrough in (before, after)
        ]
        taken = next(step for step in steps if step is not None)
        yield f"  {taken.function}"
        yield "if", taken.condition
        for label, step in zip(("before", "after"), steps, strict=True):
            yield label, "this step is not reached" if step is None else step.effect


def _step(step: WalkthroughStep) -> Iterator[Entry]:
    yield f"  {step.number:2} {step.function}"
    yield "if", step.condition
    yield "with", "; ".join(f"{name} = {value}" for name, value in step.values)
    yield "then", step.effect
    if not step.differs:
        yield "kernels", SAME_EVERYWHERE
    yield from _history(step.differs)
    yield "try", ", ".join(f"--set {setting}" for setting in step.would_change)
    yield "read", ", ".join(step.terms)


def _history(differs: tuple[Difference, ...]) -> Iterator[Entry]:
    label = "kernels"
    for difference in differs:
        here = _HERE if difference.here else ""
        yield label, f"{difference.since}{here}: {difference.what} [{difference.source}]"
        label = ""


def _alternatives(alternatives: Iterable[Alternative]) -> Iterator[Entry]:
    for alternative in alternatives:
        yield f"  {alternative.setting}"
        for change in alternative.changes:
            yield "", f"{change.field}: {change.before} -> {change.after}"


def _lines(entries: Iterable[Entry], width: int) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            yield from _wrapped(*entry, width)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    if not text:
        return []
    start = f"{_INDENT}{label:<{_LABEL}}"
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )
    # A long mask is one word to textwrap.
    return [part for line in lines for part in _at_bars(line, len(start), width)]


def _at_bars(line: str, indent: int, width: int) -> Iterator[str]:
    if len(line) > width and (cut := max(line.rfind("|", indent, width), line.rfind(" ", indent, width)) + 1) > indent:
        yield line[:cut].rstrip()
        rest = " " * indent + line[cut:]
        yield from _at_bars(rest, indent, width)
        return
    yield line


def _write(console: Console, title: str, entries: Iterable[Entry], width: int) -> None:
    console.line((title, "bold"))
    console.lines(_lines(entries, width))
