# SPDX-License-Identifier: MIT
"""Properties of every log: a wrapping never changes an answer, and less text never makes one more certain."""

from collections.abc import Sequence

from hypothesis import assume, given, note
from hypothesis import strategies as st

from tests.logs.answers import Answer, answers_to, differing, stronger
from tests.logs.kernels import ERAS, kernel_messages
from tests.logs.states import BOOSTED, EXHAUSTED, Process, State, Zone
from tests.logs.wrappings import (
    CONSOLE,
    FILES,
    PLAIN,
    SYSLOG,
    WRAPPINGS,
    Stamped,
    in_terminal,
    mailed,
    quoted,
    stamped,
    wrapped_as,
)

COMMS = (
    *("swapper/0", "kworker/u8:2", "kworker/1:1H", "java", "mkfs.ext4", "Web Content", "tmux: server", "(sd-pam)"),
    *("ksoftirqd/3", "a.out", "Xorg:disk$0", "DOM Worker", "x", "rs:main Q:Reg", "md0_raid5", "kernel", "host"),
)
"""Names of tasks; those of threads may have blanks, colons and brackets."""

_LETTERS = ("U", "M", "UME", "UM", "ME", "H", "C", "UMEH", "UMEC")
_GFP = (("GFP_KERNEL", "__GFP_NORETRY", "__GFP_COMP"), ("GFP_HIGHUSER_MOVABLE", "__GFP_ZERO"), ("GFP_ATOMIC",))
_LAYOUT = (("DMA", 0), ("DMA32", 1), ("Normal", 2))


@st.composite
def zones(draw: st.DrawFn, node: int, name: str, index: int) -> Zone:
    """Return a zone whose list adds up, near its watermarks as often as not."""
    blocks = tuple(
        (number, draw(st.sampled_from(_LETTERS)) if number else "")
        for number in draw(st.lists(st.integers(0, 3000), min_size=1, max_size=11))
    )
    free = sum(number << order for order, (number, _) in enumerate(blocks))
    low = max(0, free + draw(st.integers(-40, 40))) if draw(st.booleans()) else draw(st.integers(1, 20000))
    # The part of each higher zone, which grows with the zones below it.
    parts = [draw(st.integers(0, 4000)) if above > index else 0 for above in range(3)]
    reserve = [sum(parts[: above + 1]) for above in range(3)]
    return Zone(
        node,
        name,
        free,
        (low, low + low // 4, low + low // 2),
        (reserve[0], reserve[1], reserve[2], reserve[2], reserve[2]),
        free + 100_000,
        blocks,
        cma=sum(number << order for order, (number, letters) in enumerate(blocks) if letters == "C"),
        highatomic=draw(st.sampled_from((0, 512))),
        file=draw(st.integers(0, 50_000)),
    )


@st.composite
def states(draw: st.DrawFn) -> State:
    """Return a machine of one or two nodes with a request that failed."""
    nodes = draw(st.sampled_from(((0,), (0, 1))))
    names = draw(st.sampled_from((_LAYOUT, _LAYOUT[1:], _LAYOUT[2:])))
    event = draw(st.sampled_from(("failure", "oom")))
    comm = draw(st.sampled_from(COMMS))
    return State(
        name="drawn",
        event=event,
        comm=comm,
        pid=draw(st.integers(0, 99_999)),
        order=draw(st.integers(0, 10)),
        gfp=draw(st.sampled_from(_GFP)),
        zones=tuple(draw(zones(node, name, index)) for node in nodes for name, index in names),
        verdicts={},
        conclusion="",
        nodemask=draw(st.sampled_from((None, str(nodes[-1])))),
        mems="0" if len(nodes) == 1 else "0-1",
        frames=("do_anonymous_page", "handle_mm_fault"),
        swap=draw(st.sampled_from(((0, 0), (40, 100_000), (90_000, 100_000)))),
        processes=(Process(77, comm, 40_000, 20_000), Process(78, "init", 900, 20)) if event == "oom" else (),
    )


RELEASES = st.sampled_from(sorted(ERAS))
WITH_NAMES = st.sampled_from(sorted(release for release, era in ERAS.items() if era.node_lines))
"""Kernels that print the mask's names, which are the kernels of logs that are pasted today."""


def lines_of(messages: Sequence[Stamped]) -> list[str]:
    """Return the lines without a prefix."""
    return PLAIN(messages).splitlines()


@given(states(), RELEASES, st.sampled_from([*WRAPPINGS, *FILES]))
def test_a_wrapping_never_changes_an_answer(state: State, release: str, name: str) -> None:
    """Whatever failed, on whatever kernel."""
    messages = stamped(kernel_messages(state, release))
    assert not differing(answers_to(PLAIN(messages).encode()), answers_to(wrapped_as(name, messages)))


@given(
    states(),
    WITH_NAMES,
    st.sampled_from((CONSOLE, SYSLOG, PLAIN)),
    st.integers(72, 240),
    st.sampled_from(("", "> ", "> > ", ">>> ", "| ")),
    st.booleans(),
)
def test_a_width_never_changes_an_answer(  # noqa: PLR0917 each is one choice
    state: State,
    release: str,
    wrap: object,
    width: int,
    mark: str,
    broken_anywhere: bool,
) -> None:
    """Lines may be broken at blanks or anywhere, at any width, and quoted."""
    messages = stamped(kernel_messages(state, release))
    assert callable(wrap)
    narrow = in_terminal(width, wrap) if broken_anywhere else mailed(width, wrap)
    text = quoted(mark, narrow)(messages)
    note(text)
    assert not differing(answers_to(PLAIN(messages).encode()), answers_to(text.encode()))


@given(states(), RELEASES, st.data())
def test_less_text_never_makes_an_answer_more_certain(state: State, release: str, data: st.DataObject) -> None:
    """Any lines may be missing but the first."""
    lines = lines_of(stamped(kernel_messages(state, release)))
    gone = data.draw(st.sets(st.integers(1, len(lines) - 1), min_size=1))
    part = [line for number, line in enumerate(lines) if number not in gone]
    note("\n".join(part))
    full = answers_to("\n".join(lines).encode())
    assert not stronger(full, answers_to("\n".join(part).encode()))


@given(states(), RELEASES, st.data())
def test_a_shorter_text_never_makes_an_answer_more_certain(state: State, release: str, data: st.DataObject) -> None:
    """The log may end anywhere, also within a line or a number."""
    lines = lines_of(stamped(kernel_messages(state, release)))
    text = "\n".join(lines)
    end = data.draw(st.integers(len(lines[0]), len(text) - 1))
    note(text[:end][-300:])
    assert not stronger(answers_to(text.encode()), answers_to(text[:end].encode()))


@given(states(), RELEASES, st.integers(1, 40))
def test_another_report_changes_nothing(state: State, release: str, lines: int) -> None:
    """One that follows leaves the answer as it is; one that is cut off before may leave less that is certain."""
    other = BOOSTED if state.event == "failure" else EXHAUSTED
    assume((state.comm, state.order) != (other.comm, other.order))
    # Alike reports are one group, whatever their tasks.
    assume((release, state.order, state.gfp) != ("7.3", other.order, other.gfp))
    own = lines_of(stamped(kernel_messages(state, release)))
    before = lines_of(stamped(kernel_messages(other, "7.3")))[:lines]
    alone = answers_to("\n".join(own).encode())

    def mine(text: str) -> list[Answer]:
        answers = [answer for answer in answers_to(text.encode()) if answer["kernel"] == ERAS[release].release]
        return [answer for answer in answers if (answer["comm"], answer["order"]) != (other.comm, other.order)]

    after = "\n".join([*own, *before])
    assert not differing(alone, mine(after)), after
    behind = mine("\n".join([*before, *own]))
    assert len(behind) == 1
    assert not stronger(alone, behind), before
