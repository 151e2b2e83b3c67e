# SPDX-License-Identifier: MIT
r"""Every wrapping in which people paste a kernel's messages: what programs, files, mails and terminals make of them.

A message with newlines reaches each reader in another way: the console and `dmesg -r` repeat the prefix on each line,
/dev/kmsg writes `\x0a`, rsyslog `#012`, journalctl and dmesg indent.
"""

import base64
import gzip
import html
import json
import lzma
import quopri
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from tests.logs.kernels import Message

BOOT = datetime(2026, 11, 28, 9, 12, 30, tzinfo=UTC)
"""When the machine of these logs booted."""

START = 6207.637280
"""Seconds after that of the first message."""


class Stamped(NamedTuple):
    """A message with what a kernel adds to it."""

    level: int
    text: str
    parts: tuple[str, ...]
    time: float
    number: int

    @property
    def wall(self) -> datetime:
        """The time as a clock shows it."""
        return BOOT + timedelta(seconds=self.time)

    @property
    def lines(self) -> list[str]:
        """The lines of its text."""
        return self.text.split("\n")


Wrap = Callable[[Sequence[Stamped]], str]


def stamped(messages: Iterable[Message]) -> list[Stamped]:
    """Give each message its time and number."""
    return [
        Stamped(message.level, message.text, message.parts, START + 13e-6 * number, 1001 + number)
        for number, message in enumerate(messages)
    ]


def _each_line(prefix: Callable[[Stamped], str], end: str = "") -> Wrap:
    return lambda messages: "".join(f"{prefix(message)}{line}{end}\n" for message in messages for line in message.lines)


def _first_line(prefix: Callable[[Stamped], str]) -> Wrap:
    """As _each_line, with blanks instead of the prefix before the other lines."""

    def wrap(messages: Sequence[Stamped]) -> str:
        return "".join(
            f"{prefix(message) if number == 0 else ' ' * len(prefix(message))}{line}\n"
            for message in messages
            for number, line in enumerate(message.lines)
        )

    return wrap


def _joined(prefix: Callable[[Stamped], str], newline: str) -> Wrap:
    return lambda messages: "".join(
        f"{prefix(message)}{message.text.replace(chr(10), newline)}\n" for message in messages
    )


def _dmesg(message: Stamped) -> str:
    return f"[{message.time:12.6f}] "


def _syslog(message: Stamped) -> str:
    return f"{message.wall:%b %d %H:%M:%S}"


def _iso(message: Stamped) -> str:
    return f"{message.wall:%Y-%m-%dT%H:%M:%S.%f}+00:00"


def _local(days: str, months: str, order: str) -> Callable[[Stamped], str]:
    day_names, month_names = days.split(), months.split()

    def prefix(message: Stamped) -> str:
        wall = message.wall
        day, month = day_names[wall.weekday()], month_names[wall.month - 1]
        return f"[{order.format(day=day, month=month, date=wall.day, time=f'{wall:%H:%M:%S}', year=wall.year)}] "

    return prefix


_DATE = "{day} {month} {date:2} {time} {year}"
_DAYS = {
    "English": ("Mon Tue Wed Thu Fri Sat Sun", "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"),
    "German": ("Mo Di Mi Do Fr Sa So", "Jan Feb Mär Apr Mai Jun Jul Aug Sep Okt Nov Dez"),
    "French": (
        "lun. mar. mer. jeu. ven. sam. dim.",
        "janv. févr. mars avril mai juin juil. août sept. oct. nov. déc.",
    ),
    "Spanish": ("lun mar mié jue vie sáb dom", "ene feb mar abr may jun jul ago sep oct nov dic"),
    "Russian": ("Пн Вт Ср Чт Пт Сб Вс", "янв фев мар апр май июн июл авг сен окт ноя дек"),
    "Chinese": ("一 二 三 四 五 六 日", "1月 2月 3月 4月 5月 6月 7月 8月 9月 10月 11月 12月"),
    "Japanese": ("月 火 水 木 金 土 日", "1月 2月 3月 4月 5月 6月 7月 8月 9月 10月 11月 12月"),
}
"""Days and months as `dmesg -T` prints them in these locales."""


def _kmsg_text(message: Stamped) -> str:
    return re.sub(r"[\x00-\x1f\x7f\\]", lambda match: f"\\x{ord(match[0]):02x}", message.text)


def _kmsg(caller: str = "") -> Wrap:
    return lambda messages: "".join(
        f"{message.level},{message.number},{message.time * 1e6:.0f},-{caller};{_kmsg_text(message)}\n"
        for message in messages
    )


def _kmsg_with_keys(messages: Sequence[Stamped]) -> str:
    """As `cat /dev/kmsg`, with the device's lines that some messages have."""
    return "".join(
        f"{message.level},{message.number},{message.time * 1e6:.0f},-;{_kmsg_text(message)}\n"
        + (" SUBSYSTEM=pci\n DEVICE=+pci:0000:00:14.0\n" if number == 0 else "")
        for number, message in enumerate(messages)
    )


def _json_lines(record: Callable[[Stamped, str], object]) -> Wrap:
    return lambda messages: "".join(
        json.dumps(record(message, line)) + "\n" for message in messages for line in message.lines
    )


def _docker(message: Stamped, line: str) -> object:
    return {"log": f"{_dmesg(message)}{line}\n", "stream": "stdout", "time": f"{message.wall:%Y-%m-%dT%H:%M:%S.%f}000Z"}


def _journal_json(messages: Sequence[Stamped]) -> str:
    return "".join(json.dumps(_journal_record(message)) + "\n" for message in messages)


def _journal_json_pretty(messages: Sequence[Stamped]) -> str:
    return "".join(json.dumps(_journal_record(message), indent="\t") + "\n" for message in messages)


def _journal_json_bytes(messages: Sequence[Stamped]) -> str:
    """As journald writes a message that is no plain text: an array of bytes."""
    return "".join(
        json.dumps(_journal_record(message) | {"MESSAGE": list(message.text.encode())}) + "\n" for message in messages
    )


def _journal_record(message: Stamped) -> dict[str, object]:
    return {
        "__REALTIME_TIMESTAMP": f"{message.wall.timestamp() * 1e6:.0f}",
        "__MONOTONIC_TIMESTAMP": f"{message.time * 1e6:.0f}",
        "_HOSTNAME": "web1",
        "_TRANSPORT": "kernel",
        "PRIORITY": str(message.level),
        "SYSLOG_IDENTIFIER": "kernel",
        "MESSAGE": message.text,
    }


def _journal_export(messages: Sequence[Stamped]) -> str:
    records = []
    for message in messages:
        fields = _journal_record(message)
        text = fields.pop("MESSAGE")
        lines = [f"{name}={value}" for name, value in fields.items()]
        if "\n" in str(text):
            # A little-endian length of 64 bits comes before the bytes of such a field.
            size = len(str(text).encode()).to_bytes(8, "little").decode("latin-1")
            lines.append(f"MESSAGE\n{size}{text}")
        else:
            lines.append(f"MESSAGE={text}")
        records.append("\n".join(lines) + "\n")
    return "\n".join(records)


def _journal_verbose(messages: Sequence[Stamped]) -> str:
    return "".join(
        f"{message.wall:%a %Y-%m-%d %H:%M:%S.%f} UTC [s=0a1b;i={message.number:x};b=9f;m=1;t=2;x=3]\n"
        + "".join(
            f"    {name}={str(value).replace(chr(10), chr(10) + ' ' * 12)}\n"
            for name, value in _journal_record(message).items()
            if not name.startswith("__")
        )
        for message in messages
    )


def _words(messages: Sequence[Stamped]) -> str:
    """One printk or continuation a line, as rsyslog wrote them with kernels 4.8 and 4.9."""
    return "".join(
        f"{_syslog(message)} web1 kernel: {_dmesg(message)}{line}\n"
        for message in messages
        for part in message.parts
        for line in part.split("\n")
    )


def _cri(messages: Sequence[Stamped]) -> str:
    return _each_line(lambda message: f"{message.wall:%Y-%m-%dT%H:%M:%S.%f}123Z stderr F {_dmesg(message)}")(messages)


def _cri_in_parts(messages: Sequence[Stamped]) -> str:
    """A long line in parts: P is continued, F ends it."""
    out = []
    for message in messages:
        start = f"{message.wall:%Y-%m-%dT%H:%M:%S.%f}123Z stderr"
        for line in message.lines:
            whole = f"{_dmesg(message)}{line}"
            *firsts, last = [whole[at : at + 120] for at in range(0, len(whole), 120)]
            out += [f"{start} P {first}\n" for first in firsts]
            out.append(f"{start} F {last}\n")
    return "".join(out)


def mailed(width: int, wrap: Wrap) -> Wrap:
    """Break lines at blanks, as mail programs and forums do; the rest of a line has no prefix."""

    def broken(messages: Sequence[Stamped]) -> str:
        return "".join(
            piece + "\n"
            for line in wrap(messages).splitlines()
            for piece in (
                textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=True) or [""]
            )
        )

    return broken


def in_terminal(width: int, wrap: Wrap) -> Wrap:
    """Break lines at a column, as a copy from a terminal does: also inside words and numbers."""

    def copied(messages: Sequence[Stamped]) -> str:
        lines = wrap(messages).splitlines()
        return "".join(f"{line[at : at + width]}\n" for line in lines for at in range(0, max(len(line), 1), width))

    return copied


def quoted(mark: str, wrap: Wrap) -> Wrap:
    """Put a mark before each line."""
    return lambda messages: "".join(f"{mark}{line}\n" for line in wrap(messages).splitlines())


def _page(wrap: Wrap) -> Wrap:
    return lambda messages: (
        "<!DOCTYPE html>\n<html><head><title>Bug 1: help</title></head><body>\n<p>Hello,&nbsp;it fails:</p>\n<pre>"
        f"{html.escape(wrap(messages))}</pre>\n</body></html>\n"
    )


def _ansi(messages: Sequence[Stamped]) -> str:
    """As `dmesg --color=always` and `journalctl` on a terminal."""
    return "".join(
        f"\x1b[32m[{message.time:12.6f}] \x1b[0m\x1b[33m{line}\x1b[0m\n"
        for message in messages
        for line in message.lines
    )


def _ansi_console(messages: Sequence[Stamped]) -> str:
    """As a serial console's log: positions, modes and carriage returns too."""
    return "\x1b[2J\x1b[1;1H\x1b[?25h" + "".join(
        f"\x1b[0;1;31m{_dmesg(message)}{line}\x1b[K\x1b[m\r\n" for message in messages for line in message.lines
    )


def _prose(wrap: Wrap) -> Wrap:
    return lambda messages: (
        "Hi all,\n\nsince the upgrade my box prints this every night, what does it mean?\n\n"
        f"{wrap(messages)}\nThanks in advance: any help is welcome!\n-- \nA. User\n"
    )


def _numbered(messages: Sequence[Stamped]) -> str:
    lines = CONSOLE(messages).splitlines()
    return "".join(f"{number:6}\t{line}\n" for number, line in enumerate(lines, 1))


def _grepped(messages: Sequence[Stamped]) -> str:
    lines = SYSLOG(messages).splitlines()
    return "".join(f"/var/log/kern.log.1:{number}:{line}\n" for number, line in enumerate(lines, 2701))


def _vmware(messages: Sequence[Stamped]) -> str:
    return "".join(
        f"{message.wall:%Y-%m-%dT%H:%M:%S}.{message.wall.microsecond // 1000:03}Z| vcpu-0| I005: Guest: "
        f"<{message.level}>{_dmesg(message)}{line}\n"
        for message in messages
        for line in message.lines
    )


def _delta(messages: Sequence[Stamped]) -> str:
    """As `dmesg -d`."""
    last, out = messages[0].time, []
    for message in messages:
        out += [f"[{message.time:12.6f} < {message.time - last:12.6f}>] {line}\n" for line in message.lines]
        last = message.time
    return "".join(out)


def _reltime(messages: Sequence[Stamped]) -> str:
    """As `dmesg -e`: a date, then differences."""
    last, out = messages[0].time, []
    for number, message in enumerate(messages):
        stamp = f"{message.wall:%b%d %H:%M}" if number == 0 else f"  +{message.time - last:.6f}"
        out += [f"[{stamp}] {line}\n" for line in message.lines]
        last = message.time
    return "".join(out)


CONSOLE = _each_line(_dmesg)
SYSLOG = _joined(lambda message: f"{_syslog(message)} web1 kernel: {_dmesg(message)}", "#012")
PLAIN = _each_line(lambda message: "")  # noqa: ARG005 no prefix


def _records(messages: Sequence[Stamped]) -> str:
    return "\n".join(json.dumps({"level": "warn", "message": line}) for line in CONSOLE(messages).split("\n"))


def newest_first(inner: Callable[[Sequence[Stamped]], str]) -> Callable[[Sequence[Stamped]], str]:
    """Return the wrapping whose last line comes first, as log servers show it."""
    return lambda messages: "\n".join(reversed(inner(messages).rstrip("\n").split("\n")))


def each_line(change: Callable[[str], str]) -> Callable[[Sequence[Stamped]], str]:
    """Return the wrapping that changes each line of a console."""
    return lambda messages: "\n".join(map(change, CONSOLE(messages).rstrip("\n").split("\n")))


WRAPPINGS: dict[str, Wrap] = {
    "plain": PLAIN,
    "console": CONSOLE,
    "console with callers": _each_line(lambda message: f"{_dmesg(message)[:-1]}[ T1108] "),
    "dmesg": _first_line(_dmesg),
    "dmesg -r": _each_line(lambda message: f"<{message.level}>{_dmesg(message)}"),
    "dmesg -x": _first_line(
        lambda message: f"kern  :{ {3: 'err', 4: 'warn', 6: 'info'}[message.level]:6}: {_dmesg(message)}"
    ),
    **{f"dmesg -T in {language}": _first_line(_local(*names, _DATE)) for language, names in _DAYS.items()},
    "dmesg -d": _delta,
    "dmesg -e": _reltime,
    "dmesg --time-format iso": _first_line(lambda message: f"{message.wall:%Y-%m-%dT%H:%M:%S,%f}+00:00 "),
    "dmesg -t": PLAIN,
    "/dev/kmsg": _kmsg(),
    "/dev/kmsg with keys": _kmsg_with_keys,
    "extended netconsole": _kmsg(",caller=T1108"),
    "extended netconsole with a release": lambda messages: "".join(
        f"6.12.9,{line}\n" for line in _kmsg(",caller=T1108")(messages).splitlines()
    ),
    "docker json-file": _json_lines(_docker),
    "CRI": _cri,
    "CRI in parts": _cri_in_parts,
    "JSON with @timestamp": _json_lines(lambda message, line: {"@timestamp": _iso(message), "message": line}),
    "JSON string": lambda messages: json.dumps({"title": "oops", "body": CONSOLE(messages)}) + "\n",
    "journalctl -o json": _journal_json,
    "journalctl -o json-pretty": _journal_json_pretty,
    "journalctl -o json with bytes": _journal_json_bytes,
    "journalctl -o export": _journal_export,
    "journalctl -o verbose": _journal_verbose,
    "journalctl -o cat": _joined(lambda message: "", "\n"),  # noqa: ARG005 no prefix
    "journalctl -o short": _first_line(lambda message: f"{_syslog(message)} web1 kernel: "),
    "journalctl -o short-iso": _first_line(lambda message: f"{message.wall:%Y-%m-%dT%H:%M:%S}+00:00 web1 kernel: "),
    "journalctl -o short-iso-precise": _first_line(lambda message: f"{_iso(message)} web1 kernel: "),
    "journalctl -o short-precise": _first_line(lambda message: f"{message.wall:%b %d %H:%M:%S.%f} web1 kernel: "),
    "journalctl -o short-full": _first_line(lambda message: f"{message.wall:%a %Y-%m-%d %H:%M:%S} UTC web1 kernel: "),
    "journalctl -o short-monotonic": _first_line(lambda message: f"[{message.time:12.6f}] web1 kernel: "),
    "journalctl -o short-unix": _first_line(lambda message: f"{message.wall.timestamp():.6f} web1 kernel: "),
    "journalctl -o with-unit": _first_line(lambda message: f"{message.wall:%a %Y-%m-%d %H:%M:%S} UTC web1 kernel[-]: "),
    "rsyslog": SYSLOG,
    "rsyslog with ISO times": _joined(lambda message: f"{_iso(message)} web1 kernel: {_dmesg(message)}", "#012"),
    "rsyslog one word a line": _words,
    "RFC 5424": _joined(lambda message: f"<{message.level}>1 {_iso(message)} web1 kernel - - - ", "#012"),
    "RFC 3164 with priority": _joined(lambda message: f"<{message.level}>{_syslog(message)} web1 kernel: ", "#012"),
    "date and host": _each_line(lambda message: f"{_syslog(message)} web1: "),
    "date, host and level": _each_line(lambda message: f"{_syslog(message)} web1 <kern.warning> kernel: "),
    "date, host, kern.warn": _each_line(lambda message: f"{_syslog(message)} web1 kern.warn kernel: {_dmesg(message)}"),
    "ISO date and host": _each_line(lambda message: f"{message.wall:%Y-%m-%d %H:%M:%S} web1: "),
    "host": _each_line(lambda message: f"web1: {_dmesg(message)}"),
    "address": _each_line(lambda message: f"192.0.2.17: {_dmesg(message)}"),
    "logcat": _each_line(
        lambda message: f"{message.wall:%m-%d %H:%M:%S}.{message.wall.microsecond // 1000:03}     0     0 W         : "
    ),
    "Samsung": _each_line(lambda message: f"<{message.level}>{_dmesg(message)} [3:  task:22875] "),
    "Samsung with a core": _each_line(
        lambda message: f"<{message.level}>[{message.time:12.6f} / 11-28 10:55:57.637][3] "
    ),
    "last_kmsg": _each_line(lambda message: f"<{message.level}>{_dmesg(message)}c3   1108 "),
    "Huawei": _each_line(lambda message: f"{_dmesg(message)[:-2]}s][pid:22875,cpu3,task]"),
    "last_kmsg with a name": _each_line(lambda message: f"<{message.level}>{_dmesg(message)}(3)[1108:kworker/u8:2]"),
    "VMware": _vmware,
    "ANSI colours": _ansi,
    "ANSI console": _ansi_console,
    "HTML": _page(CONSOLE),
    "HTML entities": lambda messages: html.escape(_each_line(lambda m: f"<{m.level}>{_dmesg(m)}")(messages)),
    "HTML line breaks": lambda messages: "<p>" + CONSOLE(messages).replace("\n", "<br>\n") + "</p>\n",
    "box": lambda messages: "".join(f"│ {line:<240} │\n" for line in CONSOLE(messages).splitlines()),
    "code": lambda messages: "".join(f"`{line}`\n" for line in CONSOLE(messages).splitlines()),
    "code in a chat": lambda messages: "".join(f"[9:12 AM] bot: `{line}`\n" for line in CONSOLE(messages).splitlines()),
    "quote": quoted("> ", CONSOLE),
    "quote of a quote": quoted(">> ", CONSOLE),
    "quote of a quote with blanks": quoted("> > ", PLAIN),
    "bar": quoted("| ", CONSOLE),
    "bullets": quoted("* ", CONSOLE),
    "dashes": quoted("- ", PLAIN),
    "indented": quoted("    ", CONSOLE),
    "tabs": quoted("\t", PLAIN),
    "comment signs": quoted("# ", CONSOLE),
    "code fence": lambda messages: f"```\n{CONSOLE(messages)}```\n",
    "numbered": _numbered,
    "grep -n": _grepped,
    "CRLF": lambda messages: CONSOLE(messages).replace("\n", "\r\n"),
    "blank lines between": lambda messages: CONSOLE(messages).replace("\n", "\n\n"),
    "prose around": _prose(CONSOLE),
    "prose around plain": _prose(PLAIN),
    "mailed with a prefix, 72": mailed(72, CONSOLE),
    "mailed with a prefix, 60": mailed(60, SYSLOG),
    "newest first": newest_first(CONSOLE),
    "newest first, syslog": newest_first(SYSLOG),
    "newest first, JSON": newest_first(_records),
    "two daemons": each_line(lambda line: f"{line}\n{line}"),
    "list in Python": each_line(lambda line: f"  '{line}',"),
    "list in YAML": each_line(lambda line: f"  - '{line}'"),
    "table with the message first": each_line(lambda line: f'"{line}",2026-03-05T10:00:00.000+0000,box,/var/log/kern'),
    "table with bare fields": each_line(lambda line: f'"Mar 5, 2024 @ 10:00:00.000",box,kernel,"{line}"'),
    "mailed, 72": mailed(72, PLAIN),
    "mailed and quoted": quoted("> ", mailed(70, CONSOLE)),
    "terminal, 80": in_terminal(80, CONSOLE),
    "terminal, 133": in_terminal(133, SYSLOG),
    "terminal, 97, plain": in_terminal(97, PLAIN),
}
"""Texts, by name."""


def _quoted_printable(messages: Sequence[Stamped]) -> bytes:
    head = (
        "From: A. User <user@example.org>\nSubject: page allocation failure\nMIME-Version: 1.0\n"
        "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\n\n"
    )
    return head.encode() + quopri.encodestring(PLAIN(messages).encode())


def _base64(messages: Sequence[Stamped]) -> bytes:
    head = (
        "From user@example.org Tue Mar  5 10:00:00 2024\nFrom: A. User <user@example.org>\nSubject: no memory\n"
        "MIME-Version: 1.0\nContent-Transfer-Encoding: base64\nContent-Type: text/plain; charset=UTF-8\n\n"
    )
    return head.encode() + base64.encodebytes(b"Hello,\n\n" + CONSOLE(messages).encode() + b"\n-- \nA. User\n")


def _attached(messages: Sequence[Stamped], pack: Callable[[bytes], bytes], kind: str) -> bytes:
    before = (
        "From: A. User <user@example.org>\nSubject: no memory\nMIME-Version: 1.0\n"
        'Content-Type: multipart/mixed; boundary="=_part"\n\n--=_part\nContent-Type: text/plain; charset=UTF-8\n'
        "Content-Transfer-Encoding: quoted-printable\n\nPlease see what is attached=2E\n\n--=_part\n"
        f'Content-Type: {kind}; name="dmesg"\nContent-Disposition: attachment; filename="dmesg"\n'
        "Content-Transfer-Encoding: base64\n\n"
    )
    return before.encode() + base64.encodebytes(pack(SYSLOG(messages).encode())) + b"\n--=_part--\n"


def _twice(messages: Sequence[Stamped]) -> bytes:
    head = (
        "From: A. User <user@example.org>\nSubject: no memory\nMIME-Version: 1.0\n"
        'Content-Type: multipart/alternative;\n boundary="=_part"\n\n--=_part\nContent-Type: text/plain\n\n'
    )
    page = f"<pre>{html.escape(PLAIN(messages))}</pre>"
    text = f"{head}{PLAIN(messages)}\n--=_part\nContent-Type: text/html\n\n{page}\n--=_part--\nThanks\n"
    return text.encode()


FILES: dict[str, Callable[[Sequence[Stamped]], bytes]] = {
    "UTF-8 with a mark": lambda messages: b"\xef\xbb\xbf" + CONSOLE(messages).encode(),
    "UTF-16": lambda messages: CONSOLE(messages).encode("utf-16"),
    "UTF-16, big-endian with a mark": lambda messages: b"\xfe\xff" + CONSOLE(messages).encode("utf-16-be"),
    "UTF-16 without a mark": lambda messages: CONSOLE(messages).encode("utf-16-le"),
    "Latin-1": lambda messages: b"caf\xe9 \xa0\n" + CONSOLE(messages).encode(),
    "NUL bytes": lambda messages: b"\0" * 64 + CONSOLE(messages).encode() + b"\0" * 64,
    "gzip": lambda messages: gzip.compress(SYSLOG(messages).encode()),
    "xz": lambda messages: lzma.compress(SYSLOG(messages).encode()),
    "quoted-printable": _quoted_printable,
    "base64": _base64,
    "base64, CRLF": lambda messages: _base64(messages).replace(b"\n", b"\r\n"),
    "base64, quoted": lambda messages: b"".join(b"> " + line + b"\n" for line in _base64(messages).split(b"\n")),
    "base64 body": lambda messages: base64.encodebytes(CONSOLE(messages).encode()),
    "attached": lambda messages: _attached(messages, bytes, "text/plain"),
    "attached, UTF-16": lambda messages: _attached(
        messages, lambda data: data.decode().encode("utf-16"), "text/plain; charset=UTF-16"
    ),
    "attached, gzip": lambda messages: _attached(messages, gzip.compress, "application/gzip"),
    "attached, xz": lambda messages: _attached(messages, lzma.compress, "application/x-xz"),
    "plain and HTML": _twice,
    "quoted-printable body": lambda messages: quopri.encodestring(CONSOLE(messages).encode()),
}
"""Bytes, by name."""


def wrapped_as(name: str, messages: Sequence[Stamped]) -> bytes:
    """Return the messages in one wrapping."""
    if name in FILES:
        return FILES[name](messages)
    return WRAPPINGS[name](messages).encode("latin-1" if name == "journalctl -o export" else "utf-8")


def wrapped(messages: Iterable[Message]) -> Iterator[tuple[str, bytes]]:
    """Yield the messages in each wrapping."""
    stamps = stamped(messages)
    for name in (*WRAPPINGS, *FILES):
        yield name, wrapped_as(name, stamps)
