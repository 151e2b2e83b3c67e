# SPDX-License-Identifier: MIT
"""The client of the stimulus module: the format of requests, and sending them."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from tests.kmod import stimulus
from tests.kmod.request import Context, Entry, Request, Scope
from tests.kmod.sweep import Target, sweep

ROOT = Path(__file__).parents[2]
KMOD = ROOT / "tests/kmod"
COUNTERS = "requested 5\nbulk 1\nnolock 0\nsucceeded 3\nfailed 2\nrefused 0\nstrayed 0\n"


def test_request_is_packed_as_the_module_reads_it() -> None:
    """It has the 40 bytes of `struct stimulus_request`."""
    request = Request(0xCC0, 3, 1, Context.HARDIRQ, 1 << 40, Scope.NOIO | Scope.PIN, 997, Entry.NOLOCK, 0x1400)
    packed = request.pack()
    fields = [int.from_bytes(packed[at : at + 4], sys.byteorder) for at in (0, 4, 8, 24, 28, 32, 36)]
    halves = [int.from_bytes(packed[at : at + 2], sys.byteorder) for at in (12, 14)]
    assert len(packed) == 40
    assert fields == [0xCC0, 3, 1, 1, 6, 997, 0x1400]
    assert halves == [3, 2]
    assert int.from_bytes(packed[16:24], sys.byteorder) == 1 << 40


@pytest.mark.parametrize("nodemask", [None, 0, 5])
def test_packed_request_is_read_back(nodemask: int | None) -> None:
    """Errors name requests that were sent from a file."""
    request = Request(0xFFFFFFFF, 11, -1, Context.NO_IRQS, nodemask, Scope.PIN, 3, Entry.NOLOCK, 0xFFFFFFFF)
    assert Request.unpack(request.pack()) == request


def test_empty_nodemask_is_not_no_nodemask() -> None:
    """With an empty nodemask no zone is eligible; without a nodemask all are."""
    assert Request(0, nodemask=0).pack() != Request(0, nodemask=None).pack()


def test_names_are_those_of_the_modules_header() -> None:
    """Each context, entry and scope has the number in the header."""
    header = (KMOD / "stimulus.h").read_text(encoding="utf-8")
    members = [line.split(",")[0].strip() for line in header.splitlines() if line.strip().startswith("STIMULUS_")]
    contexts = [f"STIMULUS_{context.name}" for context in Context]
    entries = [f"STIMULUS_{entry.name}" for entry in Entry]
    assert members[: len(contexts) + 1] == [*contexts, "STIMULUS_CONTEXTS"]
    assert members[len(contexts) + 1 : len(contexts) + len(entries) + 2] == [*entries, "STIMULUS_ENTRIES"]
    for scope in Scope:
        assert f"STIMULUS_{scope.name}\t" in header
        assert f"= {scope.value}" in next(line for line in header.splitlines() if f"STIMULUS_{scope.name}\t" in line)


@pytest.mark.parametrize(("text", "nodes"), [("0\n", [0]), ("0-1\n", [0, 1]), ("0,2-4,7\n", [0, 2, 3, 4, 7])])
def test_lists_of_nodes_are_read(text: str, nodes: list[int]) -> None:
    """Lists of nodes have the kernel's format."""
    assert stimulus.parse_nodes(text) == nodes


def device(tmp_path: Path) -> Path:
    """Return a file in place of the device."""
    path = tmp_path / "device"
    path.write_text(COUNTERS, encoding="ascii")
    return path


def test_counters_are_read(tmp_path: Path) -> None:
    """Counters are returned by name."""
    with stimulus.Stimulus(device(tmp_path)) as there:
        counters = there.counters()
    assert counters == {
        "requested": 5,
        "bulk": 1,
        "nolock": 0,
        "succeeded": 3,
        "failed": 2,
        "refused": 0,
        "strayed": 0,
    }


def test_names_of_values_may_have_spaces() -> None:
    """The value is the last word."""
    assert stimulus.parse_values("sizeof zone 1536\nZONE_DMA 0\n") == {"sizeof zone": 1536, "ZONE_DMA": 0}


def test_all_requests_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module may accept part of them at a time."""
    written: list[bytes] = []

    def take_three(_: int, data: bytes) -> int:
        written.append(data[:120])
        return len(written[-1])

    requests = list(sweep(Target((0, 1)), 2500))
    with stimulus.Stimulus(device(tmp_path)) as there:
        monkeypatch.setattr(os, "write", take_three)
        assert there.send(iter(requests)) == 2500
    assert b"".join(written) == b"".join(request.pack() for request in requests)


@pytest.mark.parametrize(
    ("number", "alloc_flags", "message"),
    [
        (errno.EINVAL, 0, "the module refuses"),
        (errno.EOPNOTSUPP, 0, "the kernel has no bulk entry"),
        (errno.EOPNOTSUPP, 0x400, "the kernel has no argument alloc_flags"),
    ],
)
def test_refused_request_is_named(
    number: int, alloc_flags: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the refused request and the reason; those before it were made."""
    answers = iter([80])

    def refuse_third(_: int, data: bytes) -> int:
        del data
        try:
            return next(answers)
        except StopIteration:
            raise OSError(number, "refused") from None

    requests = [Request(0xCC0, order, entry=Entry.BULK, alloc_flags=alloc_flags) for order in range(4)]
    with stimulus.Stimulus(device(tmp_path)) as there:
        monkeypatch.setattr(os, "write", refuse_third)
        with pytest.raises(stimulus.RefusedError, match=message) as raised:
            there.send(requests)
    assert raised.value.request == requests[2]


def test_written_sweep_is_sent_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host writes it for a described machine, and the guest sends the file."""
    file = tmp_path / "requests"
    written = ["--sweep", "300", "--seed", "4", "--part", "2/3", "--entries", "normal,bulk", "--write", str(file)]
    described = ["--nodes", "0,2", "--allowed", "2", "--bits", "0xffffff", "--every-alloc-flags"]
    assert stimulus.main([*written, *described]) == 0
    target = Target((0, 2), frozenset({2}), 0xFFFFFF, (Entry.NORMAL, Entry.BULK), alloc_flags=True)
    expected = list(sweep(target, 300, 4, part=(1, 3)))
    assert file.read_bytes() == b"".join(request.pack() for request in expected)

    sent: list[bytes] = []

    def take_all(_: int, data: bytes) -> int:
        sent.append(data)
        return len(data)

    counts = iter([{"requested": 1, "strayed": 0}, {"requested": 301, "strayed": 0}])
    monkeypatch.setattr(stimulus, "DEVICE", device(tmp_path))
    monkeypatch.setattr(stimulus.Stimulus, "counters", lambda _: next(counts))
    monkeypatch.setattr(os, "write", take_all)
    assert stimulus.main(["--requests", str(file)]) == 0
    assert b"".join(sent) == file.read_bytes()
    assert json.loads(capsys.readouterr().out)["asked"] == 300


def test_too_few_arguments_to_write_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--write` requires `--sweep`."""
    with pytest.raises(SystemExit) as raised:
        stimulus.main(["--exact", "3", "--write", str(tmp_path / "requests")])
    assert raised.value.code == 2
    assert "--write needs --sweep" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["0/2", "3/2"])
def test_invalid_part_is_refused(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Parts are counted from 1."""
    with pytest.raises(SystemExit):
        stimulus.main(["--sweep", "10", "--part", part])
    assert "is not a part" in capsys.readouterr().err
