# SPDX-License-Identifier: MIT
"""A walkthrough as text for a terminal."""

import textwrap
from collections.abc import Iterable, Iterator

from kalloctrace.console import Console
from kalloctrace.explain.walkthrough import SAME_EVERYWHERE, Alternative, Difference, Walkthrough, WalkthroughStep

WIDTH = 80
_LABEL = 9
_INDENT = " " * 5
_HERE = " (here)"


def walkthrough_lines(walkthrough: Walkthrough) -> Iterator[str]:
    """Yield the lines of the steps, and of the rules that this kernel lacks."""
    for step in walkthrough.steps:
        yield from _step(step)
    if walkthrough.not_here:
        yield "  not on this kernel:"
        for difference in walkthrough.not_here:
            yield from _wrapped("", f"{difference.since}: {difference.what} [{difference.source}]")


def write_alternatives(walkthrough: Walkthrough, console: Console) -> None:
    """Print what would change the answer, and where to read more.

    Args:
        walkthrough: the walkthrough.
        console: where to print; headings are bold on a terminal.
    """
    _write(console, "what would change the answer", _what_would_change(walkthrough))
    if walkthrough.kernels:
        _write(console, "other kernels, same request", _alternatives(walkthrough.kernels))
    _write(console, "read more", _read_more(walkthrough))


def _what_would_change(walkthrough: Walkthrough) -> Iterator[str]:
    yield from _alternatives(walkthrough.alternatives)
    if walkthrough.passed_through:
        yield "  these gfp bits only pass through to get_page_from_freelist:"
        yield from _wrapped("", ", ".join(walkthrough.passed_through))


def _read_more(walkthrough: Walkthrough) -> Iterator[str]:
    yield from _wrapped("", ", ".join(walkthrough.terms))
    yield f"  for example: kalloctrace explain --term {walkthrough.terms[0]}"


def write_comparison(alternative: Alternative, before: Walkthrough, after: Walkthrough, console: Console) -> None:
    """Print the effect of settings: the arguments before and after, and the steps whose result changes.

    Args:
        alternative: the comparison.
        before: the walkthrough of the original request.
        after: the walkthrough with the settings.
        console: where to print; headings are bold on a terminal.
    """
    _write(console, f"with --set {alternative.setting}", _before_and_after(alternative))
    if alternative.rules:
        _write(console, "steps that change", _other_steps(alternative.rules, before, after))


def _before_and_after(alternative: Alternative) -> Iterator[str]:
    if not alternative.changes:
        yield "  nothing changes: get_page_from_freelist receives the same"
    for change in alternative.changes:
        yield f"  {change.field}"
        yield from _wrapped("before", change.before)
        yield from _wrapped("after", change.after)


def _other_steps(rules: Iterable[str], before: Walkthrough, after: Walkthrough) -> Iterator[str]:
    for rule in rules:
        steps = [
            next((step for step in walkthrough.steps if step.rule == rule), None) for walkthrough in (before, after)
        ]
        taken = next(step for step in steps if step is not None)
        yield f"  {taken.function}"
        yield from _wrapped("if", taken.condition)
        for label, step in zip(("before", "after"), steps, strict=True):
            yield from _wrapped(label, "this step is not reached" if step is None else step.effect)


def _step(step: WalkthroughStep) -> Iterator[str]:
    yield f"  {step.number:2} {step.function}"
    yield from _wrapped("if", step.condition)
    yield from _wrapped("with", "; ".join(f"{name} = {value}" for name, value in step.values))
    yield from _wrapped("then", step.effect)
    yield from _history(step.differs) if step.differs else _wrapped("kernels", SAME_EVERYWHERE)
    yield from _wrapped("try", ", ".join(f"--set {setting}" for setting in step.would_change))
    yield from _wrapped("read", ", ".join(step.terms))


def _history(differs: tuple[Difference, ...]) -> Iterator[str]:
    label = "kernels"
    for difference in differs:
        here = _HERE if difference.here else ""
        yield from _wrapped(label, f"{difference.since}{here}: {difference.what} [{difference.source}]")
        label = ""


def _alternatives(alternatives: Iterable[Alternative]) -> Iterator[str]:
    for alternative in alternatives:
        yield f"  {alternative.setting}"
        for change in alternative.changes:
            yield from _wrapped("", f"{change.field}: {change.before} -> {change.after}")


def _wrapped(label: str, text: str) -> list[str]:
    if not text:
        return []
    start = f"{_INDENT}{label:<{_LABEL}}"
    lines = textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_on_hyphens=False,
        break_long_words=False,
    )
    # A long mask is one word to textwrap.
    return [part for line in lines for part in _at_bars(line, len(start))]


def _at_bars(line: str, indent: int) -> Iterator[str]:
    if len(line) > WIDTH and (cut := max(line.rfind("|", indent, WIDTH), line.rfind(" ", indent, WIDTH)) + 1) > indent:
        yield line[:cut].rstrip()
        rest = " " * indent + line[cut:]
        yield from _at_bars(rest, indent)
        return
    yield line


def _write(console: Console, title: str, lines: Iterable[str]) -> None:
    console.line((title, "bold"))
    console.lines(lines)
