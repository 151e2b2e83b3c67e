# SPDX-License-Identifier: MIT
"""What holds a message in each line: JSON of docker and journals, journal exports, /dev/kmsg, netconsole, CRI."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from kalloctrace.logs.escapes import is_plain, plain_lines
from kalloctrace.logs.pieces import Piece

_MESSAGE_KEYS = (
    *("message", "log", "msg", "@message", "text", "line", "full_message", "short_message", "textpayload"),
    *("jsonpayload", "_raw", "body", "content", "_source", "event", "data", "fields", "result"),
)
_MONOTONIC_KEYS = ("_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP")
_HOST_KEYS = ("_HOSTNAME", "host", "hostname")
_WALL_KEYS = ("time", "@timestamp", "timestamp", "ts")
_TELLING = (" ", "kB", "oom", ":")
"""What a message has under a key of any name; without it, it is in an object within."""
_DESCRIBING = frozenset((*_MONOTONIC_KEYS, *_HOST_KEYS))
_DEEPEST = 8
_STRING = r'"(?P<value>(?:[^"\\]|\\.)*+)'
_PRETTY = re.compile(rf'\s*"(?P<key>[\w@. -]{{1,64}})"\s*:\s*(?:{_STRING}"|[^"{{\[]{{1,64}}?|[{{\[]),?\s*$')
_CUT_OFF = re.compile(rf'"(?:{"|".join(_MESSAGE_KEYS[:5])})"\s*:\s*{_STRING}', re.IGNORECASE)
_JSON = json.JSONDecoder()
_NEXT_FIELD = re.compile(r" *(?P<separator>[,;\t])\s*[^\s,;\]]")
_FIELD_BEGINS = re.compile(r'(?:^|[,;\t])\s{0,8}"[^"]*$')
_FIELD_ENDS = re.compile(r'(?<!")"(?=\s*(?:[,;\t]|$))')

# Documentation/ABI/testing/dev-kmsg and Documentation/networking/netconsole.rst of linux.
_KMSG = re.compile(
    r"\s*(?:\d+\.\d+[\w.+~-]{0,64},)?(?P<head>\d{1,6},\d{1,20},(?P<time>\d{1,20}),(?P<flag>[-c+]))"
    r"(?P<fields>(?:,\w{1,32}=[^;,\s]{0,64})*)(?:,[^;]{0,64})?;"
)
_FRAGMENT = re.compile(r",ncfrag=(?P<offset>\d{1,6})/\d{1,6}")
_CALLER = re.compile(r",caller=([TC]\d{1,10})")
_HEX = re.compile(r"\\x([0-9a-f]{2})")
_DICTIONARY = re.compile(r" [A-Z][A-Z0-9_]*=")
_FIELD = re.compile(r"\s*(?P<key>_{0,2}[A-Z][A-Z0-9_]{1,63})=(?P<value>.*)")
_JOURNAL_FIELDS = frozenset({"__CURSOR", "__REALTIME_TIMESTAMP", "__MONOTONIC_TIMESTAMP", "_BOOT_ID", "_TRANSPORT"})
_CRI = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\dT[\d:.,]{8,20}(?:Z|[+-]\d\d:\d\d)) (?:stdout|stderr) (?P<tag>[FP])(?::\w+)* ?"
)
_BRACKETS = re.compile(r"[{}\[\], ]+")
"""A line of JSON that was printed for people; `dmesg --json` writes "},{"."""
_MOST_FRAGMENTS = 64


class Containers:
    """Takes the messages out of the lines, one line after the other."""

    def __init__(self) -> None:
        """Begin a log."""
        self._kmsg: Piece | None = None
        self._fragments: dict[str, Piece] = {}
        self._cri: Piece | None = None
        self._journal: dict[str, str] = {}
        self._is_export = False
        self._binary = False
        self._in_message = False
        self._is_json = False
        self._in_field = False

    def pieces(self, number: int, line: str) -> Sequence[Piece]:
        """Return what one line holds: nothing, if it only describes or continues another piece.

        A piece that a later line continues grows; it is complete when the lines of its block are read.
        """
        text = line.rstrip("\r\n")
        if self._binary:
            # The field's length stands before it, in eight bytes.
            self._binary, self._in_message = False, True
            return self._journal_pieces(number, text[8:], len(text))
        if "\0" in text:
            text = text.replace("\0", "")
        if ";" in text and (match := _KMSG.match(text)) is not None:
            begun = self._read_kmsg(number, text, match)
            return () if begun is None else (begun,)
        if self._kmsg is not None and _DICTIONARY.match(text) is not None:
            return ()
        if text[:1].isdigit() and (cri := _CRI.match(text)) is not None:
            return self._read_cri(number, text, cri)
        if self._is_json or '"' in text or text in {"{", "["}:
            found = list(_json_pieces(number, text)) if '"' in text else []
            self._is_json = self._is_json or bool(found) or text in {"{", "["}
            if found or (self._is_json and _BRACKETS.fullmatch(text.strip())):
                return [piece for piece in found if piece.text]
        return self._read_text(number, text)

    def _read_text(self, number: int, text: str) -> Sequence[Piece]:
        if (
            "=" in text
            and (field := _FIELD.match(text)) is not None
            and (self._is_export or field["key"] in _JOURNAL_FIELDS)
        ):
            self._is_export = True
            if field["key"] in _DESCRIBING:
                self._journal[field["key"]] = field["value"]
            self._in_message = field["key"] == "MESSAGE"
            return self._journal_pieces(number, field["value"], len(text)) if self._in_message else ()
        if self._is_export:
            return self._read_export(number, text)
        return _plain_pieces(number, self._unquoted(text) if '"' in text else text)

    def _unquoted(self, text: str) -> str:
        """Return a line without the end of a table's field of several lines, and without the fields behind it."""
        if text.count('"') % 2 == 0:
            return text
        if not self._in_field:
            self._in_field = _FIELD_BEGINS.search(text) is not None
            return text
        end = _FIELD_ENDS.search(text)
        self._in_field = end is None
        return text if end is None else text[: end.start()]

    def _read_kmsg(self, number: int, text: str, match: re.Match[str]) -> Piece | None:
        head, fields, body = match["head"], match["fields"], text[match.end() :]
        fragment = _FRAGMENT.search(fields)
        if fragment is not None:
            # Datagrams have no line ends: a receiver may print several fragments as one line.
            parts = re.split(re.escape(head) + r"(?:,\w{1,32}=[^;,\s]{0,64})*;", body)
            body = "".join(parts)
            begun = self._fragments.get(head)
            if begun is not None and int(fragment["offset"]) > 0:
                begun.grow(_unescaped(body))
                return None
        elif match["flag"] == "+" and self._kmsg is not None:
            self._kmsg.grow(_unescaped(body))
            return None
        caller = _CALLER.search(fields)
        self._kmsg = Piece(
            *(number, _unescaped(body), len(text)),
            indent=match.end(),
            record=True,
            time=int(match["time"]) / 1e6,
            caller=caller[1] if caller is not None else "",
        )
        if fragment is not None:
            if len(self._fragments) >= _MOST_FRAGMENTS:
                self._fragments.clear()
            self._fragments[head] = self._kmsg
        return self._kmsg

    def _read_cri(self, number: int, text: str, match: re.Match[str]) -> Sequence[Piece]:
        body, begun = text[match.end() :], self._cri
        if begun is not None:
            begun.grow(body)
            self._cri = begun if match["tag"] == "P" else None
            return ()
        piece = Piece(number, body, len(text), match.end(), wall=match["time"])
        if match["tag"] == "P":
            self._cri = piece
            return (piece,)
        lines = plain_lines(body)
        if lines == [body]:
            return (piece,)
        return [Piece(number, line, len(text), None, wall=match["time"]) for line in lines]

    def _read_export(self, number: int, text: str) -> Sequence[Piece]:
        if text == "MESSAGE":
            self._binary = True
        elif not text or "[s=" in text:
            self._in_message = False
            self._journal.clear()
        elif self._in_message:
            return self._journal_pieces(number, text, len(text))
        return ()

    def _journal_pieces(self, number: int, text: str, width: int) -> Sequence[Piece]:
        return list(_string_pieces(number, width, text, self._journal))


def _plain_pieces(number: int, text: str) -> Sequence[Piece]:
    if is_plain(text) or (lines := plain_lines(text)) == [text]:
        return (Piece(number, text, len(text)),)
    # Only what stands last ends where the line does.
    widths = [*([0] * (len(lines) - 1)), len(text)]
    return [
        Piece(number, line, width, None, record=at > 0)
        for at, (line, width) in enumerate(zip(lines, widths, strict=True))
    ]


def _unescaped(text: str) -> str:
    if "\\x" not in text:
        return text
    codes = _HEX.sub(lambda code: chr(int(code[1], 16)), text)
    return codes.encode("latin-1", errors="replace").decode("utf-8", errors="replace")


def _json_pieces(number: int, text: str) -> Iterator[Piece]:
    """Yield the messages of a line with JSON; one without text if the line has no message, nothing if it is no JSON."""
    stripped = text.strip()
    pretty = _PRETTY.match(text)
    if pretty is not None:
        value = pretty["value"] or ""
        if pretty["key"].lower() in _MESSAGE_KEYS or r"\n" in value:
            yield from _string_pieces(number, len(text), _string(value), {})
        else:
            yield Piece(number, "", len(text))
        return
    start = 0 if stripped[:1] == '"' or stripped[:2] in {'["', "[{"} else text.find('{"')
    if start < 0:
        start = text.find('{ "')
    if start < 0:
        return
    try:
        value, end = _JSON.raw_decode(text[start:].lstrip())
    except (ValueError, RecursionError):
        cut = _CUT_OFF.search(text)
        if cut is not None:
            yield from _string_pieces(number, len(text), _string(cut["value"]), {})
        return
    if start == 0 and isinstance(value, str) and (more := _NEXT_FIELD.match(stripped, end)) is not None:
        value = _row(stripped, more["separator"])
    yield from _value_pieces(number, len(text), value, {}, 0)


_TIME = re.compile(r"[\dTZ:.,/+ -]+")
"""A field of a table that holds a time; no message has only these characters."""
_IN_MESSAGES = (" ", ":", "+0x", "TASK>", "IRQ>")
"""A message has one of these; a level, a host or a program's name has none."""


def _row(text: str, separator: str) -> str:
    """Return the message of a table's row whose fields are quoted; the fields before it are its prefix."""
    try:
        fields = [field.strip() for field in next(csv.reader([text], delimiter=separator, skipinitialspace=True))]
    except csv.Error:
        # A carriage return within it, or a field of more than 128 KiB.
        return text
    while len(fields) > 1 and (_TIME.fullmatch(fields[-1]) or not any(mark in fields[-1] for mark in _IN_MESSAGES)):
        fields.pop()
    return " ".join(fields)


def _string(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _value_pieces(number: int, width: int, value: Any, fields: dict[str, Any], depth: int) -> Iterator[Piece]:  # noqa: ANN401 JSON
    if isinstance(value, str):
        yield from _string_pieces(number, width, value, fields)
    elif isinstance(value, list) and value and depth < _DEEPEST:
        if all(isinstance(one, int) and 0 <= one < 256 for one in value):
            # Journals print a message so that has bytes which are no text.
            yield from _string_pieces(number, width, bytes(value).decode("utf-8", errors="replace"), fields)
            return
        for one in value:
            yield from _value_pieces(number, width, one, fields, depth + 1)
    elif isinstance(value, dict) and depth < _DEEPEST:
        keys = {key.lower(): key for key in value}
        held = next((value[keys[key]] for key in _MESSAGE_KEYS if value.get(keys.get(key, "")) not in (None, "")), None)
        if held is None:
            held = max((one for one in value.values() if isinstance(one, str)), key=len, default="")
            if not any(map(held.__contains__, _TELLING)):
                held = [one for one in value.values() if isinstance(one, dict | list)]
        yield from _value_pieces(number, width, held, {**fields, **value}, depth + 1)


def _string_pieces(number: int, width: int, text: str, fields: dict[str, Any]) -> Iterator[Piece]:
    for line in plain_lines(text):
        yield _described(Piece(number, line, width, None, record=True), fields)


def _described(piece: Piece, fields: dict[str, Any]) -> Piece:
    for key in _MONOTONIC_KEYS:
        if str(fields.get(key, "")).isdecimal() and len(str(fields[key])) < 20:
            piece.time = int(fields[key]) / 1e6
            break
    piece.host = next((str(fields[key]) for key in _HOST_KEYS if isinstance(fields.get(key), str)), "")
    piece.wall = next((str(fields[key]) for key in _WALL_KEYS if isinstance(fields.get(key), str)), None)
    return piece
