# SPDX-License-Identifier: MIT
"""`kalloctrace explain` as people and scripts run it."""

import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.__main__ import main
from kalloctrace.kernel.builtin import builtin_snapshot
from kalloctrace.kernel.machine import machine_of
from tests.terminal import on_terminal

EXPECTATIONS = Path(__file__).parents[1] / "unit" / "data" / "model" / "expectations.json"
FIXTURES = Path(__file__).parents[2] / "fixtures"
LINES, WIDTH = 24, 80


@pytest.fixture(autouse=True)
def _in_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, stdin: str | bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the real program."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", "explain", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        check=False,
        timeout=60,
    )


def answer(*arguments: str) -> dict[str, Any]:
    """Run the program with --json and return its one object."""
    done = run("--json", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def batch(*lines: object) -> tuple[int, list[dict[str, Any]]]:
    """Run a batch of lines, given as text or as objects, through standard input."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    done = run("--batch", "-", stdin=text)
    assert done.stderr == b""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def test_json_keys() -> None:
    """The object has the keys of the contract."""
    assert set(answer("--kernel", "5.10", "--gfp", "GFP_KERNEL", "--order", "0")) == {
        *("type", "kernel", "outcome", "reason", "warns", "gfp", "alloc_flags", "alloc_flags_names"),
        *("highest_zoneidx", "zone", "migratetype", "migratetype_name", "zonelist", "nodemask"),
        *("preferred_zone", "spread_dirty_pages", "steps", "lesson"),
    }


def test_brief_json_is_the_batch_form() -> None:
    """With --brief there is no walkthrough; with --set there is what it changes."""
    request = ("--kernel", "5.10", "--gfp", "GFP_KERNEL", "--order", "0", "--brief")
    assert "lesson" not in answer(*request)
    assert set(answer(*request, "--set", "cpusets")["set"]) == {"settings", "changes", "rules", "after"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--gfp", "GFP_KERNEL|__GFP_COMP"], {"gfp": 0x40CC0, "alloc_flags": 0x901}),
        (["--gfp", "3264"], {"gfp": 0xCC0}),
        (["--gfp", "0xcc0", "--task-flags", "PF_MEMALLOC_NOIO"], {"gfp": 0xC00}),
        (["--gfp", "0xcc0", "--task-flags", "PF_MEMALLOC_NOFS|0x80000"], {"gfp": 0xC00}),
        (["--gfp", "0x820", "--order", "0x1"], {"alloc_flags": 0xB01}),
        (["--gfp", "0x820", "--cpusets", "--context", "hardirq"], {"alloc_flags": 0x941, "nodemask": "null"}),
        (["--gfp", "0x820", "--cpusets", "--preempt-count", "0x1000000"], {"alloc_flags": 0x941}),
        (["--gfp", "0xcc0", "--cpusets"], {"gfp": 0x100CC0, "nodemask": "mems_allowed"}),
        (["--gfp", "0xcc0", "--cpusets", "--mems-allowed", "1-2"], {"preferred_zone": None}),
        (["--gfp", "0xcc0", "--nodemask", "0,2-3"], {"nodemask": "caller", "alloc_flags": 0x901}),
        (["--gfp", "0xcc0", "--nodemask", ""], {"nodemask": "caller", "preferred_zone": None}),
        (["--gfp", "0xcc4", "--defrag-mode"], {"alloc_flags": 0x901, "zone": "DMA32"}),
        (["--gfp", "0", "--entry", "nolock", "--nid", "-1"], {"gfp": 0xC2100, "alloc_flags": 0x400}),
        (["--gfp", "0", "--alloc-flags", "ALLOC_NOLOCK"], {"gfp": 0xC2100}),
        (["--gfp", "0xcc0", "--alloc-flags", "0x40"], {"outcome": "rejected", "warns": True, "gfp": None}),
        (["--gfp", "0xcc0", "--order", "11"], {"outcome": "rejected", "warns": True, "steps": None}),
    ],
)
def test_options(options: list[str], expected: dict[str, Any]) -> None:
    """Each option sets what it is named after (7.3)."""
    order = [] if "--order" in options else ["--order", "0"]
    got = answer("--kernel", "7.3", *options, *order)
    if "steps" in expected:
        assert got["steps"]
        expected = {key: value for key, value in expected.items() if key != "steps"}
    assert {key: got[key] for key in expected} == expected


def test_the_answer_fits_a_terminal() -> None:
    """By default, and with --brief, the answer and the rules that decided it take at most 24 lines of 80 columns."""
    request = (
        "--kernel",
        "7.3",
        "--gfp",
        "GFP_ATOMIC|__GFP_WRITE",
        "--order",
        "1",
        "--cpusets",
        "--context",
        "hardirq",
    )
    done = run(*request)
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert len(lines) <= LINES
    assert not [line for line in lines if re.search(r"^  (order|ac\.).*\S ac\.", line)], "two that run into each other"
    assert max(map(len, lines)) <= WIDTH
    assert lines[0] == "prepared: the search for pages starts in Normal of node 0"
    text = " ".join(done.stdout.decode().split())
    for part in (
        "gfp_mask 0x101820 GFP_ATOMIC|__GFP_WRITE|__GFP_HARDWALL",
        "is no task's, so ALLOC_CPUSET",
        "__GFP_WRITE is set: spread_dirty_pages true",
        "__GFP_HIGH of order 1 that cannot reclaim: ALLOC_HIGHATOMIC",
        "--full",
    ):
        assert part in text
    assert run(*request, "--brief").stdout == done.stdout


def test_brief_and_full_contradict_each_other() -> None:
    """Both together are wrong usage, explained in three lines."""
    done = run("--kernel", "6.12", "--gfp", "0xcc0", "--order", "0", "--brief", "--full")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 3)


def test_text() -> None:
    """--full shows the request, each step with the kernel's function, and the arguments, within 80 columns."""
    done = run(
        "--full", "--kernel", "5.10", "--gfp", "0x1cc0|__GFP_COMP|__GFP_ZERO|__GFP_NOWARN|__GFP_ACCOUNT", "--order", "2"
    )
    text = done.stdout.decode()
    assert done.returncode == 0
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text
    for part in (
        "request to __alloc_pages_nodemask on Linux 5.10",
        "alloc_flags_nofragment",
        "get_page_from_freelist receives",
        "0x901 ALLOC_WMARK_LOW|ALLOC_NOFRAGMENT|ALLOC_KSWAPD",
        "ac.preferred_zoneref    Normal of node 0",
        "ac.spread_dirty_pages   true",
    ):
        assert part in text


def test_the_text_explains_each_step() -> None:
    """--full shows each step's condition, what went in, where kernels differ with the commit, and what changes it."""
    done = run("--full", "--kernel", "5.10", "--gfp", "GFP_HIGHUSER_MOVABLE", "--order", "0")
    text = " ".join(done.stdout.decode().split())
    for part in (
        "if cpusets_enabled(), then !in_interrupt() && !ac->nodemask",
        "if order >= MAX_ORDER",
        "with order = 0; largest order = 10",
        '5.9 (here): in_interrupt(): disabled bottom halves count as interrupt [182f3d7a02fd ("mm/page_alloc.c: skip',
        "5.15: in_task(): disabled bottom halves are still a task's [88dc6f208829",
        "not on this kernel: 5.13: the task's scopes are applied before prepare_alloc_pages [da6df1b0fcfa",
        "what would change the answer cpusets ac.nodemask: NULL -> current->mems_allowed: all nodes",
        "these gfp bits only pass through",
        "kernel=7.2 alloc_flags: 0x901",
        "kalloctrace explain --term",
    ):
        assert part in text


def test_set_shows_before_and_after() -> None:
    """--set changes one input, and shows the values and the steps that differ."""
    request = ("--kernel", "6.12", "--gfp", "GFP_KERNEL", "--order", "0")
    text = " ".join(run(*request, "--set", "PF_MEMALLOC_NOFS", "--set", "cpusets").stdout.decode().split())
    assert "gfp_mask before 0xcc0 GFP_KERNEL after 0x100c40 GFP_NOFS|__GFP_HARDWALL" in text
    assert "before task flags 0x0 hold no scope: gfp 0xcc0 after PF_MEMALLOC_NOFS clears __GFP_FS" in text
    nothing = run(*request, "--set", "PF_MEMALLOC").stdout.decode()
    assert "nothing changes" in nothing


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("PF_MEMALLOC_NOCMA", "kernel 6.12 has no input 'PF_MEMALLOC_NOCMA'"),
        ("PF_KTHREAD", "use one of PF_MEMALLOC, PF_MEMALLOC_NOFS, PF_MEMALLOC_NOIO, PF_MEMALLOC_PIN, a __GFP_ name"),
        ("order", "order needs a value"),
        ("order=x", "'x'"),
        ("nid=7", "not a node of the machine"),
        ("context=irq", "not one of task, bh_disabled"),
        ("defrag_mode", "no sysctl vm.defrag_mode"),
        ("cpusets=maybe", "not on or off"),
        ("kernel=4.19", "'4.19'"),
        ("nodemask=3-1", "not a list of nodes"),
        ("gfp=GFP_NONE", "GFP_NONE"),
        ("entry=nolock", "no entry without locks"),
    ],
)
def test_wrong_setting(setting: str, why: str) -> None:
    """An impossible setting is wrong usage, with its reason."""
    done = run("--kernel", "6.12", "--gfp", "GFP_KERNEL", "--order", "0", "--set", setting)
    assert (done.returncode, done.stdout) == (2, b"")
    assert why in done.stderr.decode()


def test_text_of_a_rejection() -> None:
    """A rejected request begins with the reason, and shows no arguments of get_page_from_freelist."""
    text = run("--kernel", "6.12", "--gfp", "0xcc0", "--order", "11").stdout.decode()
    assert text.splitlines()[0] == "rejected: order 11 exceeds the largest, 10"
    assert "the kernel prints a warning" in " ".join(text.split())
    assert "receives" not in text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["--kernel, --gfp and --order are missing", "--kernel 5.10 --gfp GFP_KERNEL --order 0", "dmesg |"]),
        (["--gfp", "0"], ["--kernel and --order are missing", "add --kernel 5.10 --order 0"]),
        (["--kernel", "5.10"], ["--gfp and --order are missing"]),
        (["--kernel", "5.10", "--gfp", "0"], ["--order is missing", "add --order 0"]),
        (["--kernel", "7.3", "--entry", "nolock", "--order", "0"], ["--gfp is missing", "add --gfp GFP_KERNEL"]),
        (["GFP_KERNEL|__GFP_COMP"], ["--gfp 'GFP_KERNEL|__GFP_COMP' --order 0", "decode 'GFP_KERNEL|__GFP_COMP'"]),
        (["0xcc0"], ["there is no log 0xcc0", "--gfp 0xcc0"]),
        (["zonelist"], ["there is no log zonelist", "kalloctrace explain --term zonelist"]),
        (["--kernel", "5.7", "--gfp", "0", "--order", "0"], ["'5.7'", "from 5.8 to 7.3"]),
        (["--kernel", "5.10", "--gfp", "GFP_NONE", "--order", "0"], ["GFP_NONE"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "two"], ["--order", "'two'"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "-1"], ["order is out of range"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--nid", "1"], ["preferred_nid 1"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--nodemask", "a"], ["--nodemask", "'a'"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--nodemask", "3-1"], ["--nodemask", "'3-1'"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--nodemask", "2000"], ["2000"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--task-flags", "PF_X"], ["'PF_X'", "PF_MEMALLOC_NOIO"]),
        (["--kernel", "5.10", "--gfp", "0", "--order", "0", "--entry", "nolock"], ["no entry without locks"]),
        (["--kernel", "7.2", "--gfp", "0", "--order", "0", "--alloc-flags", "0x400"], ["no argument alloc_flags"]),
        (["--batch", "-", "--gfp", "0"], ["--gfp does not go with --batch"]),
    ],
)
def test_wrong_usage(arguments: list[str], parts: list[str]) -> None:
    """Wrong usage is an error of three lines and exit code 2, with nothing on standard output."""
    done = run(*arguments)
    lines = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (2, b"")
    assert [line[:6] for line in lines] == ["error:", "  why:", "  fix:"]
    assert all(part in done.stderr.decode() for part in parts)


def test_alloc_context_file(tmp_path: Path) -> None:
    """A file has the context of the request, with the machine's members inside "machine" or at the top level."""
    (tmp_path / "context.json").write_text(
        json.dumps({"context": "hardirq", "cpusets_enabled": True, "machine": {"nodes": {"0": ["DMA32"]}}})
    )
    got = answer("--kernel", "6.12", "--gfp", "0x820", "--order", "0", "--alloc-context", "context.json")
    assert (got["alloc_flags"], got["preferred_zone"]) == (0x841, {"node": 0, "zone": "DMA32"})


def test_options_win_over_the_file(tmp_path: Path) -> None:
    """An option replaces the corresponding member of the file."""
    (tmp_path / "context.json").write_text(json.dumps({"cpusets_enabled": True}))
    got = answer(
        *("--kernel", "6.12", "--gfp", "0xcc0", "--order", "0", "--alloc-context", "context.json", "--no-cpusets")
    )
    assert got["gfp"] == 0xCC0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"gfp": 1}', "unknown key gfp"),
        ('{"machine": 1}', "machine is not an object"),
        ('{"machine": {"x": 1}}', "unknown key machine.x"),
    ],
)
def test_bad_alloc_context_file(tmp_path: Path, content: str, why: str) -> None:
    """A file with any other content is refused."""
    (tmp_path / "context.json").write_text(content)
    done = run("--kernel", "6.12", "--gfp", "0", "--order", "0", "--alloc-context", "context.json")
    assert done.returncode == 2
    assert why in done.stderr.decode()


def test_missing_file() -> None:
    """A file that cannot be opened is a failure that names it."""
    done = run("--batch", "nowhere.jsonl")
    assert done.returncode == 1
    assert "nowhere.jsonl" in done.stderr.decode()


def test_kernel_and_machine_of_a_trace(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A trace lends its kernel, or its machine to another kernel, which keeps its own gfp_allowed_mask."""
    Path("my.arrows").write_bytes(b"\xff\xff\xff\xff")
    machine = machine_of({0: [1], 1: [2]}, gfp_allowed_mask=0xFF, cpusets_enabled=True)
    reader = types.ModuleType("reader")
    monkeypatch.setattr(reader, "read_snapshot", lambda _: builtin_snapshot("6.1", machine), raising=False)
    monkeypatch.setitem(sys.modules, "kalloctrace.trace.reader", reader)
    request = ["--gfp", "0xcc0", "--order", "0", "--nid", "1", "--json"]
    for options, kernel, gfp in (
        (["--kernel", "my.arrows"], "6.1", 0x1000C0),
        (["--machine", "my.arrows"], "6.1", 0x1000C0),
        (["--machine", "my.arrows", "--kernel", "7.3"], "7.3", 0x100CC0),
    ):
        assert main(["explain", *options, *request]) == 0
        got = json.loads(capsys.readouterr().out)
        assert (got["kernel"], got["gfp"]) == (kernel, gfp)
        assert got["preferred_zone"] == {"node": 1, "zone": "Normal"}


def test_batch_answers_the_written_expectations() -> None:
    """A batch of all written expectations gives all the expected answers, in their order."""

    def numbers(value: Any) -> Any:  # noqa: ANN401  (whatever JSON holds)
        if isinstance(value, dict):
            return {key: numbers(member) for key, member in value.items()}
        return int(value, 16) if isinstance(value, str) and value.startswith("0x") else value

    cases = [
        ({"kernel": kernel, **numbers(entry["request"])}, numbers(entry["expect"]))
        for entry in json.loads(EXPECTATIONS.read_text())
        for kernel in entry["kernels"].split()
    ]
    code, answers = batch(*(request for request, _ in cases))
    assert code == 0
    assert [{key: got[key] for key in want} for got, (_, want) in zip(answers, cases, strict=True)] == [
        want for _, want in cases
    ]


def test_batch_of_a_file_equals_the_single_form(tmp_path: Path) -> None:
    """A line gives the same object as the options, which add the walkthrough."""
    (tmp_path / "lines").write_text('{"kernel": "6.1", "gfp": 3264, "order": 0}')
    done = run("--batch", "lines")
    assert done.returncode == 0
    single = answer("--kernel", "6.1", "--gfp", "3264", "--order", "0")
    assert single.pop("lesson")["steps"]
    assert json.loads(done.stdout) == single


def test_batch_errors_stand_in_their_lines_place() -> None:
    """A line that is not valid gets an error with its number, the others their answers, and the code is 1."""
    good = {"kernel": "6.1", "gfp": 0xCC0, "order": 0}
    code, answers = batch(good, "{", "", "[]", "nonsense", {**good, "x": 1}, good)
    assert code == 1
    assert [got["type"] for got in answers] == ["preparation", *["error"] * 5, "preparation"]
    assert [got["line"] for got in answers if got["type"] == "error"] == [2, 3, 4, 5, 6]
    assert "empty" in answers[2]["message"]
    assert answers[5]["message"] == "unknown key x"


def test_batch_of_bytes_that_are_no_text() -> None:
    """Bytes that are no UTF-8, nesting without end and huge numbers are lines that are not valid."""
    done = run("--batch", "-", stdin=b'\xff\xfe"\n' + b"[" * 100_000 + b"\n" + b"9" * 10_000 + b"\n")
    assert done.returncode == 1
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == [1, 2, 3]
    assert done.stderr == b""


def test_batch_with_a_kernel_for_all() -> None:
    """--kernel applies to the lines that name no kernel."""
    done = run("--batch", "-", "--kernel", "6.12", stdin='{"gfp":0,"order":0}\n{"kernel":"6.1","gfp":0,"order":0}\n')
    assert [json.loads(line)["kernel"] for line in done.stdout.splitlines()] == ["6.12", "6.1"]


@pytest.mark.parametrize("kernel", ["6.15", "6.17"])
def test_entry_without_a_gfp_argument(kernel: str) -> None:
    """Before 6.18 the entry without locks has a fixed mask; a request to it names none, alone or in a batch."""
    code, (got,) = batch({"kernel": kernel, "entry": "nolock", "order": 0})
    single = answer("--kernel", kernel, "--entry", "nolock", "--order", "0", "--brief")
    assert (code, got) == (0, single)
    assert (got["outcome"], got["gfp"]) == ("prepared", 0x482100)


@pytest.mark.parametrize("request_of", [{"kernel": "6.17"}, {"kernel": "6.18", "entry": "nolock"}])
def test_entry_with_a_gfp_argument(request_of: dict[str, str]) -> None:
    """An entry that takes a mask has no usual one: a request that names none is not valid."""
    code, (got,) = batch({**request_of, "order": 0})
    assert (code, got["type"], got["message"]) == (1, "error", "gfp is missing")


def test_batch_takes_the_kernel_and_machine_of_a_trace() -> None:
    """Lines without a kernel are answered on the machine of the trace that --kernel names."""
    trace = str(FIXTURES / "5.10" / "two-nodes.arrows")
    lines = "".join(f'{{"gfp": 3264, "order": 0, "preferred_nid": {nid}}}\n' for nid in (0, 1))
    done = run("--batch", "-", "--kernel", trace, stdin=lines)
    assert [json.loads(line)["alloc_flags"] for line in done.stdout.splitlines()] == [0x901, 0x801]


def test_empty_batch() -> None:
    """No line, no answer."""
    assert batch() == (0, [])


def test_batch_into_a_closed_pipe() -> None:
    """A reader that closes the pipe early causes no error message."""
    line = b'{"kernel":"6.1","gfp":3264,"order":0}\n'
    with subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", "explain", "--batch", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(line * 500)
        process.stdin.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize("term", ["ALLOC_CPUSET", "nodemask", "gfp_allowed_mask"])
@pytest.mark.parametrize("language", ["en", "zh-cn"])
def test_commands_of_a_page_can_be_copied_from_a_terminal(term: str, language: str) -> None:
    """A command that is too long for 80 columns is broken so that a shell takes it for one."""
    page = run("--term", term, "--lang", language).stdout.decode()
    commands = re.findall(r"^\$ (kalloctrace .*)$", page, re.MULTILINE)
    assert any(len(command) > WIDTH for command in commands)
    command = [sys.executable, "-m", "kalloctrace", "explain", "--term", term, "--lang", language]
    with on_terminal(command, 200, WIDTH) as terminal:
        assert terminal.end(120) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.printed.decode()).replace("\r", "")
    joined = re.sub(r" *\\ *\n +", " ", shown)
    for command in commands:
        assert f"$ {command}\n" in re.sub(r" +\n", "\n", joined)


def test_term_prints_its_page_in_the_requested_language(monkeypatch: pytest.MonkeyPatch) -> None:
    """--term prints a page, in English, in the locale's language, or in the one that is named."""
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    english = run("--term", "alloc_cpuset")
    assert (english.returncode, english.stderr) == (0, b"")
    assert english.stdout.decode().startswith("# ALLOC_CPUSET\n\nCheck each zone's node")
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "检查每个内存区" in run("--term", "ALLOC_CPUSET").stdout.decode()
    assert run("--term", "ALLOC_CPUSET", "--lang", "en").stdout == english.stdout
    page = json.loads(run("--term", "ALLOC_CPUSET", "--json", "--lang", "zh-cn").stdout)
    assert (page["type"], page["name"], page["path"]) == ("term", "ALLOC_CPUSET", "zh-cn/terms/ALLOC_CPUSET.md")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [(["--term", "ALLOC_X"], "no page about"), (["--term", "order", "--gfp", "0"], "--gfp does not go with --term")],
)
def test_wrong_term(arguments: list[str], part: str) -> None:
    """A term without a page, and --term with a request, are wrong usage."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert part in done.stderr.decode()


@pytest.mark.parametrize("language", ["en", "zh-cn"])
def test_no_link_on_a_terminal_leads_nowhere(language: str) -> None:
    """Files cannot be opened there: terms are named alone, and the last line says how to read their pages."""
    script = """
from kalloctrace.console import stdout
from kalloctrace.explain.glossary import read_term, term_names
for name in term_names():
    read_term(name, LANGUAGE).write(stdout())
read_term("GFP_KERNEL", LANGUAGE).write(stdout())
"""
    with on_terminal([sys.executable, "-c", script.replace("LANGUAGE", repr(language))]) as terminal:
        assert terminal.end(60) == 0
    text = terminal.printed.decode()
    assert ".md" not in text
    assert text.count("kalloctrace explain --term N" if language == "en" else "kalloctrace explain --term 名称") > 30
