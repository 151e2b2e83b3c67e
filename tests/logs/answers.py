# SPDX-License-Identifier: MIT
"""What the program answers to a log, in the same process, as JSON objects."""

import json
from collections.abc import Iterable, Iterator, Sequence
from tempfile import NamedTemporaryFile
from typing import Any

from kalloctrace.commands.log_reader import LogOptions, LogReader
from kalloctrace.diagnose.alike import alike_json

Answer = dict[str, Any]

PLACES = frozenset(("line", "lines", "log", "first", "last", "first_text", "last_text"))
"""Keys that say where in a file something is, or when it was printed."""


def answers_to(data: bytes, options: LogOptions = LogOptions()) -> list[Answer]:  # noqa: B008 immutable
    """Return what `explain --json` prints.

    Args:
        data: the file.
        options: such as --kernel.
    """
    with NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        return [alike_json(group, file.name) for group in LogReader.of(options).explain(file.name).groups]


def _is_place(key: str) -> bool:
    return key in PLACES or key.endswith("_line")


def without_places(value: object) -> object:
    """Return an answer without what differs between two files that say the same."""
    if isinstance(value, dict):
        return {key: without_places(each) for key, each in value.items() if not _is_place(key)}
    if isinstance(value, list):
        return [without_places(each) for each in value]
    return value


def verdicts(answer: Answer) -> dict[tuple[int, str], str]:
    """Return the verdict on each zone."""
    return {(zone["node"], zone["zone"]): zone["verdict"] for zone in answer["zones"]}


def certain_zones(answer: Answer) -> dict[tuple[int, str], str]:
    """Return the verdicts that are certain."""
    certain = [zone for zone in answer["zones"] if zone["certainty"] == "certain"]
    return {(zone["node"], zone["zone"]): zone["verdict"] for zone in certain}


def differing(left: Iterable[Answer], right: Iterable[Answer]) -> str:
    """Return the keys in which two lists of answers differ, with both values; "" if they are alike."""
    one, other = [without_places(each) for each in left], [without_places(each) for each in right]
    if len(one) != len(other):
        return f"{len(one)} answers, {len(other)} answers"
    return "; ".join(
        f"{key}: {first.get(key)!r}, {second.get(key)!r}"
        for first, second in zip(one, other, strict=True)
        if isinstance(first, dict) and isinstance(second, dict)
        for key in {**first, **second}
        if first.get(key) != second.get(key)
    )


def stronger(full: Sequence[Answer], cut: Sequence[Answer]) -> list[str]:
    """Return what the answers to a cut log claim that those to the whole log do not.

    Less may be known, and more may be unknown; a claim may neither differ nor be more certain.

    Args:
        full: the one answer to a log with one report.
        cut: the answers to a part of it.
    """
    if len(cut) > 1:
        return [f"{len(cut)} answers"]
    return [claim for answer in cut for claim in _stronger(full[0], answer)]


_SAME_OR = {
    "order": (),
    "comm": ("",),
    "kernel": (None,),
    "nodemask": (None,),
    "mems_allowed": (None,),
    "highest_zone": (None,),
    "constraint": ("none",),
    "harm": ("unknown",),
    "out_of_memory": (None,),
}
"""Facts, with the values that stand for not knowing them."""


def _stronger(full: Answer, cut: Answer) -> Iterator[str]:
    if cut["event"] not in {full["event"], "memory"}:
        yield f"event {cut['event']}"
    yield from _other_facts(full, cut)
    known, certain = verdicts(full), certain_zones(full)
    # A zone's list alone can refuse a request that its watermark refuses first; both are true then.
    listed = {(zone["node"], zone["zone"]) for zone in cut["zones"] if zone["free_kb"] is None}
    listed |= {(zone["node"], zone["zone"]) for zone in full["zones"] if _has_no_block_either(zone, full["order"])}
    if cut["certainty"] == "certain" and cut["conclusion"] != "memcg":
        yield from (f"certain without {zone}" for zone in _proven(cut) - verdicts(cut).keys())
        if full["certainty"] != "certain" and not verdicts(cut).keys() <= certain.keys():
            yield f"certain of {cut['conclusion']} instead of {full['certainty']} of {full['conclusion']}"
        if cut["conclusion"] != _shown(full, cut, listed):
            yield f"certain of {cut['conclusion']} instead of {full['conclusion']}"
    for zone, verdict in verdicts(cut).items():
        if verdict not in {known.get(zone), "unknown"} and not (zone in listed and verdict == "block"):
            yield f"{zone} {verdict} instead of {known.get(zone)}"
    for zone, verdict in certain_zones(cut).items():
        if verdict != certain.get(zone) and not (zone in listed and verdict == "block"):
            yield f"{zone} certainly {verdict} instead of {certain.get(zone)}"
    yield from (f"known_bugs {each}" for each in _texts(cut, "known_bugs") - _texts(full, "known_bugs"))
    sure = {each["setting"] for each in full["advice"] if each["certainty"] == "certain"}
    given = {each["setting"] for each in cut["advice"] if each["certainty"] == "certain"}
    yield from (f"advice {setting}" for setting in given - sure)


def _other_facts(full: Answer, cut: Answer) -> Iterator[str]:
    for key, unknown in _SAME_OR.items():
        value, whole = cut.get(key), full.get(key)
        if value is None or value in (whole, *unknown) or (cut["event"] == "memory" and key in {"order", "harm"}):
            continue
        if key == "kernel" and str(whole).startswith(value):
            continue  # the line of the release is the last one, and cut off
        if key == "comm" and str(whole).endswith(f": {value}"):
            continue  # only the line with "Comm:" tells a colon in a name from the one behind a host
        yield f"{key} {value!r} instead of {whole!r}"


def _has_no_block_either(zone: dict[str, Any], order: int) -> bool:
    """Return whether a zone that its watermark refused has no block of an order or more either, whatever its type."""
    return zone["verdict"] == "watermark" and zone["free_blocks"] is not None and not any(zone["free_blocks"][order:])


def _shown(full: Answer, cut: Answer, listed: set[tuple[int, str]]) -> str:
    """Return the whole log's conclusion, of the zones that the part shows."""
    by_list = {zone for zone, verdict in verdicts(cut).items() if verdict == "block" and zone in listed}
    kinds = {"block" if zone in by_list else verdicts(full).get(zone, "") for zone in verdicts(cut)} - {"excluded"}
    if len(kinds & {"watermark", "block"}) == len(kinds) > 0:
        return kinds.pop() if len(kinds) == 1 else "mixed"
    return str(full["conclusion"])


_NAMES = ("DMA", "DMA32", "Normal", "Movable", "Device")


def _proven(answer: Answer) -> set[tuple[int, str]]:
    """Return zones with pages by the lowmem_reserve of lower ones: it grows with each such zone's size.

    Source: `setup_per_zone_lowmem_reserve` in mm/page_alloc.c.
    """
    highest = answer["highest_zone"] or "DMA"
    return {
        (zone["node"], _NAMES[index])
        for zone in answer["zones"]
        for index in range(_NAMES.index(zone["zone"]) + 1, _NAMES.index(highest) + 1)
        if index < len(reserve := zone["lowmem_reserve"] or ()) and reserve[index] > reserve[index - 1]
    }


def _texts(answer: Answer, key: str) -> set[str]:
    return {json.dumps(without_places(each), sort_keys=True) for each in answer.get(key, [])}
