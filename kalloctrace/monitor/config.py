# SPDX-License-Identifier: MIT
"""The configuration of `monitor`: TOML, whose errors name the line."""

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.probe.attach.choice import ASKED
from kalloctrace.text import file_name

if TYPE_CHECKING:
    from kalloctrace.probe.attach.plan import By

DEFAULT_PATH = Path("/etc/kalloctrace/monitor.toml")
"""What is read without `--config`, if it exists."""
UNIX = "unix:"
"""Begins the address of a Unix socket."""

_MOST_BYTES = 64 << 10
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_LEAST_SIZE = 16 << 10
_LEAST_MEMORY = 64 << 20
_MOST_PORT = 65535
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class Config:
    """What to record, where to, and within which bounds.

    Attributes:
        folder: where the segments are.
        age: seconds after which a segment is complete.
        size: bytes after which a segment is complete.
        keep_size: bytes of all segments together; the oldest are removed.
        keep_age: seconds after which a complete segment is removed.
        keep_free: bytes that stay free on the file system; the oldest segments are removed.
        attach: how to attach, as `--attach` names it.
        by: what calls are counted by in addition to the request; None for nothing.
        slow: record the slow path.
        listen: where to serve metrics: HOST:PORT, `unix:` with a path, or an empty text for nowhere.
        cpu: the most that the recording may cost, in percent of the time of all processors.
        memory: the most bytes that the recording process may have resident.
        pause: seconds after which a recording that was too dear is tried again.
    """

    folder: Path = Path("/var/lib/kalloctrace")
    age: float = 600
    size: int = 64 << 20
    keep_size: int = 2 << 30
    keep_age: float = 7 * 86400
    keep_free: int = 1 << 30
    attach: str = "auto"
    by: "By | None" = None
    slow: bool = True
    listen: str = ""
    cpu: float = 5.0
    memory: int = 512 << 20
    pause: float = 300

    def goes_on(self, new: "Config") -> bool:
        """Return whether a recording under this configuration can go on, still attached, under a new one."""
        kept = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _IN_PLACE}
        return replace(new, **kept) == new


_IN_PLACE = frozenset({"age", "size", "keep_size", "keep_age", "keep_free", "cpu", "memory", "pause"})


class _Wrong(Exception):  # noqa: N818 (not an error of the program)
    """A value that is not accepted.

    Args:
        why: the reason.
        fix: what is accepted.
    """

    def __init__(self, why: str, fix: str) -> None:
        super().__init__(why)
        self.why = why
        self.fix = fix


class Setting(NamedTuple):
    """One setting.

    Attributes:
        section: the table in which it stands.
        read: returns the value in `Config`.
        example: the text of its default.
        about: what it does.
    """

    section: str
    read: Callable[[object], Any]
    example: str
    about: str


def _text(value: object) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise _Wrong("it is not a text", "write a text between quotation marks")


def _folder(value: object) -> Path:
    path = Path(_text(value))
    if not path.is_absolute():
        raise _Wrong("it is not an absolute path", "begin it with /")
    return path


def _amount(value: object, units: Mapping[str, int], example: str) -> float:
    fix = f'write a number and one of {", ".join(units)}, such as "{example}"'
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([A-Za-z]+)", _text(value)) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise _Wrong("it is not a number with a unit", fix)
    return float(match[1]) * units[match[2]]


def _seconds(value: object) -> float:
    seconds = _amount(value, _SECONDS, "10 min")
    if seconds < 1:
        raise _Wrong("it is less than a second", 'write at least "1 s"')
    return seconds


def _bytes_from(least: int, text: str) -> Callable[[object], int]:
    def read(value: object) -> int:
        size = int(_amount(value, _BYTES, "64 MiB"))
        if size < least:
            raise _Wrong(f"it is less than {text}", f'write at least "{text}"')
        return size

    return read


def _percent(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise _Wrong("it is not a number above 0 and up to 100", "write a number of percent, such as 5.0")
    return float(value)


def _yes(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("it is neither true nor false", "write true or false")
    return value


def _attach(value: object) -> str:
    if value not in ASKED:
        raise _Wrong("there is no such way to attach", f"write one of {', '.join(ASKED)}")
    return _text(value)


def _by(value: object) -> "By | None":
    if value == "comm" or value == "cgroup":  # noqa: PLR1714 (the type checker follows it so)
        return value
    if value == "nothing":
        return None
    raise _Wrong("calls are not counted by that", "write one of nothing, comm, cgroup")


def _listen(value: object) -> str:
    text = _text(value)
    if text.startswith(UNIX):
        _folder(text.removeprefix(UNIX))
        return text
    host, colon, port = text.rpartition(":")
    if text and not (colon and host and port.isdecimal() and 0 <= int(port) <= _MOST_PORT):
        fix = 'write "127.0.0.1:9913", "unix:/run/kalloctrace/metrics.sock", or "" for none'
        raise _Wrong("it is neither HOST:PORT nor unix:PATH", fix)
    return text


SETTINGS: Mapping[str, Setting] = {
    "folder": Setting("segments", _folder, '"/var/lib/kalloctrace"', "Where the segments are written."),
    "age": Setting("segments", _seconds, '"10 min"', "A segment is complete after this time."),
    "size": Setting("segments", _bytes_from(_LEAST_SIZE, "16 KiB"), '"64 MiB"', "Or when it is this large."),
    "keep_size": Setting(
        "segments",
        _bytes_from(_LEAST_SIZE, "16 KiB"),
        '"2 GiB"',
        "The oldest are removed above this in all.",
    ),
    "keep_age": Setting("segments", _seconds, '"7 d"', "A segment is removed when it is older than this."),
    "keep_free": Setting(
        "segments",
        _bytes_from(0, "0 KiB"),
        '"1 GiB"',
        "The oldest are removed when the disk has less free.",
    ),
    "attach": Setting("capture", _attach, '"auto"', "How to attach, as --attach of record."),
    "by": Setting("capture", _by, '"nothing"', "Also count calls by comm or cgroup."),
    "slow": Setting("capture", _yes, "true", "Record each call of the slow path."),
    "listen": Setting("metrics", _listen, '""', 'Serve metrics at "HOST:PORT" or "unix:PATH"; "" for none.'),
    "cpu": Setting("bounds", _percent, "5.0", "Percent of all processors; detach above it."),
    "memory": Setting(
        "bounds", _bytes_from(_LEAST_MEMORY, "64 MiB"), '"512 MiB"', "Resident memory of the recorder; detach above it."
    ),
    "pause": Setting("bounds", _seconds, '"5 min"', "Attach again after this time."),
}
"""Each setting by its name, which is that of the field of `Config`; in the order of the file."""


def read_text(path: Path) -> str:
    """Return the text of a configuration file.

    Raises:
        KalloctraceError: it cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise KalloctraceError(
                f"cannot use {file_name(path)}", "it is too large for a configuration", "name another file", Exit.USAGE
            )
        return data.decode()
    except OSError as error:
        fix = "name an existing file with --config"
        raise KalloctraceError(
            f"cannot read {file_name(path)}", error.strerror or str(error), fix, Exit.USAGE
        ) from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _wrong(path, line, "a byte is not UTF-8", "save the file as UTF-8") from error


def parse(text: str, path: Path) -> Config:
    """Return the configuration that a text has.

    Args:
        text: of the file.
        path: of the file, for messages.

    Raises:
        KalloctraceError: it is not valid; the error names the line.
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = _AT_LINE.search(str(error))
        line = int(at[1]) if at is not None and at[1] else text.count("\n") + 1
        why = _AT_LINE.sub("", str(error)).lower()
        raise _wrong(path, line, f"it is not TOML: {why}", "see https://toml.io for the syntax") from error
    sections = list(dict.fromkeys(setting.section for setting in SETTINGS.values()))
    values: dict[str, Any] = {}
    for section, table in tables.items():
        if section not in sections or not isinstance(table, dict):
            why = f"there is no section [{section}]"
            raise _wrong(path, _line(text, section), why, f"use the sections {', '.join(sections)}")
        names = [name for name, setting in SETTINGS.items() if setting.section == section]
        for name, value in table.items():
            line = _line(text, section, name)
            if name not in names:
                raise _wrong(path, line, f"[{section}] has no setting {name}", f"it has {', '.join(names)}")
            try:
                values[name] = SETTINGS[name].read(value)
            except _Wrong as wrong:
                raise _wrong(path, line, f"{name}: {wrong.why}", wrong.fix) from wrong
    config = Config(**values)
    if config.keep_size < 2 * config.size:
        line = _line(text, "segments", "keep_size" if "keep_size" in values else "size")
        why = "keep_size has no room for two segments of that size"
        raise _wrong(path, line, why, "make keep_size at least twice as large as size")
    return config


def load(path: Path | None) -> tuple[Config, str]:
    """Return the configuration, and the text of its file.

    Args:
        path: the file; None for the default one, or the defaults where that does not exist.

    Raises:
        KalloctraceError: it cannot be read, or is not valid.
    """
    if path is None and not DEFAULT_PATH.exists():
        return Config(), ""
    text = read_text(path or DEFAULT_PATH)
    return parse(text, path or DEFAULT_PATH), text


def _wrong(path: Path, line: int, why: str, fix: str) -> KalloctraceError:
    return KalloctraceError(f"cannot use {file_name(path)}, line {line}", why, fix, Exit.USAGE)


def _line(text: str, section: str, name: str | None = None) -> int:
    """Return the line on which a setting, or else its section, stands; 1 if it cannot be told."""
    begins, here = 1, ""
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"""\s*\[\[?\s*["']?([^\]"'.\s]+)""", line)
        if header is not None:
            here = header[1]
            begins = number if here == section else begins
        key = re.match(r"""\s*["']?([\w-]+)["']?\s*(?:\.\s*["']?([\w-]+)["']?\s*)?=""", line)
        if key is None:
            continue
        dotted = not here and key[1] == section and name in (None, key[2])
        if dotted or (here == section and key[1] == name):
            return number
    return begins
