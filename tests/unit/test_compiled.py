# SPDX-License-Identifier: MIT
"""What surrounds the execution of compiled kernels: symbols, static keys, rows and tables."""

import json
from pathlib import Path
from struct import pack

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.verify.compare import Difference
from kalloctrace.verify.slowpath.judge import AttemptVerdict, CallVerdict
from tests.compiled.image import Image, Segment, Symbols
from tests.compiled.jumplabel import switched
from tests.compiled.mask_flags import MaskFlags
from tests.compiled.rows import from_row, to_row, worth_recording
from tests.compiled.tally import Tally, tables

DATA = Path(__file__).parent / "data" / "slowpath"
SHORT_NOP, NOP = bytes.fromhex("6690"), bytes.fromhex("0f1f440000")

CODE, TABLE, KEY, OTHER = 0x1000, 0x2000, 0x3000, 0x3010
TARGET = CODE + 0x40


def _image(*sites: tuple[bytes, int]) -> Image:
    """Return an image with these sites, 16 bytes apart: the code of each, and its key with the branch bit."""
    code, table = b"", b""
    for index, (content, key) in enumerate(sites):
        entry = TABLE + 16 * index
        table += pack("<iiq", CODE + 16 * index - entry, TARGET - entry - 4, key - entry - 8)
        code += content.ljust(16, b"\xcc")
    symbols = {"__start___jump_table": TABLE, "__stop___jump_table": TABLE + len(table), "on": KEY, "off": OTHER}
    return Image("6.12", "6.12.118-1", (Segment(CODE, code), Segment(TABLE, table)), Symbols.of(symbols.items()))


def test_static_keys_are_switched_as_the_kernel_does() -> None:
    """A site jumps where its key is on, and where the branch bit says so where it is off; the code keeps its size."""
    image = _image((NOP, KEY), (SHORT_NOP, KEY), (b"\xeb\x05", KEY | 1), (NOP, OTHER), (b"\xe9\0\0\0\0", OTHER | 1))
    assert list(switched(image, ["on"], ["off"])) == [
        Segment(CODE, b"\xe9" + pack("<i", 0x40 - 5)),
        Segment(CODE + 16, b"\xeb" + pack("<b", 0x30 - 2)),
        Segment(CODE + 32, SHORT_NOP),
        Segment(CODE + 48, NOP),
        Segment(CODE + 64, b"\xe9" + pack("<i", -5)),
    ]


@pytest.mark.parametrize(("sites", "why"), [(((NOP, KEY),), "1 of the 2 keys"), (((b"\x90" * 5, KEY),), "9090909090")])
def test_a_key_that_cannot_be_switched_is_an_error(sites: tuple[tuple[bytes, int]], why: str) -> None:
    """Neither a key without a site nor code that is no site is passed over."""
    with pytest.raises(KalloctraceError) as caught:
        list(switched(_image(*sites), ["on"], ["off"]))
    assert why in caught.value.why


def test_symbols() -> None:
    """A function is found by its name, by an address in it, and with the parts that the compiler made of it."""
    symbols = Symbols.of([("b", 20), ("a.part.0", 10), ("a", 16), ("a.cold", 40), ("alias", 16)])
    assert symbols.at(16) == ("a", "alias")
    assert symbols.at(17) == ()
    assert symbols.holding(19) == "a"
    assert symbols.extent("a") == (16, 20)
    assert symbols.parts["a"] == ["a.part.0", "a", "a.cold"]


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_a_recorded_call_loses_nothing(path: Path) -> None:
    """What is read of a row makes the same row."""
    for row in json.loads(path.read_text()):
        assert json.loads(json.dumps(to_row(from_row(row)))) == row


def test_calls_that_go_the_same_way_are_recorded_once() -> None:
    """The kinds of the attempts and the end make the way."""
    called = from_row(json.loads((DATA / "6.12.json").read_text())[0])
    first, other = CallVerdict((AttemptVerdict(("retry",)),), AttemptVerdict()), CallVerdict((), AttemptVerdict())
    assert list(worth_recording([(called, first), (called, first), (called, other)])) == [called, called]


def test_a_tally_counts_each_call_once() -> None:
    """Differences are mismatches, reasons are unknown, and a call that was left has no end to be unknown."""
    rows = json.loads((DATA / "6.12.json").read_text())
    whole = next(from_row(row) for row in rows if row["null"] and not row["unseen"])
    left = next(from_row(row) for row in rows if not row["null"])
    bad = AttemptVerdict(differences=(Difference("alloc_flags", 1, 2, "rule", "effect"),))
    unknown = AttemptVerdict(unknown="not known")
    tally = Tally("6.12", "6.12.118-1")
    tally.count(whole, CallVerdict((AttemptVerdict(("retry",)), bad), bad))
    tally.count(whole, CallVerdict((AttemptVerdict(("retry", "restart")),), unknown))
    tally.count(left, CallVerdict((AttemptVerdict(("nofail",)),), unknown))
    tally.count_mask(whole, MaskFlags(0x840, 0x840))
    tally.count_mask(whole, MaskFlags(0x840, 0x50))
    tally.count_request(whole.call, whole.call)
    tally.count_request(None, whole.call)
    tally.count_check({}, agreed=False)
    assert tally.differs
    assert (tally.calls, tally.attempts, tally.mismatched, tally.unknown, tally.unseen) == (3, 4, 1, 1, 0)
    assert "| 6.12.118-1 | 3 | 4 | 1 | 1 | 0 | 2 | 1 | 2 | 1 | 1 | 1 |" in tables(
        [tally, Tally("7.9", failure="there is none")]
    )
    assert "retry" not in tally.unmet()
    assert {"restart", "first_try"} <= set(tally.unmet())
    assert "without_nofragment" not in tally.unmet()
