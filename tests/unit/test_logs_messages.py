# SPDX-License-Identifier: MIT
"""A log in any wrapping becomes the kernel's messages. tests/logs has what whole programs and mails make of a log."""

import base64
import io
import json
import quopri
import textwrap
from collections.abc import Iterable
from pathlib import Path

import pytest

from kalloctrace.logs.containers import Containers
from kalloctrace.logs.files import LogLines
from kalloctrace.logs.messages import Message, read_messages

DATA = Path(__file__).parent / "data" / "logs"

FAILURE = (
    "task: page allocation failure: order:4, mode:0x40c40(GFP_NOFS|__GFP_COMP), nodemask=(null),cpuset=/,mems_allowed=0"
)
ZONE = "Node 0 Normal free:126872kB boost:0kB min:63960kB low:79948kB high:95936kB reserved_highatomic:0KB free_cma:0kB"
RESERVE = "lowmem_reserve[]: 0 2981 3931 3931 3931"
BLOCKS = (
    "Node 0 Normal: 10995*4kB (UME) 3433*8kB (UME) 3233*16kB (UME) 124*32kB (UME) 0*64kB 0*128kB 0*256kB 0*512kB "
    "0*1024kB 0*2048kB 0*4096kB = 127140kB"
)
TASK = "CPU: 3 PID: 1108 Comm: task Not tainted 5.19.0 #1"
REPORT = [FAILURE, TASK, "Mem-Info:", ZONE, RESERVE, BLOCKS]
OOM = "DOM Worker invoked oom-killer: gfp_mask=0x101cca(GFP_HIGHUSER_MOVABLE|__GFP_WRITE), order=0, oom_score_adj=0"


def texts(lines: Iterable[str]) -> list[str]:
    """Return the texts of the messages."""
    return [message.text for message in read_messages(lines)]


def test_messages_that_a_console_dropped() -> None:
    """3.16 to 4.14 print that before the next message, in its line: both are messages."""
    dropped = "** 40 printk messages dropped ** "
    assert texts([f"{dropped}[   12.000000] {ZONE}", RESERVE]) == [dropped.strip(), ZONE, RESERVE]
    assert texts([f"[   11.000000] {dropped}{ZONE}", RESERVE]) == [dropped.strip(), ZONE, RESERVE]
    assert texts([dropped, ZONE]) == [dropped.strip(), ZONE]


def only(*lines: str) -> Message:
    """Return the one message of some lines."""
    (message,) = read_messages(lines)
    return message


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.glob("m02-*")))
def test_each_wrapping_is_the_plain_form(name: str) -> None:
    """Reports as people pasted them, out of different sources."""
    plain = (DATA / "m02-0-plain.txt").read_text(encoding="utf-8").splitlines()
    assert texts(LogLines(io.BytesIO((DATA / name).read_bytes()))) == plain


WRAPPED = {
    "m01-wrapped-no-trailing-blank.txt": [
        "task: page allocation failure: order:0, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)",
        "CPU: 0 PID: 455 Comm: task Not tainted 5.18.0 #1",
        "Mem-Info:",
        "Normal free:0kB boost:0kB min:5044kB low:5280kB high:5516kB reserved_highatomic:0KB active_anon:0kB",
        "lowmem_reserve[]: 0 0",
        "Normal: 0*4kB 0*8kB 0*16kB 0*32kB 0*64kB 0*128kB 0*256kB 0*512kB 0*1024kB 0*2048kB 0*4096kB = 0kB",
    ],
    "m01c-oom-wrapped.txt": [OOM.replace("DOM Worker", "dd")],
    "m01e-oom-wrapped-prefix.txt": [
        "mkfs.ext4 invoked oom-killer: gfp_mask=0x101cc0(GFP_USER|__GFP_WRITE), order=0, oom_score_adj=0"
    ],
    "m01f-oom-wrapped-prefix.txt": [OOM.replace("DOM Worker", "dd")],
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_lines_are_joined(name: str) -> None:
    """Lines that a mail or terminal wrapped, with and without a prefix."""
    assert texts((DATA / name).read_text(encoding="utf-8").splitlines()) == WRAPPED[name]


def test_taints_with_their_names_have_a_line() -> None:
    """`dump_stack_print_info()` of lib/dump_stack.c of 6.12 prints them below the line of CPU and task."""
    lines = [FAILURE, "CPU: 3 UID: 0 PID: 1108 Comm: task Tainted: G        W 6.12.0 #1", "Tainted: [W]=WARN"]
    assert texts(f"[  {number}.1] {line}" for number, line in enumerate(lines)) == lines


def test_blocks_without_a_type_are_words_of_their_list() -> None:
    """`show_migration_types()` of mm/page_alloc.c prints the brackets even if no list had one of these blocks."""
    first, second = "Node 1 DMA32: 0*4kB 116*8kB (U) 120*16kB (U) 147*32kB (U)", "277*64kB () 1830*128kB (U) = 259520kB"
    assert texts([*REPORT[:4], first, second]) == [*REPORT[:4], f"{first} {second}"]


KNOWN = [
    # Those that OOMAnalyser (Carsten Grohmann) tests itself with: https://www.carstengrohmann.de/oom/
    *("[11686.888109] ", "Apr 01 14:13:32 mysrv: ", "Apr 01 14:13:32 mysrv kernel: ", "kernel:"),
    *("Apr 01 14:13:32 mysrv <kern.warning> kernel: ", "Apr 01 14:13:32 mysrv kernel: [11686.888109] "),
    *("Apr 01 14:13:32 mysrv <kern.warning> kernel:", "Apr 01 14:13:32 mysrv kernel:", "[1234567.654321]"),
    *("<4>", "<4>[   12.345678] ", "[   14.017417][    T1] ", "[   12.345678] [T1108] ", "[  +0.002367] "),
    *("[   12.345678 <    0.000012>] ", "[   12.345678@0]  ", "[   12.345678 c3   1108] ", "[ 12.3] host kernel: "),
    *("<6>[   12.345678] (1)[1108:task]", "[   12.345678]I[3:  task:22875] ", "kern  :warn  : [   12.345678] "),
    *("[Sat Nov 28 01:02:03 2026] ", "[sam. nov. 28 01:02:03 2026] ", "[六 11月 28 01:02:03 2026] "),
    *("<4>Nov 28 01:02:03 host kernel: ", "<4>1 2026-11-28T01:02:03.1Z host kernel - - - ", "4,1001,501,-;"),
    *('131 <4>1 2026-11-28T01:02:03.1Z host kernel - - [meta seq="1"] ', "6.8.0,4,1001,501,-,caller=C3;"),
    *("2026-11-28T01:02:03.123Z In(05) vcpu-0 - Guest: ", "2026-11-28T01:02:03.123Z cpu3:12345)"),
    *("2026-11-28T01:02:03.123Z| vcpu-3| I005: Guest: [   12.3] ", "11-28 01:02:03.123     0     0 W         : "),
    *("2026-11-28T01:02:03.123456789Z stdout F ", "10.0.0.1:6666 [   12.3] ", "1764291723.123456 host kernel: "),
    *("Jan  1 00:00:00 OpenWrt kern.warn kernel: [ 12.3] ", "kern.log:12:Nov 28 01:02:03 h kernel: "),
    *(
        "> ",
        ">> ",
        "> > [   12.3] ",
        "| ",
        "* ",
        "- ",
        "• ",
        "1. ",
        "    ",
        "\t",
        "  12\t",
        "# ",
        "│ ",
        "/* ",
        "\ufeff",
    ),
    *(
        "\x1b[32m[   12.3] \x1b[0m",
        "Nov 28 01:02:03 10.0.0.1 4,1001,501,-,caller=T3;",
        "\x1b]0;title\x07[   12.3] ",
        "#033[33m[   12.3] ",
        "<pre>",
        "[28/11/2026 01:02:03] ",
    ),
]


@pytest.mark.parametrize("prefix", KNOWN)
def test_a_known_prefix_is_taken_off(prefix: str) -> None:
    """Before a whole report, and before a single line that no other explains."""
    assert texts(prefix + line for line in REPORT) == REPORT
    assert texts([prefix + OOM]) == [OOM]


@pytest.mark.parametrize(
    "prefix",
    [
        *("web-1  | ", "(XEN) ", "dom0 ", "INFO:root:", "DEBUG    kernel:log.py:12 ", "qemu-system-x86_64: "),
        *("I1128 01:02:03.123456    1 log.go:12] ", "2026-11-28 01:02:03,123 INFO console - ", "@400000005f3e2b1c "),
        *(
            "Apr 01 14:13:32 mysrv ",
            "box7 §",
            'time="2026-11-28T01:02:03Z" level=info msg="',
            "[28/11/2026 01:02:03] h ",
        ),
    ],
)
def test_an_unknown_prefix_is_learned(prefix: str) -> None:
    """What stands before lines that can only begin as they do is the prefix of all lines."""
    end = '"' if prefix.endswith('"') else ""
    assert texts(prefix + line + end for line in REPORT) == REPORT


@pytest.mark.parametrize(
    "prefix", ["vm1: ", "vm-1  | ", "host> ", "(qemu) ", "[vm1] ", "#12 3.456 ", "<LAVA> 10:00:00 "]
)
def test_an_unknown_prefix_before_a_stamp_is_learned(prefix: str) -> None:
    """Also in a log of few lines, where a line that lost its end would look the same."""
    found = texts(f"{prefix}[   12.345678] {line}" for line in REPORT)
    assert [text for text in found if text != prefix.strip()] == REPORT


@pytest.mark.parametrize("separator", [",", ";", "\t", " , "])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (("2026-11-28 01:02:03", "kern"), ()),
        (("1", "2026-11-28T01:02:03Z", "web1", "warn"), ("kern",)),
        ((), ("kern", "web1")),
    ],
)
def test_rows_of_a_table(separator: str, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    """Fields in quotation marks, as spreadsheets and log viewers export them, are no string of JSON."""
    rows = [separator.join(f'"{field}"' for field in (*before, line, *after)) for line in REPORT]
    assert texts(rows) == REPORT


@pytest.mark.parametrize("field", ["a\rb", "x" * 140_000])
def test_a_row_that_is_no_table(field: str) -> None:
    """What the csv module refuses stays text."""
    assert "\r".join(piece.text for piece in Containers().pieces(1, f'"kern", {field}')) == f'"kern", {field}'


def test_a_learned_prefix_may_have_numbers_that_differ() -> None:
    """Counters, widths and separators change from line to line."""
    assert (
        texts(f"log-{number}{':-'[number % 2]}  {number:3} {line}" for number, line in enumerate(REPORT, 97)) == REPORT
    )


def test_the_only_line_with_an_anchor_is_no_prefix() -> None:
    """One line that mentions another is not what the lines of a log have in common."""
    assert texts(["it says Mem-Info: here", "another line"])[0] == "it says Mem-Info: here"


@pytest.mark.parametrize(
    ("line", "comm"),
    [
        ("mysrv: DOM Worker", "DOM Worker"),
        ("[svc] task", "task"),
        ("a very long name of a host task", "of a host task"),
        ("Apr 01 14:13:32 mysrv task", "task"),
        ("kworker/0:1", "kworker/0:1"),
        ("DOM Worker", "DOM Worker"),
    ],
)
def test_a_prefix_is_no_part_of_a_name(line: str, comm: str) -> None:
    """A single line: names have at most 15 characters, and none of the marks that end a prefix."""
    assert only(f"{line}: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)").text.startswith(f"{comm}: page ")


def test_the_name_below_says_where_the_name_begins() -> None:
    """The line CPU: has the task's name."""
    assert texts([f"lxc {FAILURE}", TASK])[0] == FAILURE
    assert texts([FAILURE.replace("task", "my task"), TASK.replace("task", "my task")])[0].startswith("my task: ")


def test_what_a_prefix_says() -> None:
    """Time since boot, the clock, the caller and the host."""
    message = only(f"Nov 28 01:02:03 web1 kernel: [ 6207.637280][ T1108] {FAILURE}")
    assert message[2:6] == (6207.63728, "Nov 28 01:02:03", "T1108", "web1")
    assert message.indent == len("Nov 28 01:02:03 web1 kernel: [ 6207.637280][ T1108] ")
    assert only(f"4,1001,501,-,caller=C3;{FAILURE}")[2:5] == (0.000501, None, "C3")
    assert only(FAILURE)[2:] == (None, None, "", "", 0)


def test_clocks_are_comparable() -> None:
    """Differences of a log's times are right, also across months and with fractions."""
    stamps = (
        ("2026-11-30T23:59:59.250Z ", "2026-12-01T00:00:01.750Z "),
        ("Jan 31 23:59:59 h kernel: ", "Feb  1 00:00:01 h kernel: "),
    )
    for (first, second), apart in zip(stamps, (2.5, 2.0), strict=True):
        before, after = read_messages([first + FAILURE, second + OOM])
        assert before.time is not None
        assert after.time is not None
        assert after.time - before.time == apart
    assert only(f"[sam. nov. 28 01:02:03 2026] {OOM}")[2:4] == (None, "sam. nov. 28 01:02:03 2026")


def test_times_since_boot_and_of_the_clock_are_not_mixed() -> None:
    """Where some lines have the time since boot, the clock of others does not count."""
    lines = [f"Nov 28 01:02:03 h kernel: [ 12.5] {FAILURE}", f"Nov 28 01:02:03 h kernel: {OOM}"]
    assert [message.time for message in read_messages(lines)] == [12.5, None]


def test_lines_below_a_stamp_have_it() -> None:
    """Mem-Info is one message of several lines; dmesg stamps the first."""
    lines = ["[ 12.5][ C3] Mem-Info:", "[ 12.5][ C3] active_anon:1 inactive_anon:2", "             active_file:3"]
    _, first, second = read_messages(lines)
    assert (second.line, second.time, second.caller) == (3, first.time, "C3")


@pytest.mark.parametrize("prefix", ["", "[   12.345678] ", "Nov 28 01:02:03 host kernel: ", "> "])
@pytest.mark.parametrize("width", range(44, 130))
def test_lines_wrapped_at_any_place(prefix: str, width: int) -> None:
    """A mail breaks at blanks, a terminal anywhere; only the first part has the prefix."""
    lines = [prefix + line for line in REPORT]
    mailed = [part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False)]
    quoted = "> " if prefix == "> " else ""
    assert texts(quoted + part.removeprefix(quoted) for part in mailed) == REPORT
    if prefix != "> ":
        cut = [line[at : at + width] for line in lines for at in range(0, len(line), width)]
        assert texts(cut) == REPORT


@pytest.mark.parametrize("prefix", ["Nov 28 01:02:03 host kernel: ", "[   12.345678] ", ""])
def test_one_word_a_line(prefix: str) -> None:
    """As rsyslog wrote pr_cont of some kernels."""
    assert texts(prefix + word for line in REPORT for word in line.split(" ")) == REPORT


def test_words_of_several_printks() -> None:
    """Kernels 4.8 to 4.11 print these words one by one, and a mail wrapped the longest line."""
    words = ["java cpuset=", "/", " mems_allowed=0-1", "Node 0 ", "Normal free:24148kB min:65640kB"]
    lines = [f"Feb 19 16:20:13 web1 kernel: {word}" for word in words]
    assert texts([*lines, "low:129584kB high:193528kB", "Feb 19 16:20:13 web1 kernel: lowmem_reserve[]:"]) == [
        *("java cpuset=/ mems_allowed=0-1", "Node 0 Normal free:24148kB min:65640kB low:129584kB high:193528kB"),
        "lowmem_reserve[]:",
    ]


def test_other_lines_are_not_joined() -> None:
    """What cannot continue a line stands alone."""
    others = ["usb 1-1: new device", "3 words follow", "Node is a word", "order is another"]
    for line in (FAILURE, ZONE, RESERVE, BLOCKS, TASK):
        assert texts([line, *others]) == [line, *others]
        assert texts([f"[ 1.0] {text}" for text in (line, *others)]) == [line, *others]


def test_lines_of_equal_length_are_not_joined() -> None:
    """A trace whose lines have the same width was not cut by a terminal."""
    event = "  cc1-100 [001] ..... 1.0: mm_page_alloc: page=00000000d2be5665 pfn=0x1 order=0 gfp_flags=GFP_KERNEL"
    assert texts([event] * 100) == [event.strip()] * 100


def test_fragments_of_netconsole() -> None:
    """Extended netconsole cuts messages into datagrams, which a receiver may print as one line."""
    head = "4,1001,501,-,caller=T1108,ncfrag={}/{};"
    parts = [head.format(at, len(BLOCKS)) + BLOCKS[at : at + 50] for at in range(0, len(BLOCKS), 50)]
    assert texts(parts) == [BLOCKS]
    assert texts(["".join(parts)]) == [BLOCKS]


def test_kmsg() -> None:
    """/dev/kmsg: dictionaries, escapes, and continuations of kernels before 4.10."""
    lines = [f"4,1,501,-;{FAILURE}", " SUBSYSTEM=pci", " DEVICE=+pci:0000:00:14.0", f"4,2,502,c;{BLOCKS[:40]}"]
    assert texts([*lines, f"4,3,503,+;{BLOCKS[40:]}"]) == [FAILURE, BLOCKS]
    assert only("4,4,504,-;caf\\xc3\\xa9 invoked oom-killer: gfp_mask=0xcc0").text.startswith("café invoked ")


def test_json() -> None:
    """Objects, arrays, strings and bytes; a message is found under any name, and a whole log in one string."""
    log = "\n".join(f"[   12.5] {line}" for line in REPORT)
    forms = [
        [json.dumps({"attachment": {"title": "x"}, "body": log})],
        [json.dumps({"a": 1, "what_it_said": log})],
        [json.dumps([{"message": line} for line in REPORT])],
        [json.dumps({"id": "7", "events": [{"n": 1, "logs": {"message": line}} for line in REPORT]})],
        [json.dumps({"MESSAGE": list(line.encode())}) for line in REPORT],
        [json.dumps({"log": f"{line}\n", "stream": "stdout"})[:-15] for line in REPORT],
        json.dumps([{"PRIORITY": "4", "MESSAGE": line} for line in REPORT], indent="\t").splitlines(),
        [f"Nov 28 01:02:03 host app: {json.dumps({'msg': line})}" for line in REPORT],
        [log.replace("\n", "\\n")],
    ]
    for lines in forms:
        assert texts(lines) == REPORT


def test_journal_export() -> None:
    """One field a line; fields other than the message describe it."""
    fields = ("__CURSOR=s=1", "__MONOTONIC_TIMESTAMP=12500000", "_HOSTNAME=web1", "PRIORITY=4")
    messages = list(read_messages(line for text in REPORT for line in (*fields, f"MESSAGE={text}", "")))
    assert [(message.text, message.time, message.host) for message in messages] == [
        (text, 12.5, "web1") for text in REPORT
    ]


def test_quoted_printable() -> None:
    """Soft line breaks and codes are undone; plain text with "=20" in it is left alone."""
    mail = quopri.encodestring("\n".join(REPORT).encode()).decode().splitlines()
    assert texts(mail) == REPORT
    plain = "a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=20, oom_score_adj=300"
    assert texts([plain]) == [plain]


def test_html() -> None:
    """Tags, entities and line breaks."""
    page = ["<div class='x'>a &lt;4&gt;[ 12.5] b</div>", *(f"<b>&lt;4&gt;[ 12.5] {line}</b><br/>" for line in REPORT)]
    assert texts(page)[1:] == REPORT
    assert texts(["<br>".join(REPORT)]) == REPORT
    assert "<IRQ>" in texts([*REPORT, "[ 12.5]  <IRQ>"])


def test_rsyslog_escapes() -> None:
    """Control characters are # and octal digits there."""
    assert texts(["Nov 28 01:02:03 h kernel: Mem-Info:#012active_anon:1 inactive_anon:2#012 active_file:3"]) == [
        *("Mem-Info:", "active_anon:1 inactive_anon:2", "active_file:3")
    ]


def test_a_line_without_line_ends() -> None:
    """Pages and consoles may lose line ends; each stamp begins a message."""
    for prefix in (
        "[   12.345678] ",
        "[   12.345678][ T1108] ",
        "Nov 28 01:02:03 web1 kernel: ",
        "[   12.345678][    C3] ",
    ):
        assert texts([" ".join(prefix + line for line in REPORT)]) == REPORT


def test_what_closes_a_line() -> None:
    """Cells of a table, and what rsyslog says of repeated messages."""
    assert texts(f"| [   12.3] {line} |" for line in REPORT) == REPORT
    assert texts(f'level=info msg="[   12.345678] {line}"' for line in REPORT[1:]) == REPORT[1:]
    repeated = "Nov 28 01:02:03 web1 kernel: message repeated 2 times: [ [   12.3] {}]"
    assert texts(repeated.format(line) for line in REPORT) == REPORT


def test_carriage_returns_alone() -> None:
    """As old terminals' files have."""
    assert texts(LogLines(io.BytesIO("\r".join(REPORT * 40).encode()))) == REPORT * 40


def test_text_is_safe() -> None:
    """Nothing in a message acts on a terminal or forges a line."""
    for hostile in ("\x1b[31m", "\x9b31m", "\u202e", "\x07", "\r", "\u2028", "\x00"):
        found = texts([f"[ 1.0] a{hostile}b: page allocation failure: order:0, mode:0xcc0"])
        assert all(text.isprintable() and hostile not in text for text in found)
        assert found[-1].endswith("b: page allocation failure: order:0, mode:0xcc0")


def test_parts_without_a_hint_are_passed_over() -> None:
    """A report in a long log is read whole, and most other lines are not looked at."""
    other = [f"[{number:12.6f}] usb 1-1: new high-speed device" for number in range(5000)]
    rows = [
        f"[{number:7}]  1000 {number:7}    51238     2301   450560       12             0 worker"
        for number in range(900)
    ]
    calls = [f" ? function_{number}+0x1/0x2" for number in range(300)]
    report = [f"[ 2500.000000] {line}" for line in (*REPORT, *rows, *calls, "Out of memory: Killed process 7 (x)")]
    found = list(read_messages([*other[:2500], *report, *other[2500:]]))
    assert [message.text for message in found if "usb" not in message.text] == [
        *REPORT,
        *rows,
        *(call.strip() for call in calls),
        "Out of memory: Killed process 7 (x)",
    ]
    assert len(found) < len(report) + 500
    assert found[0].line > 2000


def test_a_task_with_a_colon_in_its_name() -> None:
    """As "tmux: server": it looks like a host and a task; the line below tells."""
    lines = (
        "[   12.000001] tmux: server invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "[   12.000010] CPU: 3 UID: 0 PID: 12 Comm: tmux: server Not tainted 6.12.9 #1",
    )
    first = next(iter(read_messages(lines)))
    assert first.text.startswith("tmux: server invoked oom-killer: ")
    assert first.host == ""


@pytest.mark.parametrize("prefix", ["", "[ 6207.637280] "])
def test_names_with_blanks_in_wrapped_lines(prefix: str) -> None:
    """The kernel prints a task's name before "cpuset=", and in the line of a kill."""
    killed = "Out of memory: Killed process 77 (Web Content) total-vm:160000kB, anon-rss:80000kB, UID:1000"
    for line in ("Web Content cpuset=/ mems_allowed=0-1", killed):
        for at in (at for at, letter in enumerate(line) if letter == " " and at > len("Web")):
            assert texts([f"{prefix}{line[:at]}", line[at + 1 :], f"{prefix}{TASK}"]) == [line, TASK]


def test_a_name_with_blanks_in_a_wrapped_row() -> None:
    """A row is complete with the first word of a name, which has no more than 15 characters."""
    row, stamp = "[   77]     0    77    40000    20000   1       0 tmux:", "[ 6207.637670] "
    assert texts([f"{stamp}{row}", "server", f"{stamp}{TASK}"]) == [f"{row} server", TASK]
    for below in ("a line of another program", f"{stamp}server", "Mem-Info:"):
        assert texts([f"{stamp}{row}", below, f"{stamp}{TASK}"])[0] == row
    assert texts([row, "server", TASK])[0] == row
    # A mail breaks before a word that would make the line wider than all others.
    mail = [part for width in (50, 46, 42) for part in ("Node 0 DMA free:4kB min:8kB".ljust(width, "x"), "low:1kB")]
    most = len(f"{row} server")
    for below, whole in (("server", f"{row} server"), ("Mem-Info:", row)):
        assert texts([*mail, "x ".ljust(most - 1, "x"), row, below])[-2 if whole == row else -1] == whole
    assert texts([*mail, "x ".ljust(most, "x"), row, "server"])[-2:] == [row, "server"]
    # A line without blanks cannot be broken.
    assert texts([*mail, "x" * 200, row, "server"])[-1] == f"{row} server"


@pytest.mark.parametrize("width", [60, 95, 97])
def test_a_table_in_a_terminal_below_other_lines(width: int) -> None:
    """Lines of other text continue none, so that they do not hide the width at which a terminal cut the table."""
    other = [f"port {number:3} of the hub was disabled by the driver".ljust(width, ".") for number in range(20)]
    head = (
        "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents oom_score_adj name"
    )
    numbers = "{:5}   826400    58306    58306        0         0    40960        0             0"
    tasks = ((60321, "systemd-journal"), (3307, "java"), (77, "Web Content"))
    table = [head, *(f"[{pid:7}]     0 {numbers.format(pid)} {name}" for pid, name in tasks)]
    found = texts([*other, *(part for line in table for part in (line[:97], line[97:]))])
    assert [text.split() for text in found[-4:]] == [line.split() for line in table]


@pytest.mark.parametrize("marks", [("`", "`"), ("'", "',")])
def test_a_mark_at_the_end_of_a_wrapped_line(marks: tuple[str, str]) -> None:
    """It closes the message, though what stands there has no mark of its own."""
    lines = [f"{marks[0]}[   12.00000{number}] {line}{marks[1]}" for number, line in enumerate(REPORT)]
    assert texts(lines) == REPORT
    assert texts([part for line in lines for part in (line[:60], line[60:]) if part]) == REPORT


def test_a_prefix_of_a_chat_before_a_first_line() -> None:
    """No message ends before the stamp of the first line."""
    lines = [f"[9:12 AM] bot: `[ 6207.63728{number}] {line}`" for number, line in enumerate(REPORT)]
    assert texts(lines) == REPORT


def test_the_rest_of_a_line_below_long_numbers() -> None:
    """A prefix of 13 digits was learned; "B" is a digit too, but a short number."""
    lines = [f"1795863377637 {line}" for line in REPORT]
    at = lines[-1].index("B = ")
    width = [f"{line[:at]}\n{line[at:]}" if len(line) > at else line for line in lines]
    assert texts("\n".join(width).split("\n")) == REPORT


def test_two_processors_write_one_line() -> None:
    """A message that begins within another one's line has nearly its time; that of a guest has its own clock."""
    both = f"[   70.100060] mmc0: Timeout waiting for an interrupt.[   70.100075] {RESERVE}"
    assert texts([both]) == ["mmc0: Timeout waiting for an interrupt.", RESERVE]
    for one in (both.replace("70.100075", "12.345678"), both.replace(RESERVE, "8 kB of the second port"), both[13:]):
        assert len(texts([one])) == 1


def test_the_time_of_day_is_never_near_the_time_since_boot() -> None:
    """A stamp without a year on the first day of one, and a machine that has run as long."""
    day = "Jan  1 00:02:03 host kernel: "
    first, second = read_messages([f"{day}{FAILURE}", f"{day}[  123.500000] {TASK}"])
    assert first.time is not None
    assert second.time == 123.5
    assert first.time - second.time > 1e8


def test_text_without_a_stamp_is_no_beginning_of_a_stamped_line() -> None:
    """A task may be called kernel, so that its name looks like the end of a prefix."""
    lines = ["Hello, it fails:", "[ 6207.637234] kernel: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)"]
    assert [message.line for message in read_messages(lines)] == [1, 2]


def test_a_device_is_no_host() -> None:
    """Its message ran into a failure's; the lines below are still of the same machine."""
    stamp = "Nov 16 10:00:00 web1 kernel: "
    messages = list(read_messages([f"{stamp}eth0: link down{FAILURE}", f"{stamp}{TASK}"]))
    assert {message.host for message in messages} == {"web1"}


@pytest.mark.parametrize("end", ['"', '",host1', '";x;y', '",2026-11-16T10:00:00Z,"web 1"'])
def test_a_field_of_several_lines(end: str) -> None:
    """Its quotation mark, and what the row has behind it, is no part of the last line."""
    for last in (RESERVE, BLOCKS, "Free swap  = 8kB", "1000 pages RAM"):
        lines = [f'7,2026-11-16T10:00:00Z,"{FAILURE}', TASK, f"{last}{end}", '8,2026-11-16T10:00:01Z,"usb 1-1: new"']
        assert texts(lines)[-2] == last


def test_quotation_marks_of_other_lines() -> None:
    """A line with a pair of them ends no field, and neither does one that began none."""
    for line in ('x says "a", and more', 'inch: 5"'):
        assert texts([TASK, line, RESERVE]) == [TASK, line, RESERVE]


def test_a_wrapped_row_of_the_idle_task() -> None:
    """Its name begins like the word in "0 pages in swap cache", and the number before it is no amount of swap."""
    row = "[     77]     0    77    40000    20000    40960        0             0 swapper/0"
    stamp = "[ 6207.637670] "
    assert texts([f"{stamp}{row[:64]}", row[64:].strip(), f"{stamp}{TASK}"]) == [
        " ".join((row[:64].strip(), row[64:].strip())),
        TASK,
    ]


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        ("tion failure: order:5, mode:0x40dc0", "page allocation failure: order:5, mode:0x40dc0"),
        (" failure: order:8, mode:0xcc0", "page allocation failure: order:8, mode:0xcc0"),
        ("n failure. order:1, mode:0x20", "page allocation failure. order:1, mode:0x20"),
        ("re: order:3, mode:0x20", "page allocation failure: order:3, mode:0x20"),
        ("ler: gfp_mask=0xd0, order=0, oomkilladj=0", "invoked oom-killer: gfp_mask=0xd0, order=0, oomkilladj=0"),
        ("killer: gfp_mask=0x0, order=-1", "invoked oom-killer: gfp_mask=0x0, order=-1"),
    ],
)
def test_a_first_line_that_begins_within_its_words(cut: str, whole: str) -> None:
    """The log begins there, or another writer's line was in the way; the task's name is lost."""
    assert texts([cut, TASK])[0] == whole


@pytest.mark.parametrize(
    "text",
    [
        # "vmemmap alloc failure" has these orders.
        *(f"c failure: order:{order}, mode:0xcc0" for order in (0, 9)),
        *(f"failure: order:{order}, mode:0xcc0" for order in (9, 11, 13)),
        "page allocation failure: order:5, mode:0x40dc0",
        "my failure: order:5, mode:0x40dc0",
        "ler: order:5, mode:0x40dc0",
        "tion failure: gfp_mask=0xd0, order=0",
        "tion failure: order:5, node 0",
        "killer: gfp_mask=0xd0",
    ],
)
def test_other_words_stay_as_they_are(text: str) -> None:
    """Without the rest of such a line, or with other words before it."""
    assert texts([text, TASK])[0] == text


def test_dmesg_prints_json() -> None:
    """With util-linux 2.38, its objects begin behind the end of the one before."""
    objects = [
        f'         "pri": 4,\n         "time": 7.000000,\n         "msg": {json.dumps(text)}\n' for text in REPORT
    ]
    whole = '{\n   "dmesg": [\n      {\n' + "      },{\n".join(objects) + "      }\n   ]\n}\n"
    assert texts(whole.splitlines()) == REPORT


def test_a_misspelled_stall() -> None:
    """63f53dea0c98 writes so."""
    line = "cc1: page alloction stalls for 10004ms, order:0, mode:0x24201ca(GFP_HIGHUSER_MOVABLE|__GFP_COLD)"
    assert texts([line, TASK])[0] == line.replace("alloction", "allocation")


def test_a_processor_before_the_text_is_no_task() -> None:
    """A number behind it may be the text's own."""
    report = [*REPORT, "2097022 pages RAM", "1024 total pagecache pages"]
    assert texts([f"<4>[    7.000000] c3 {text}" for text in report]) == report
    assert texts([f"<4>[    7.000000] c3   1108 {text}" for text in report]) == report


def test_a_module_with_its_build_id_may_be_wrapped() -> None:
    """The kernel prints it behind the frame with CONFIG_STACKTRACE_BUILD_ID."""
    frame, module = "dc_create_plane_state+0x2c/0xa0", "[amdgpu 4e8b7a9c6d5f4e3d2c1b0a9f8e7d6c5b4a392817]"
    for cut in (f" {frame}\n{module}", f" {frame} {module.replace(' ', chr(10))}"):
        lines = "\n".join([*REPORT[:2], "Call Trace:", cut, " worker_thread+0x4d/0x480", *REPORT[2:]]).split("\n")
        assert f"{frame} {module}" in texts(lines)


SHORT_REPORTS = {
    "slub": (
        "SLUB: Unable to allocate memory on node -1, gfp=0x600040(GFP_NOFS)",
        "  cache: ext4_inode_cache, object size: 1080, buffer size: 1088, default order: 3, min order: 0",
        "  node 0: slabs: 112, objs: 3360, free: 0",
    ),
    "cma": (
        "cma: cma_alloc: linux,cma: alloc failed, req-size: 2025 pages, ret: -16",
        "cma: number of available pages: 7@25+12@116=> 2532 free of 16384 total pages",
    ),
    "hugetlb": ("HugeTLB: allocating 2048 of page size 2.00 MiB failed.  Only allocated 1311 hugepages.",),
}


@pytest.mark.parametrize("name", SHORT_REPORTS)
@pytest.mark.parametrize(
    "prefix", ["INFO  serial: [   61.221312] ", "03-05 11:00:01.123     0     0 W         : ", "> "]
)
def test_a_prefix_of_a_report_of_few_lines(name: str, prefix: str) -> None:
    """They have no state of memory from which a prefix could be learned."""
    report = SHORT_REPORTS[name] * 3
    assert texts([prefix + text for text in report]) == [text.strip() for text in report]


@pytest.mark.parametrize("name", SHORT_REPORTS)
@pytest.mark.parametrize("width", range(48, 72, 5))
def test_a_report_of_few_lines_is_wrapped(name: str, width: int) -> None:
    """Each line says by itself whether it is complete."""
    lines = [
        part
        for text in SHORT_REPORTS[name] * 3
        for part in textwrap.wrap(f"[   61.221312] {text}", width, break_long_words=False, break_on_hyphens=False)
    ]
    begins = {" ".join(text.split())[:40] for text in texts(lines)}
    assert begins == {" ".join(text.split())[:40] for text in SHORT_REPORTS[name]}
    assert texts(lines)[0].split()[-1] == SHORT_REPORTS[name][0].split()[-1]


@pytest.mark.parametrize("name", SHORT_REPORTS)
def test_a_mail_says_that_it_is_quoted_printable(name: str) -> None:
    """Its header decides where hardly any line is encoded."""
    body = quopri.encodestring("\n".join(f"[   61.221312] {text}" for text in SHORT_REPORTS[name]).encode()).decode()
    head = ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", ""]
    assert texts([*head, *body.split("\n")])[3:] == [text.strip() for text in SHORT_REPORTS[name]]


def test_an_old_frame_is_wrapped_behind_its_address() -> None:
    """The function without its question mark would look as if it had been called."""
    frames = [f" [<ffffffffb19d6e8{at}>] ? alloc_pages_current+0x{at}/0x140" for at in range(4)]
    parts = [part for frame in frames for part in (frame.rpartition(" ")[0], frame.rpartition(" ")[2])]
    log = [*REPORT[:2], "Call Trace:", *parts, *REPORT[2:]]
    assert [text for text in texts(log) if "+0x" in text] == [frame.strip() for frame in frames]


def test_mails_in_base64() -> None:
    """A line has the number of the physical one in which it begins; what is no text is left as it is."""
    body = base64.encodebytes("\n".join(["Hello,", *REPORT, "x" * 300]).encode()).decode().split("\n")
    image = base64.encodebytes(bytes(range(256)) * 2).decode().split("\n")
    mail = ["Content-Transfer-Encoding: base64", "", *body, "-- ", *image, "", *body]
    assert [text for text in texts(mail) if text in REPORT] == REPORT * 2
    first, again = (message for message in read_messages(mail) if message.text == FAILURE)
    assert (first.line, again.line) == (3, 3 + len(body) + 1 + len(image) + 1)
    later = next(message for message in read_messages(mail) if message.text == BLOCKS)
    assert later.line == 3 + len("\n".join(["Hello,", *REPORT[:-1], ""])) // 57


def test_a_mail_that_has_its_text_twice() -> None:
    """Only the first alternative is read, also if the end of the second is missing."""
    kind = ["Content-Type: multipart/alternative;", ' boundary="b"', "", "--b", "Content-Type: text/plain", ""]
    mail = [*kind, *REPORT, "--b", "Content-Type: text/html", "", *REPORT]
    for end in (["--b--"], ["From a@example.org Tue Mar  5 10:00:00 2024"], ["Message-ID: <1@example.org>"]):
        assert [text for text in texts([*mail, *end, *REPORT]) if text in REPORT] == REPORT * 2
    assert [text for text in texts([*mail, *mail]) if text in REPORT] == REPORT * 2
