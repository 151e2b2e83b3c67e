# SPDX-License-Identifier: MIT
"""`kalloctrace import` as people run it: another tool's recording becomes a trace that `verify` can judge in part."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kalloctrace.flags.decode import decode_gfp
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.trace.reader import TraceReader
from tests.traces import RECORDED

FIXTURES = RECORDED.parents[1]
STIMULI = [FIXTURES / kernel / "stimulus-cpusets.arrows" for kernel in ("5.10", "6.1", "6.12", "7.2", "7.3")]
DATA = Path(__file__).parents[1] / "unit" / "data" / "events"
JUDGED = ["order", "gfp_mask", "migratetype"]
Row = dict[str, Any]


def run(*arguments: str | Path, code: int = 0, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real program, and check its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        input=stdin,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done


def recorded(path: Path) -> tuple[Snapshot, list[Row]]:
    """Return a kernel, and its calls that succeeded at the first attempt: their tracepoint has the same mask."""
    with TraceReader(path) as trace:
        rows = [row for batch in trace.batches() for row in batch.to_pylist()]
        return trace.snapshot, [row for row in rows if row["freelist_calls"] == 1 and row["page"]]


def fields(row: Row, snapshot: Snapshot, *, hexadecimal: bool = True) -> str:
    """Return the event's fields as the kernel prints them."""
    pfn = f"{0x1234:#x}" if hexadecimal else "4660"
    flags = decode_gfp(row["freelist_gfp_mask"], snapshot.tables).text or "none"
    return f"page=0000000082b1fe73 pfn={pfn} order={row['order']} migratetype={row['migratetype']} gfp_flags={flags}"


def seconds(row: Row, digits: int = 6) -> str:
    """Return the time of a call as tools print it."""
    return f"{row['time'] // 10**9}.{row['time'] % 10**9:09}"[: digits - 9 or None]


def perf(snapshot: Snapshot, rows: list[Row]) -> str:
    """Return what `perf script --header -F +pid` prints."""
    lines = [
        f"{row['comm']:>16s} {row['pid']:>5}/{row['tid']:<5} [{row['cpu']:03}] {seconds(row, 9):>12}:          1 "
        f"kmem:mm_page_alloc: {fields(row, snapshot)}"
        for row in rows
    ]
    head = [
        "# ========",
        f"# os release : {snapshot.release}",
        "# event : name = kmem:mm_page_alloc, , id = { 1 }",
        "#",
    ]
    return "\n".join([*head, *lines, ""])


def trace_cmd(snapshot: Snapshot, rows: list[Row]) -> str:
    """Return what `trace-cmd report --uname` prints."""
    lines = [
        f"{row['comm']:>16s}-{row['tid']:<5} [{row['cpu']:03}] {seconds(row):>12}: mm_page_alloc:        "
        f"{fields(row, snapshot, hexadecimal=False)}"
        for row in rows
    ]
    return "\n".join([f"Linux guest {snapshot.release} {snapshot.version} x86_64", "cpus=2", *lines, ""])


def tracefs(snapshot: Snapshot, rows: list[Row]) -> str:
    """Return what tracefs's file `trace` holds."""
    lines = [
        f"{row['comm']:>16s}-{row['tid']:<7} [{row['cpu']:03}] ..... {seconds(row):>12}: mm_page_alloc: "
        f"{fields(row, snapshot)}"
        for row in rows
    ]
    head = ["# tracer: nop", "#", f"# entries-in-buffer/entries-written: {len(rows)}/{len(rows)}   #P:2", "#"]
    return "\n".join([*head, *lines, ""])


@pytest.mark.parametrize("path", STIMULI, ids=[path.parent.name for path in STIMULI])
@pytest.mark.parametrize("form", [perf, trace_cmd, tracefs])
def test_what_a_kernel_did_is_judged(tmp_path: Path, form: Callable[[Snapshot, list[Row]], str], path: Path) -> None:
    """Masks from real kernels are equal in every visible field, and still unknown as a whole."""
    snapshot, rows = recorded(path)
    text, trace = tmp_path / "text", tmp_path / "t.arrows"
    text.write_text(form(snapshot, rows))
    kernel: list[str | Path] = ["--kernel", path] if form is tracefs else []
    messages = run("import", *kernel, "-o", trace, text).stderr
    assert messages.splitlines()[0].startswith(f"{len(rows):,} events of ")
    assert messages.splitlines()[0].endswith("lost 0")
    verdict = json.loads(run("verify", "--json", trace).stdout)
    assert (verdict["allocations"], verdict["unknown"], verdict["lost"]) == (len(rows), len(rows), 0)
    assert (verdict["kernel"], verdict["events"]) == (snapshot.release, len(rows))
    assert verdict["fields"] == {name: {"equal": len(rows), "different": 0, "unknown": 0} for name in JUDGED}
    run("verify", "--strict", trace, code=4)
    with TraceReader(trace) as reader:
        have = [row for batch in reader.batches() for row in batch.to_pylist()]
    same = ("cpu", "tid", "comm", "order", "migratetype", "page", *(["time", "pid"] if form is perf else []))
    assert [[row[name] for name in same] for row in have] == [[row[name] for name in same] for row in rows]
    assert [row["gfp_mask"] for row in have] == [row["freelist_gfp_mask"] for row in rows]
    unknown = {name for name, value in have[0].items() if value is None}
    assert {"preferred_nid", "alloc_flags", "freelist_calls", "preferred_zone", "cpusets_enabled"} <= unknown


@pytest.mark.parametrize("text", sorted(DATA.glob("*.txt")), ids=lambda text: text.stem)
def test_what_tools_really_printed_is_judged(tmp_path: Path, text: Path) -> None:
    """A live kernel's events, as each tool printed them, are equal in every visible field."""
    named = text.stem in {"perf", "trace-cmd-instance"}
    run("import", *([] if named else ["--kernel", "6.18"]), "-o", tmp_path / "t.arrows", text)
    verdict = json.loads(run("verify", "--json", tmp_path / "t.arrows").stdout)
    assert verdict["kernel"] == ("6.18.44-fc-v669" if named else "6.18")
    assert verdict["allocations"] == verdict["unknown"] > 4
    assert {(counts["different"], counts["unknown"]) for counts in verdict["fields"].values()} == {(0, 0)}
    assert len(verdict["fields"]) == len(JUDGED)


HEAD = "# os release : 6.1.0-49-amd64\n"
LINE = (
    "dd 133 [000] 18.5: kmem:mm_page_alloc: page=0x1 pfn=0x1 order={order} migratetype={migratetype} gfp_flags={gfp}\n"
)


def judged(tmp_path: Path, *calls: tuple[int, int, str], code: int) -> dict[str, Any]:
    """Return the verdict on events of order, migratetype and flags."""
    lines = [LINE.format(order=order, migratetype=migratetype, gfp=gfp) for order, migratetype, gfp in calls]
    run("import", "-f", "-o", tmp_path / "t.arrows", "-", stdin=HEAD + "".join(lines))
    verdict: dict[str, Any] = json.loads(run("verify", "--json", tmp_path / "t.arrows", code=code).stdout)
    return verdict


@pytest.mark.parametrize(
    ("call", "field", "expected", "observed"),
    [
        ((0, 0, "GFP_HIGHUSER_MOVABLE"), "migratetype", 1, 0),
        ((0, 2, "GFP_KERNEL"), "migratetype", 0, 2),
        ((0, 4, "GFP_KERNEL"), "migratetype", 0, 4),
        ((11, 0, "GFP_KERNEL"), "order", 10, 11),
        ((0, 0, "GFP_KERNEL|0x80000000"), "gfp_mask", 0xCC0, 0x80000CC0),
    ],
)
def test_what_the_kernel_cannot_have_done_is_a_mismatch(
    tmp_path: Path, call: tuple[int, int, str], field: str, expected: int, observed: int
) -> None:
    """A wrong migratetype, a rejected order, or a bit that no mask may have gives exit code 3."""
    verdict = judged(tmp_path, (0, 1, "GFP_HIGHUSER_MOVABLE"), call, code=3)
    (mismatch,) = verdict["mismatches"]
    assert (mismatch["field"], mismatch["expected"], mismatch["observed"]) == (field, expected, observed)
    assert (verdict["matched"], verdict["mismatched"], verdict["unknown"]) == (0, 1, 1)
    assert verdict["fields"][field] == {"equal": 1, "different": 1, "unknown": 0}
    assert field in run("verify", tmp_path / "t.arrows", code=3).stdout


def test_machine_without_mobility_is_not_excluded(tmp_path: Path) -> None:
    """If every migratetype is 0 the machine may not group pages by mobility, which leaves such values unknown."""
    verdict = judged(tmp_path, (0, 0, "GFP_HIGHUSER_MOVABLE"), (0, 0, "GFP_KERNEL"), code=0)
    assert verdict["fields"]["migratetype"] == {"equal": 1, "different": 0, "unknown": 1}
    assert (verdict["mismatched"], verdict["unknown"]) == (0, 2)


def test_failed_allocation(tmp_path: Path) -> None:
    """An event without a page is a failed allocation; the cause is unknown."""
    line = LINE.format(order=0, migratetype=0, gfp="GFP_NOWAIT").replace("pfn=0x1", "pfn=0x0")
    run("import", "-o", tmp_path / "t.arrows", "-", stdin=HEAD + line)
    report = json.loads(run("report", "--json", tmp_path / "t.arrows").stdout)
    assert (report["failed"], report["pages"], report["events"]) == (1, 0, 1)
    failures = run("report", "--failures", tmp_path / "t.arrows", code=1).stderr
    assert "fix: record it with kalloctrace record\n" in failures
    lines = run("report", tmp_path / "t.arrows").stdout.splitlines()
    assert [line.split()[2:4] for line in lines if line.startswith("  slow path")] == [["not", "known"]]


def test_events_without_call_chains(tmp_path: Path) -> None:
    """What to do about it is for the tool that recorded them."""
    line = "  bash-1 [001] ..... 1.5: mm_page_alloc: page=0x1 pfn=0x1 order=0 migratetype=0 gfp_flags=GFP_KERNEL\n"
    run("import", "--kernel", "6.1", "-o", tmp_path / "t.arrows", "-", stdin=line)
    refused = run("report", "--by", "stack", tmp_path / "t.arrows", code=2).stderr
    assert "fix: record them with perf record -g\n" in refused


def test_loss_is_counted(tmp_path: Path) -> None:
    """Events that the text reports as missing, and unreadable lines, count as lost; --strict fails."""
    line = LINE.format(order=0, migratetype=0, gfp="GFP_KERNEL")
    messages = run(
        "import", "-o", tmp_path / "t.arrows", "-", stdin=f"{HEAD}CPU:1 [LOST 5 EVENTS]\n{line}{line[:60]}\n"
    ).stderr
    assert messages.startswith("1 line with this event could not be read, the first is line 4")
    assert json.loads(run("verify", "--json", tmp_path / "t.arrows").stdout)["lost"] == 6


@pytest.mark.parametrize(
    ("text", "words", "code", "messages"),
    [
        ("nothing\n", [], 1, "nothing to import"),
        ("", [], 1, "nothing to import"),
        (LINE.format(order=0, migratetype=0, gfp="GFP_KERNEL"), [], 2, "the kernel of"),
        (HEAD + LINE.format(order=0, migratetype=0, gfp="GFP_NONESUCH"), [], 1, "GFP_NONESUCH"),
        (HEAD + LINE.format(order=0, migratetype=0, gfp="GFP_KERNEL"), ["--kernel", "2.6"], 2, "2.6"),
        ("# os release : 4.18.0-1.el8.x86_64\n" + LINE.format(order=0, migratetype=0, gfp="0"), [], 2, "4.18.0"),
    ],
)
def test_refusals_leave_no_file(tmp_path: Path, text: str, words: list[str], code: int, messages: str) -> None:
    """If there is nothing to import, or its meaning is unknown, the error says so and no file is written."""
    done = run("import", *words, "-o", tmp_path / "t.arrows", "-", stdin=text, code=code)
    assert messages in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert list(tmp_path.iterdir()) == []


def test_file_is_not_overwritten(tmp_path: Path) -> None:
    """An existing trace is replaced only with -f, and only if there are events."""
    trace, text = tmp_path / "t.arrows", tmp_path / "text"
    trace.write_text("precious")
    text.write_text(HEAD + LINE.format(order=0, migratetype=0, gfp="GFP_KERNEL"))
    assert "-f" in run("import", "-o", trace, text, code=1).stderr
    run("import", "-f", "-o", trace, "-", stdin="nothing", code=1)
    assert trace.read_text() == "precious"
    run("import", "-f", "-o", trace, text)
    run("verify", trace)


def test_everything_reads_an_import(tmp_path: Path) -> None:
    """`report`, `diff` and `export` accept it; a request cannot be explained on an unknown machine."""
    trace = tmp_path / "t.arrows"
    run("import", "-o", trace, "-", stdin=HEAD + LINE.format(order=0, migratetype=0, gfp="GFP_KERNEL"))
    shown = run("report", trace).stdout
    assert "gfp mask after the kernel changed it" in shown
    assert "none     the events do not show it" in shown
    run("diff", trace, RECORDED)
    for form in ("csv", "jsonl", "folded", "speedscope", "perfetto"):
        run("export", "--format", form, "-o", tmp_path / form, trace)
    done = run("explain", "--machine", trace, "--gfp", "GFP_KERNEL", "--order", "0", code=2)
    assert "nodes" in done.stderr


def test_text_is_never_overwritten(tmp_path: Path) -> None:
    """Not even with -f."""
    text = tmp_path / "t.txt"
    text.write_text("# os release : 6.1.0\n")
    done = run("import", "-f", "-o", text, text, code=2)
    assert "it is the file to read" in done.stderr
    assert text.read_text() == "# os release : 6.1.0\n"
