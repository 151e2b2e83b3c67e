# SPDX-License-Identifier: MIT
"""One request as a walkthrough of the kernel's functions: plain data for text, JSON and HTML.

What would change the answer comes from running the model again with one input changed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from kalloctrace.explain import what_if
from kalloctrace.explain.inputs import result, values
from kalloctrace.explain.request import Answer, BadRequestError
from kalloctrace.explain.rules import Rule, absent, rule_of, words
from kalloctrace.explain.settings import Setting, with_setting
from kalloctrace.explain.what_if import Change
from kalloctrace.flags.builtin import KNOWN_RELEASES
from kalloctrace.flags.decode import decode_alloc
from kalloctrace.kernel.history import feature_rows, row_in_force
from kalloctrace.model.types import Step

SAME_EVERYWHERE = f"the same from {KNOWN_RELEASES}"
"""The history of a step that no kernel does differently."""

_FORMER = {"ALLOC_NOLOCK": "ALLOC_TRYLOCK"}


@dataclass(frozen=True, slots=True)
class Difference:
    """What a rule does from one release on.

    Attributes:
        since: "5.13".
        what: what it does there.
        source: the kernel commit, or the source package and line.
        here: the explained kernel does it this way.
    """

    since: str
    what: str
    source: str
    here: bool


@dataclass(frozen=True, slots=True)
class Alternative:
    """One changed input, and its effect.

    Attributes:
        setting: as `explain --set` takes it.
        changes: what `get_page_from_freelist` receives differently.
        rules: the rules whose own result changes.
    """

    setting: str
    changes: tuple[Change, ...]
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WalkthroughStep:
    """One step of the path.

    Attributes:
        number: from 1.
        rule: stable identifier.
        function: the kernel's function.
        condition: the expression that the kernel evaluates there.
        values: its inputs: names and values.
        effect: its result, a sentence.
        differs: what the rule does on other kernels, oldest first; empty where it is the same from 5.8 to 7.3.
        would_change: the settings that give this step another result.
        terms: the documentation pages about it.
    """

    number: int
    rule: str
    function: str
    condition: str
    values: tuple[tuple[str, str], ...]
    effect: str
    differs: tuple[Difference, ...]
    would_change: tuple[str, ...]
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Walkthrough:
    """A whole request, explained.

    Attributes:
        steps: the path.
        not_here: rules of other kernels that this one lacks, each with its history.
        alternatives: every single changed input that changes the outcome.
        passed_through: settings of gfp bits that reach `get_page_from_freelist` and have no other effect.
        kernels: other kernels with a different answer.
        terms: the documentation pages about all of it.
    """

    steps: tuple[WalkthroughStep, ...]
    not_here: tuple[Difference, ...]
    alternatives: tuple[Alternative, ...]
    passed_through: tuple[str, ...]
    kernels: tuple[Alternative, ...]
    terms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the walkthrough as JSON values."""
        data = asdict(self)
        for step in data["steps"]:
            step["values"] = dict(step["values"])
        return data


def walkthrough_of(answer: Answer) -> Walkthrough:
    """Return the walkthrough of a request.

    Calls of the bulk allocator have none: `explain` has no such request.

    Args:
        answer: the request, its kernel and context, and their preparation.
    """
    tried = tuple(_tried(answer, what_if.candidates(answer)))
    passed = tuple(one.setting for one, after in tried if what_if.only_passes_through(answer, after))
    alternatives = tuple(one for one, _ in tried if one.changes and one.setting not in passed)
    steps = tuple(_step(answer, number, step, alternatives) for number, step in enumerate(answer.preparation.steps, 1))
    return Walkthrough(
        steps=steps,
        not_here=tuple(_not_here(answer)),
        alternatives=alternatives,
        passed_through=passed,
        kernels=tuple(one for one, _ in _tried(answer, what_if.other_kernels(answer)) if one.changes),
        terms=_all_terms(answer, steps),
    )


def own_terms(answer: Answer, terms: Iterable[str]) -> tuple[str, ...]:
    """Return the terms that are this kernel's own: flags that were renamed by the name that it has for them.

    Args:
        answer: the request, for its kernel.
        terms: names of documentation pages.
    """
    alloc = dict(answer.kernel.tables.alloc)
    own = (_FORMER.get(term, term) if term.startswith("ALLOC_") and term not in alloc else term for term in terms)
    return tuple(own)


def walkthrough_sections(walkthrough: Walkthrough) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return a walkthrough as headings with labels and texts; every heading has some."""
    sections = [
        *((f"step {step.number}: {step.function}", list(_step_fields(step))) for step in walkthrough.steps),
        ("not on this kernel", [(one.since, f"{one.what} [{one.source}]") for one in walkthrough.not_here]),
        ("what would change the answer", [_alternative_field(one) for one in walkthrough.alternatives]),
        ("other kernels, same request", [_alternative_field(one) for one in walkthrough.kernels]),
    ]
    return [(heading, fields) for heading, fields in sections if fields]


def _step_fields(step: WalkthroughStep) -> Iterator[tuple[str, str]]:
    yield "if", step.condition
    yield "with", "; ".join(f"{name} = {value}" for name, value in step.values)
    yield "then", step.effect
    if not step.differs:
        yield "kernels", SAME_EVERYWHERE
    for one in step.differs:
        yield f"{one.since} (here)" if one.here else one.since, f"{one.what} [{one.source}]"
    if step.would_change:
        yield "would change it", ", ".join(step.would_change)
    yield "read", ", ".join(step.terms)


def _alternative_field(alternative: Alternative) -> tuple[str, str]:
    return alternative.setting, "; ".join(f"{one.field}: {one.before} -> {one.after}" for one in alternative.changes)


def compared(before: Answer, after: Answer, settings: tuple[str, ...]) -> Alternative:
    """Return the effect of settings.

    Args:
        before: the original request.
        after: the request with the settings.
        settings: the changed inputs, as text.
    """
    changes = what_if.changes(before, after)
    return Alternative(", ".join(settings), changes, _other_rules(before, after) if changes else ())


def _tried(answer: Answer, settings: Iterator[Setting]) -> Iterator[tuple[Alternative, Answer]]:
    for setting in settings:
        try:
            after = with_setting(answer, setting)
        except BadRequestError:
            # This machine or kernel does not have it.
            continue
        yield compared(answer, after, (setting.text,)), after


def _step(answer: Answer, number: int, step: Step, alternatives: tuple[Alternative, ...]) -> WalkthroughStep:
    rule = rule_of(step)
    return WalkthroughStep(
        number=number,
        rule=step.rule,
        function=step.function,
        condition=rule.condition(answer.kernel),
        values=tuple(values(answer, step.rule).items()),
        effect=step.effect,
        differs=_history(answer, rule),
        would_change=tuple(one.setting for one in alternatives if step.rule in one.rules),
        terms=own_terms(answer, rule.terms),
    )


def _all_terms(answer: Answer, steps: Iterable[WalkthroughStep]) -> tuple[str, ...]:
    flags = answer.preparation.alloc_flags
    named = () if flags is None else decode_alloc(flags, answer.kernel.tables).names
    found = dict.fromkeys([*(term for step in steps for term in step.terms), *named])
    return tuple(found) if flags is None else (*found, "watermarks")


def _history(answer: Answer, rule: Rule) -> tuple[Difference, ...]:
    found = [*_rows(answer, rule.features), *((since, what, source, False) for since, what, source in rule.rewrites)]
    return tuple(
        Difference(f"{since[0]}.{since[1]}", what, source, here)
        for since, what, source, here in sorted(found, key=lambda row: row[0])
    )


def _rows(answer: Answer, features: tuple[str, ...]) -> Iterator[tuple[tuple[int, int], str, str, bool]]:
    for feature in features:
        rows = feature_rows(feature)
        if len(rows) == 1:
            continue
        in_force = row_in_force(feature, answer.kernel.tables)
        value = getattr(answer.kernel.features, feature)
        for row in rows:
            here = row is in_force and row.value == value
            yield row.since, words(feature, row.value), row.source, here


def _not_here(answer: Answer) -> Iterator[Difference]:
    taken = {step.rule for step in answer.preparation.steps}
    for rule, feature in absent(answer.kernel.features):
        if rule in taken:
            continue
        for row in feature_rows(feature):
            if row.value is True:
                yield Difference(f"{row.since[0]}.{row.since[1]}", words(feature, row.value), row.source, here=False)


def _other_rules(before: Answer, after: Answer) -> tuple[str, ...]:
    """Return the rules whose own result differs, in the order of the steps; of a rejection the step that rejects."""
    if before.preparation.outcome != after.preparation.outcome:
        rejected = before if before.preparation.outcome == "rejected" else after
        return (rejected.preparation.steps[-1].rule,)
    names = dict.fromkeys(step.rule for answer in (before, after) for step in answer.preparation.steps)
    return tuple(rule for rule in names if result(before, rule) != result(after, rule))
