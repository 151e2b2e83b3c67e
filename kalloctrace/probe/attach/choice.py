# SPDX-License-Identifier: MIT
"""Which probes to attach, and in which way: what can be asked for, and what a kernel gets by default."""

from dataclasses import dataclass
from typing import Literal

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.preemption import Preemption

Probes = Literal["one", "pair"]
"""What is attached to: `get_page_from_freelist` alone, or the entry function too."""

Way = Literal["fentry", "multi", "jump"]
"""How programs are attached. Trampolines (fentry, fexit) are cheap, but the kernel skips such a program while a
preempted task has not finished it on that CPU. The handlers of kprobes run with preemption disabled: kprobe.multi,
which is a file and so leaves nothing behind, and kprobes of tracefs, of which the kernel makes jumps where it can.
"""


@dataclass(frozen=True)
class Asked:
    """What the user asks for; None leaves it to the program."""

    probes: Probes | None = None
    way: Way | None = None


NOTHING_ASKED = Asked()

ASKED: dict[str, Asked] = {
    "auto": NOTHING_ASKED,
    "one": Asked("one"),
    "one:fentry": Asked("one", "fentry"),
    "one:multi": Asked("one", "multi"),
    "one:jump": Asked("one", "jump"),
    "pair": Asked("pair"),
    "pair:fentry": Asked("pair", "fentry"),
    "pair:multi": Asked("pair", "multi"),
    "pair:jump": Asked("pair", "jump"),
    "fentry": Asked("pair", "fentry"),
    "kprobe": Asked("pair", "jump"),
}
"""The words of `--attach`. The last two are earlier names."""


@dataclass(frozen=True)
class Shown:
    """What a kernel shows that decides how to attach.

    Attributes:
        preemption: whether tasks can be preempted inside the kernel.
        multi: the kernel has kprobe.multi, and counts what it misses.
        multi_is_cheap: a hit of it costs less than a jump.
    """

    preemption: Preemption
    multi: bool
    multi_is_cheap: bool


@dataclass(frozen=True)
class Attachment:
    """How the program is attached.

    Attributes:
        probes: what it is attached to.
        way: how.
        reason: why, for people.
    """

    probes: Probes
    way: Way
    reason: str

    def __str__(self) -> str:
        """Return it as the word that asks for it, such as `pair:multi`."""
        return f"{self.probes}:{self.way}"


def choose_attachment(asked: Asked, shown: Shown) -> Attachment:
    """Return how to attach: as asked, otherwise so that no call is missed, at the lowest cost.

    Raises:
        KalloctraceError: the kernel does not have what was asked for.
    """
    if asked.way == "multi" and not shown.multi:
        raise KalloctraceError(
            "cannot attach by kprobe.multi",
            "this kernel has none, or does not count what it misses",
            "leave out --attach, or use --attach pair:jump",
        )
    probes = asked.probes or "pair"
    if asked.way is not None:
        return Attachment(probes, asked.way, "as requested")
    preemption = shown.preemption
    if not preemption.preemptible:
        return Attachment(probes, "fentry", f"this kernel is not preemptible ({preemption.evidence})")
    why = f"this kernel is preemptible ({preemption.evidence}), so it would skip some fentry programs"
    if shown.multi and shown.multi_is_cheap:
        return Attachment(probes, "multi", why)
    return Attachment(probes, "jump", why)
