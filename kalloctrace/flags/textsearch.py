# SPDX-License-Identifier: MIT
"""Finds masks in logs, traces and page_owner dumps, and decodes each as its own kernel would."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from kalloctrace.flags.builtin import KNOWN_RELEASES, all_releases, certain_mask, known_release, tables_of
from kalloctrace.flags.decode import U32_MAX, Decoded, decode_gfp
from kalloctrace.flags.logforms import MaskText, ReleaseText, masks_in, release_in
from kalloctrace.flags.releases import is_backporting_vendor
from kalloctrace.flags.tables import FlagTables

# A report names its kernel two to four lines below the mask; other CPUs' lines may come between.
_LOOK_AHEAD = 8
_CUT = "the line is cut off within the names"


@dataclass(frozen=True)
class Found:
    """A mask in a text.

    Attributes:
        line: 1-based number of the line.
        column: where the mask begins in it, 1-based.
        kind: "gfp".
        value: the mask (`gfp_t`), None when the text does not tell it for certain.
        decoded: the mask in words, None when neither tables nor printed names tell them for certain.
        printed: the names that the text prints, in its order; without unnamed bits.
        kernel: the kernel whose tables decoded it, or the release that the text names; "" when it names none.
        source: the source of these tables; "text" when the names are the text's own.
        note: what cannot be said for certain, "" when nothing.
        form: which kind of line it was, "page allocation failure" or a tracepoint's name.
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
    """What the text has said of its kernel; compared by identity, so that answers can be cached by it.

    Attributes:
        name: the release as the text has it, "" when it named none.
        tables: its tables, None when there are none.
        certain: the gfp bits that mean the same on every configuration of that kernel.
    """

    name: str
    tables: FlagTables | None
    certain: int


@dataclass(frozen=True)
class _Answer:
    value: int | None
    decoded: Decoded | None
    note: str
    kernel: str
    source: str


@dataclass
class _Held:
    """A mask that waits for its report's release, with what was known when it was met."""

    line: int
    mask: MaskText
    kernel: _Kernel
    settled: bool


def find_masks(lines: Iterable[str], tables: FlagTables | None) -> Iterator[Found]:
    """Find every gfp mask, in the order of the text, in constant memory.

    Args:
        lines: the text, with or without line ends.
        tables: what to decode with as long as the text has named no kernel release; None for no tables at
            all.
    """
    stated = _Kernel("", tables, _certain_of(tables))
    kernel = stated
    held: deque[_Held] = deque()
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        release = release_in(line)
        if release is not None:
            kernel = _kernel_of(release, stated, kernel)
            _settle(held, release, kernel)
        held.extend(_Held(number, mask, kernel, not mask.release_follows) for mask in masks_in(line))
        while held and (held[0].settled or number - held[0].line >= _LOOK_AHEAD):
            yield _found(held.popleft())
    while held:
        yield _found(held.popleft())


def _certain_of(tables: FlagTables | None) -> int:
    if tables is None:
        return 0
    release = known_release(tables.kernel)
    if tables.source != "builtin" or release is None:
        return U32_MAX
    return certain_mask(release)


def _kernel_of(text: ReleaseText, stated: _Kernel, current: _Kernel) -> _Kernel:
    """Return the kernel that a line names: the caller's own tables when they are of that very release."""
    if text.release == current.name:
        return current
    if stated.tables is not None and text.release == stated.tables.kernel:
        return _Kernel(text.release, stated.tables, stated.certain)
    release = known_release(text.release, text.version)
    if release is None:
        return _Kernel(text.release, None, 0)
    return _Kernel(text.release, tables_of(release), certain_mask(release))


def _settle(held: deque[_Held], release: ReleaseText, kernel: _Kernel) -> None:
    """Give the kernel to the masks above it that belong to the same report.

    Those are the masks that name the task which this line names, and masks without a task below them. A mask
    without a task above them may be of another log.
    """
    if release.comm is None:
        return
    report_begun = False
    for waiting in reversed(held):
        if waiting.settled:
            continue
        same_task = waiting.mask.task.endswith(release.comm)
        if same_task or (waiting.mask.task == "" and not report_begun):
            waiting.kernel, waiting.settled = kernel, True
        report_begun = report_begun or same_task


def _found(held: _Held) -> Found:
    mask = held.mask
    answer = _answer(mask.number, mask.names, mask.cut, held.kernel)
    return Found(
        line=held.line,
        column=mask.column,
        kind="gfp",
        value=answer.value,
        decoded=answer.decoded,
        printed=_printed_names(mask.names, mask.cut),
        kernel=answer.kernel,
        source=answer.source,
        note=answer.note,
        form=mask.form,
    )


def _printed_names(names: str | None, cut: bool) -> tuple[str, ...]:
    words = names.split("|") if names else []
    # The last name of a line that was cut short is a part of a name.
    return tuple(word for word in (words[:-1] if cut else words) if word and not word.startswith("0x"))


# Traces have millions of lines and some hundred different masks.
@lru_cache(maxsize=4096)
def _answer(number: int | None, names: str | None, cut: bool, kernel: _Kernel) -> _Answer:
    if number is not None and number > U32_MAX:
        return _Answer(number, None, "wider than a gfp mask, which has 32 bits", kernel.name, "text")
    if number == 0 or (number is None and not names):
        # No bits are no bits on every kernel.
        return _nothing(names or "", kernel)
    if cut:
        answer = _answer(number, None, False, kernel)
        return replace(answer, note="; ".join(filter(None, (_CUT, answer.note))))
    if kernel.tables is None:
        return _without_tables(number, names, kernel)
    if number is not None:
        return _checked(number, names, kernel, kernel.tables)
    return _from_names(names or "", kernel, kernel.tables)


def _nothing(names: str, kernel: _Kernel) -> _Answer:
    note = f"the text prints {names} for no bits" if names else ""
    name, source = (kernel.name, "text") if kernel.tables is None else (kernel.tables.kernel, kernel.tables.source)
    return _Answer(0, Decoded("gfp", 0, (), 0, ""), note, name, source)


def _checked(number: int, names: str | None, kernel: _Kernel, tables: FlagTables) -> _Answer:
    """Decode a number, and hold the printed names against it."""
    decoded = decode_gfp(number, tables)
    note = ""
    if names is None:
        unsure = number & ~kernel.certain
        note = f"{unsure:#x} depends on how that kernel was configured" if unsure else ""
    elif _parse(names, tables) != number:
        if not (_known_part(names, tables) ^ number) & kernel.certain:
            # Only bits that a build option may have moved differ: the kernel knows its own best.
            note = f"names as printed; the {tables.source} tables of {tables.kernel} read {decoded.text}"
            return _Answer(number, _as_printed(number, names), note, tables.kernel, "text")
        note = f"the text prints {names or 'no names'}, which is not {number:#x} on {tables.kernel}"
    return _Answer(number, decoded, note, tables.kernel, tables.source)


def _known_part(names: str, tables: FlagTables) -> int:
    value = 0
    for word in names.split("|"):
        value |= _parse(word, tables) or 0
    return value


def _from_names(names: str, kernel: _Kernel, tables: FlagTables) -> _Answer:
    """Work out the number of a mask that is printed as names only."""
    value = _parse(names, tables)
    if value is None:
        note = f"{tables.kernel} does not have all of these names, so the value is not known"
        return _Answer(None, None, note, tables.kernel, "text")
    moved = [word for word in names.split("|") if tables.has_gfp(word) and tables.gfp(word) & ~kernel.certain]
    note = f"the value of {moved[0]} depends on how that kernel was configured" if moved else ""
    return _Answer(value, decode_gfp(value, tables), note, tables.kernel, tables.source)


def _without_tables(number: int | None, names: str | None, kernel: _Kernel) -> _Answer:
    why = _why_no_tables(kernel.name)
    if names is None:
        return _Answer(number, None, f"unknown: {why}, and no names are printed in full", kernel.name, "text")
    if kernel.name:
        what = "value not checked bit by bit" if number is not None else "value not known"
        decoded = _as_printed(number, names) if number is not None else None
        return _Answer(number, decoded, f"names as printed; {what}: {why}", kernel.name, "text")
    return _fitted(number, names)


def _why_no_tables(name: str) -> str:
    if not name:
        return "the text names no kernel release"
    if is_backporting_vendor(name):
        return f"the vendor of {name} moves code between releases"
    return f"the bits of {KNOWN_RELEASES} are known here, those of {name} are not"


def _fitted(number: int | None, names: str) -> _Answer:
    """Ask all built-in kernels about a mask whose kernel the text does not name."""
    if number is not None:
        fits = any(decode_gfp(number, tables).text == names for tables in _all_tables())
        note = (
            ""
            if fits
            else f"names as printed; value not checked bit by bit: no kernel from {KNOWN_RELEASES} prints it so"
        )
        return _Answer(number, _as_printed(number, names), note, "", "text")
    values = {_parse(names, tables) for tables in _all_tables()} - {None}
    if len(values) != 1:
        many = "differs between" if values else "is not known on"
        return _Answer(None, None, f"names as printed; their value {many} kernels from {KNOWN_RELEASES}", "", "text")
    value = values.pop()
    return _Answer(
        value, _as_printed(value or 0, names), f"the value holds for kernels from {KNOWN_RELEASES}", "", "text"
    )


@lru_cache(maxsize=1)
def _all_tables() -> tuple[FlagTables, ...]:
    return tuple(tables_of(release) for release in all_releases())


def _as_printed(value: int, names: str) -> Decoded:
    words = [word for word in names.split("|") if word]
    numbers = [int(word, 16) for word in words if word.startswith("0x")]
    return Decoded("gfp", value, _printed_names(names, cut=False), sum(numbers) & U32_MAX, names)


def _parse(names: str, tables: FlagTables) -> int | None:
    """Return the mask that printed names stand for, None when this kernel does not have all of them."""
    value = 0
    for word in filter(None, names.split("|")):
        if word.startswith("0x"):
            value |= int(word, 16)
        elif tables.has_gfp(word):
            value |= tables.gfp(word)
        else:
            return None
    return value if value <= U32_MAX else None
