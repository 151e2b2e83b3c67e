# SPDX-License-Identifier: MIT
"""Finds masks in logs, traces and page_owner dumps, and decodes each with the tables of its kernel."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from kalloctrace.flags.builtin import KNOWN_RELEASES, all_releases, certain_mask, known_release, tables_of
from kalloctrace.flags.decode import U32_MAX, Decoded, decode_gfp
from kalloctrace.flags.logforms import MaskText, ReleaseText, masks_in, release_in
from kalloctrace.flags.releases import is_backporting_vendor
from kalloctrace.flags.tables import FlagTables

# A report names its kernel two to four lines below the mask; lines of other CPUs may stand between them.
_LOOK_AHEAD = 8
_CUT = "the line is cut off within the names"
# Bits without a name, as printed among the names. Where lines of two CPUs mix, "0x" can begin any word.
_HEX = re.compile(r"0x[0-9a-fA-F]{1,16}")


@dataclass(frozen=True)
class Found:
    """A mask in a text.

    Attributes:
        line: the line number, 1-based.
        column: the column of the mask's first character, 1-based.
        kind: "gfp".
        value: the mask (`gfp_t`); None if the text does not determine it.
        decoded: the decoded mask; None if neither tables nor printed names determine the names.
        printed: the names in the text, in its order, without unnamed bits.
        kernel: the kernel whose tables decoded the mask, or the release in the text; "" if it names none.
        source: the source of the tables; "text" if the names are those of the text.
        note: what is uncertain; "" if nothing is.
        form: the kind of line: "page allocation failure" or the like, or a tracepoint's name.
    """

    line: int
    column: int
    kind: str
    value: int | None
    decoded: Decoded | None
    printed: tuple[str, ...]
    kernel: str
    source: str
    note: str
    form: str


@dataclass(frozen=True, eq=False)
class _Kernel:
    """The kernel that the text names; compared by identity, so that it can be a cache key.

    Attributes:
        name: the release as the text prints it; "" if it names none.
        tables: its tables; None if there are none.
        certain: the gfp bits that mean the same in every configuration of that kernel.
    """

    name: str
    tables: FlagTables | None
    certain: int


@dataclass(frozen=True)
class _Reading:
    value: int | None
    decoded: Decoded | None
    note: str
    kernel: str
    source: str


@dataclass
class _Pending:
    """A mask that may still get its report's release, with the kernel known so far."""

    line: int
    mask: MaskText
    kernel: _Kernel
    assigned: bool


def find_masks(lines: Iterable[str], tables: FlagTables | None) -> Iterator[Found]:
    """Find all gfp masks in the order of the text, in constant memory.

    Args:
        lines: the text, with or without line ends.
        tables: the tables for masks before the first kernel release in the text; None if there are none.
    """
    given = _Kernel("", tables, _certain_of(tables))
    kernel = given
    pending: deque[_Pending] = deque()
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        release = release_in(line)
        if release is not None:
            kernel = _kernel_of(release, given, kernel)
            _assign(pending, release, kernel)
        pending.extend(_Pending(number, mask, kernel, not mask.release_follows) for mask in masks_in(line))
        while pending and (pending[0].assigned or number - pending[0].line >= _LOOK_AHEAD):
            yield _found(pending.popleft())
    while pending:
        yield _found(pending.popleft())


def read_mask(line: int, mask: MaskText, release: ReleaseText | None, tables: FlagTables | None) -> Found:
    """Decode one mask with the tables of its kernel.

    Args:
        line: its line number, 1-based.
        mask: the mask as the line prints it.
        release: its kernel; None if the text names none.
        tables: the tables for that case, or if they are this release's; None if there are none.
    """
    given = _Kernel("", tables, _certain_of(tables))
    kernel = given if release is None else _cached_kernel(release, given.tables)
    return _found(_Pending(line, mask, kernel, assigned=True))


@lru_cache(maxsize=64)
def _cached_kernel(release: ReleaseText, tables: FlagTables | None) -> _Kernel:
    given = _Kernel("", tables, _certain_of(tables))
    return _kernel_of(release, given, given)


def _certain_of(tables: FlagTables | None) -> int:
    if tables is None:
        return 0
    release = known_release(tables.kernel)
    if tables.source != "builtin" or release is None:
        return U32_MAX
    return certain_mask(release)


def _kernel_of(text: ReleaseText, given: _Kernel, current: _Kernel) -> _Kernel:
    """Return the kernel that a line names; it has the caller's tables if they are for this exact release."""
    if text.release == current.name:
        return current
    if given.tables is not None and text.release == given.tables.kernel:
        return _Kernel(text.release, given.tables, given.certain)
    release = known_release(text.release, text.version)
    if release is None:
        return _Kernel(text.release, None, 0)
    return _Kernel(text.release, tables_of(release), certain_mask(release))


def _assign(pending: deque[_Pending], release: ReleaseText, kernel: _Kernel) -> None:
    """Assign the kernel to the pending masks of the same report.

    These are the masks of the task that this line names, and masks without a task below them. A mask without a task
    above them may belong to another log.
    """
    if release.comm is None:
        return
    report_begun = False
    for waiting in reversed(pending):
        if waiting.assigned:
            continue
        same_task = waiting.mask.task.endswith(release.comm)
        if same_task or (waiting.mask.task == "" and not report_begun):
            waiting.kernel, waiting.assigned = kernel, True
        report_begun = report_begun or same_task


def _found(pending: _Pending) -> Found:
    mask = pending.mask
    reading = _read(mask.number, mask.names, mask.cut, pending.kernel)
    return Found(
        line=pending.line,
        column=mask.column,
        kind="gfp",
        value=reading.value,
        decoded=reading.decoded,
        printed=_printed_names(mask.names, mask.cut),
        kernel=reading.kernel,
        source=reading.source,
        note=reading.note,
        form=mask.form,
    )


def _printed_names(names: str | None, cut: bool) -> tuple[str, ...]:
    words = names.split("|") if names else []
    # The last name of a truncated line is incomplete.
    return tuple(word for word in (words[:-1] if cut else words) if word and _HEX.fullmatch(word) is None)


# Traces have millions of lines and a few hundred distinct masks.
@lru_cache(maxsize=4096)
def _read(number: int | None, names: str | None, cut: bool, kernel: _Kernel) -> _Reading:
    if number is not None and number > U32_MAX:
        return _Reading(number, None, "wider than a gfp mask, which has 32 bits", kernel.name, "text")
    if number == 0 or (number is None and not names):
        # Zero means no flags on every kernel.
        return _zero(names, kernel)
    if cut:
        reading = _read(number, None, False, kernel)
        return replace(reading, note="; ".join(filter(None, (_CUT, reading.note))))
    if kernel.tables is None:
        return _without_tables(number, names, kernel)
    if number is not None:
        return _from_number(number, names, kernel, kernel.tables)
    return _from_names(names or "", kernel, kernel.tables)


def _zero(names: str | None, kernel: _Kernel) -> _Reading:
    note = f"the text prints {names} for no bits" if names else ""
    name, source = (kernel.name, "text") if kernel.tables is None else (kernel.tables.kernel, kernel.tables.source)
    return _Reading(0, Decoded("gfp", 0, (), 0, ""), note, name, source)


def _from_number(number: int, names: str | None, kernel: _Kernel, tables: FlagTables) -> _Reading:
    """Decode a number, and compare it with the printed names."""
    decoded = decode_gfp(number, tables)
    note = ""
    if names is None:
        unsure = number & ~kernel.certain
        note = f"{unsure:#x} depends on how that kernel was configured" if unsure else ""
    elif _parse(names, tables) != number:
        if not (_known_part(names, tables) ^ number) & kernel.certain:
            # Only bits that a build option may move differ, so the printed names are right.
            note = f"names as printed; the {tables.source} tables of {tables.kernel} read {decoded.text}"
            return _Reading(number, _as_printed(number, names), note, tables.kernel, "text")
        note = f"the text prints {names or 'no names'}, which is not {number:#x} on {tables.kernel}"
    return _Reading(number, decoded, note, tables.kernel, tables.source)


def _known_part(names: str, tables: FlagTables) -> int:
    value = 0
    for word in names.split("|"):
        value |= _parse(word, tables) or 0
    return value


def _from_names(names: str, kernel: _Kernel, tables: FlagTables) -> _Reading:
    """Compute the value of a mask that is printed as names only."""
    value = _parse(names, tables)
    if value is None:
        note = f"{tables.kernel} does not have all of these names, so the value is not known"
        return _Reading(None, None, note, tables.kernel, "text")
    moved = [word for word in names.split("|") if tables.has_gfp(word) and tables.gfp(word) & ~kernel.certain]
    note = f"the value of {moved[0]} depends on how that kernel was configured" if moved else ""
    return _Reading(value, decode_gfp(value, tables), note, tables.kernel, tables.source)


def _without_tables(number: int | None, names: str | None, kernel: _Kernel) -> _Reading:
    why = _why_no_tables(kernel.name)
    if names is None:
        return _Reading(number, None, f"unknown: {why}, and no names are printed in full", kernel.name, "text")
    if kernel.name:
        what = "value not checked bit by bit" if number is not None else "value not known"
        decoded = _as_printed(number, names) if number is not None else None
        return _Reading(number, decoded, f"names as printed; {what}: {why}", kernel.name, "text")
    return _from_all_kernels(number, names)


def _why_no_tables(name: str) -> str:
    if not name:
        return "the text names no kernel release"
    if is_backporting_vendor(name):
        return f"the vendor of {name} moves code between releases"
    return f"the bits of {KNOWN_RELEASES} are known here, those of {name} are not"


def _from_all_kernels(number: int | None, names: str) -> _Reading:
    """Compare a mask with all built-in kernels if the text does not name its kernel."""
    if number is not None:
        fits = any(decode_gfp(number, tables).text == names for tables in _all_tables())
        note = (
            ""
            if fits
            else f"names as printed; value not checked bit by bit: no kernel from {KNOWN_RELEASES} prints it so"
        )
        return _Reading(number, _as_printed(number, names), note, "", "text")
    values = {_parse(names, tables) for tables in _all_tables()} - {None}
    if len(values) != 1:
        many = "differs between" if values else "is not known on"
        return _Reading(None, None, f"names as printed; their value {many} kernels from {KNOWN_RELEASES}", "", "text")
    value = values.pop()
    return _Reading(
        value, _as_printed(value or 0, names), f"the value holds for kernels from {KNOWN_RELEASES}", "", "text"
    )


@lru_cache(maxsize=1)
def _all_tables() -> tuple[FlagTables, ...]:
    return tuple(tables_of(release) for release in all_releases())


def _as_printed(value: int, names: str) -> Decoded:
    words = [word for word in names.split("|") if word]
    numbers = [int(word, 16) for word in words if _HEX.fullmatch(word) is not None]
    return Decoded("gfp", value, _printed_names(names, cut=False), sum(numbers) & U32_MAX, names)


def _parse(names: str, tables: FlagTables) -> int | None:
    """Return the mask of printed names; None if this kernel does not have all of them."""
    value = 0
    for word in filter(None, names.split("|")):
        if _HEX.fullmatch(word) is not None:
            value |= int(word, 16)
        elif tables.has_gfp(word):
            value |= tables.gfp(word)
        else:
            return None
    return value if value <= U32_MAX else None
