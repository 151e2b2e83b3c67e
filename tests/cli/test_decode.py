# SPDX-License-Identifier: MIT
"""The real program: `kalloctrace decode`."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_FAILURE = (
    b"[ 9.1] java: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)\n"
    b"[ 9.2] CPU: 1 PID: 7 Comm: java Not tainted 6.1.0-49-amd64 #1  Debian 6.1.192-2\n"
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that nothing is found by accident."""
    monkeypatch.chdir(tmp_path)


def _decode(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", "decode", *args], input=stdin, capture_output=True, check=False
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _objects(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _assert_three_lines(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    what, why, fix = done.stderr.splitlines()
    assert (what[:7], why[:7], fix[:7]) == ("error: ", "  why: ", "  fix: ")


def test_json_is_what_scripts_were_promised() -> None:
    """One object a value, in the order given, with exactly these keys and values."""
    first, second = _decode("--json", "--kernel", "5.10", "0x100cca", "GFP_KERNEL|0x80000000").stdout.splitlines()
    assert first == (
        '{"type":"gfp","value":1051850,"hex":"0x100cca","names":["GFP_HIGHUSER_MOVABLE"],"unknown":0,'
        '"text":"GFP_HIGHUSER_MOVABLE","kernel":"5.10","source":"builtin"}'
    )
    assert json.loads(second) == {
        "type": "gfp",
        "value": 0x80000CC0,
        "hex": "0x80000cc0",
        "names": ["GFP_KERNEL"],
        "unknown": 0x80000000,
        "text": "GFP_KERNEL|0x80000000",
        "kernel": "5.10",
        "source": "builtin",
    }


def test_alloc_flags_are_decoded_on_request() -> None:
    """--kind alloc reads ALLOC_* names and numbers."""
    both = _objects(_decode("--json", "--kind", "alloc", "--kernel", "7.3", "0x801", "ALLOC_WMARK_LOW|ALLOC_NOLOCK"))
    assert [one["type"] for one in both] == ["alloc_flags", "alloc_flags"]
    assert [one["names"] for one in both] == [["ALLOC_WMARK_LOW", "ALLOC_KSWAPD"], ["ALLOC_WMARK_LOW", "ALLOC_NOLOCK"]]
    assert both[1]["value"] == 0x401


def test_without_a_kernel_the_answer_says_whose_tables_it_used() -> None:
    """The running kernel's tables, or the newest; the object names them."""
    (one,) = _objects(_decode("--json", "0xcc0"))
    assert one["source"] == "builtin"
    assert one["kernel"] == "7.3" or os.uname().release.startswith(one["kernel"] + ".")


def test_people_get_every_bit_explained() -> None:
    """The names, then each bit with its value and a sentence, within 80 columns."""
    done = _decode("--kernel", "6.12", "0x80040cc0")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "0x80040cc0 = GFP_KERNEL|__GFP_COMP|0x80000000"
    assert any("__GFP_IO" in line and "0x40" in line and "disk I/O" in line for line in lines)
    assert any("0x80000000" in line and "no name" in line for line in lines[1:])
    assert max(map(len, lines)) <= 80


def test_text_is_decoded_with_the_kernel_that_it_names() -> None:
    """A kernel log on standard input: an object a mask, with its line."""
    (one,) = _objects(_decode("--json", "-", stdin=_FAILURE))
    assert (one["type"], one["value"], one["hex"], one["line"]) == ("gfp", 0x40CC0, "0x40cc0", 1)
    assert (one["names"], one["text"]) == (["GFP_KERNEL", "__GFP_COMP"], "GFP_KERNEL|__GFP_COMP")
    assert (one["kernel"], one["source"], one["form"]) == ("6.1", "builtin", "page allocation failure")
    assert (one["unknown"], one["note"]) == (0, "")


def test_text_for_people_is_a_line_a_mask() -> None:
    """Line number, kind of line, mask and names."""
    done = _decode("-", stdin=_FAILURE)
    assert done.stdout == "line 1: page allocation failure mode 0x40cc0 = GFP_KERNEL|__GFP_COMP (6.1)\n"


def test_what_the_text_does_not_tell_is_null() -> None:
    """A trace's names have no value when no kernel is named; a bare mask has no names."""
    names, bare = _objects(_decode("--json", "-", stdin=b"x: mm_page_alloc: gfp_flags=GFP_ATOMIC\ngfp_mask=0x20,\n"))
    assert (names["value"], names["hex"], names["kernel"], names["names"]) == (None, None, None, ["GFP_ATOMIC"])
    assert (bare["value"], bare["names"], bare["unknown"], bare["text"]) == (0x20, [], 0x20, "")
    assert names["note"]
    assert bare["note"]


def test_bytes_of_any_encoding_are_read() -> None:
    """Logs hold what programs wrote."""
    (one,) = _objects(
        _decode("--json", "-", stdin=b"\xff\xfe\x80 x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL)\r\n")
    )
    assert one["names"] == ["GFP_KERNEL"]


_WRAPPED = {
    "mail": b"java: page allocation failure: order:4,\nmode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)\n",
    "terminal": b"java: page allocation failure: order:4, mode:0x40cc0(GFP_KER\nNEL|__GFP_COMP), nodemask=(null)\n",
    "JSON": b'{"log": "java: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP)\\n"}\n',
    "HTML": b"&lt;4&gt;java: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL|__GFP_COMP)<br>\n",
    "UTF-16": _FAILURE.decode().encode("utf-16"),
    "gzip": gzip.compress(_FAILURE),
}


@pytest.mark.parametrize("wrapping", _WRAPPED)
def test_a_log_in_any_wrapping(wrapping: str) -> None:
    """What explain reads is decoded, with the number of the mask's first line."""
    (one,) = _objects(_decode("--json", "-", stdin=_WRAPPED[wrapping]))
    assert (one["value"], one["names"], one["line"]) == (0x40CC0, ["GFP_KERNEL", "__GFP_COMP"], 1)


def test_the_column_is_that_of_the_line() -> None:
    """Prefixes count."""
    (one,) = _objects(_decode("--json", "-", stdin=b"[ 1.0] x invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL)\n"))
    assert one["column"] == len("[ 1.0] x invoked oom-killer: gfp_mask=") + 1


def test_a_damaged_file_is_decoded_up_to_there() -> None:
    """What could be read has an answer; the rest is named on standard error, and the exit code is that of a failure."""
    done = _decode("--json", "-", stdin=gzip.compress(_FAILURE + os.urandom(100_000).hex().encode())[:-1000])
    assert done.returncode == 1
    assert json.loads(done.stdout)["value"] == 0x40CC0
    assert "damaged" in done.stderr


@pytest.mark.parametrize("stdin", [b"", b"nothing of interest\n"])
def test_a_text_without_masks_fails(stdin: bytes) -> None:
    """A text without masks is a failure that names the expected fields."""
    _assert_three_lines(_decode("-", stdin=stdin), 1)


@pytest.mark.parametrize(
    "args",
    [
        ("0x100000000",),
        ("4294967296",),
        ("GFP_KERNL",),
        ("0xzz",),
        ("",),
        ("--kernel", "4.19", "0xcc0"),
        ("--kernel", "nonsense", "0xcc0"),
        ("--kernel", "nonsense", "-"),
        ("--kind", "alloc", "-"),
        ("-", "0xcc0"),
        ("--kernel", "6.12", "__GFP_ATOMIC"),
    ],
)
def test_wrong_values_are_refused_in_three_lines(args: tuple[str, ...]) -> None:
    """What, why and the fix, and exit code 2."""
    _assert_three_lines(_decode(*args, stdin=_FAILURE), 2)


@pytest.mark.parametrize("args", [(), ("--kind", "other", "1"), ("--json",)])
def test_wrong_usage_exits_with_2(args: tuple[str, ...]) -> None:
    """Missing values and unknown kinds are click's to refuse."""
    assert _decode(*args).returncode == 2


def test_one_wrong_value_spoils_no_half_of_the_output() -> None:
    """Values are read before anything is printed."""
    _assert_three_lines(_decode("--json", "0xcc0", "GFP_NOSUCH"), 2)


def test_decoding_a_number_imports_little() -> None:
    """The libraries that captures and reports need stay out of the quick answer."""
    code = (
        "import sys; from kalloctrace.__main__ import main; main(['decode', '--json', '0xcc0']); "
        "print([name for name in ('rich', 'numpy', 'pyarrow', 'psutil', 'bcc', 'kalloctrace.flags.textsearch') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_output_may_be_cut_short_by_its_reader() -> None:
    """A closed pipe ends the program quietly."""
    with subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", "decode", "--json", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        program.stdout.close()
        _, errors = program.communicate(_FAILURE * 50)
    assert errors == b""


def test_help_shows_examples_line_by_line() -> None:
    """The examples are not flowed into one paragraph."""
    assert "  kalloctrace decode --kind alloc 0x901\n" in _decode("--help").stdout
