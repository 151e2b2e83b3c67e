# SPDX-License-Identifier: MIT
"""The messages of a kernel log, whatever is around them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from kalloctrace.logs.prefixes import without_prefix
from kalloctrace.logs.unwrap import continues
from kalloctrace.text import printable


class Message(NamedTuple):
    """One message of the kernel.

    Attributes:
        line: the number of its first physical line, from 1.
        text: without prefix, joined if it was wrapped; printable.
        time: seconds, comparable within one log: since boot, or since the epoch; None if not printed.
        wall: the wall-clock time as printed; None if not printed.
        caller: the caller id of CONFIG_PRINTK_CALLER, such as "T123" or "C1"; "" if not printed.
        host: the host's name; "" if not printed.
    """

    line: int
    text: str
    time: float | None = None
    wall: str | None = None
    caller: str = ""
    host: str = ""


def read_messages(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of a log in the order of their first lines, in constant memory.

    Args:
        lines: the text, with or without line ends.
    """
    last: Message | None = None
    prefixed = False
    for number, raw in enumerate(lines, 1):
        text, caller, has_prefix = without_prefix(printable(raw.rstrip("\r\n"), instead=" "))
        if prefixed and not has_prefix and text and last is not None and continues(last.text, text):
            last = last._replace(text=f"{last.text.rstrip()} {text.strip()}")
            continue
        prefixed = prefixed or has_prefix
        if last is not None:
            yield last
        last = Message(number, text.strip(), caller=caller)
    if last is not None:
        yield last
