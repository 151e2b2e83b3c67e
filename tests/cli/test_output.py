# SPDX-License-Identifier: MIT
"""Each option that names a file to write, against each kind of place that people give it."""

import atexit
import contextlib
import itertools
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

from kalloctrace.cli import cli, main
from tests import fleets, traces

EVENTS = Path(__file__).parents[1] / "unit" / "data" / "events" / "perf.txt"
PAGE = "kalloctrace.1"
OLD = b"old"
NOT_UTF8 = os.fsdecode(b"n\xff\xe9")


@dataclass(frozen=True)
class Output:
    """An option that names a file to write.

    Attributes:
        words: returns the command line that writes a file, from the input's path and the file's.
        source: the input; None without one.
        file: the name of the file, where the command chooses it.
        live: only refusals can be tried: the command would trace this machine.
        private: the file has mode 0600.
    """

    words: Callable[[Path, Path], Sequence[str | Path]]
    source: Path | None = traces.RECORDED
    file: str = "output"
    live: bool = False
    private: bool = False


@cache
def fleet() -> Path:
    """Return a dataset."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    fleets.add(folder / "fleet", traces.RECORDED, traces.UNDER_PRESSURE)
    return folder / "fleet"


LOG = Path(__file__).parents[1] / "unit" / "data" / "failures" / "memcg-oom.log"
OUTPUTS = {
    "explain --html": Output(lambda source, path: ["explain", "--html", path, source], LOG),
    "export --output": Output(lambda source, path: ["export", "--format", "parquet", "-o", path, source]),
    "fleet diff --html": Output(
        lambda _, path: ["fleet", "diff", "--kernel", "5.10", "--kernel", "7.3", "--html", path, fleet()], None
    ),
    "fleet outliers --html": Output(lambda _, path: ["fleet", "outliers", "--html", path, fleet()], None),
    "fleet report --html": Output(lambda _, path: ["fleet", "report", "--html", path, fleet()], None),
    "fleet verify --html": Output(lambda _, path: ["fleet", "verify", "--html", path, fleet()], None),
    "import --output": Output(lambda source, path: ["import", "-o", path, source], EVENTS, private=True),
    # No process has this number, which is said after a refusal of the file.
    "live --output": Output(lambda _, path: ["live", "--plain", "--pid", "999999999", "-o", path], None, live=True),
    "man --output": Output(lambda _, path: ["man", "-o", path.parent], None, PAGE),
    "record --output": Output(lambda _, path: ["record", "--pid", "999999999", "-o", path], None, live=True),
    "report --html": Output(lambda source, path: ["report", "--html", path, source]),
}
INPUTS = {"live --replay", "monitor --config"}
"""Options that name a file to read."""
CACHES = {"prebuild --output"}
"""Options that name a folder of files that their contents name: none is overwritten by another one."""
NAMES = list(OUTPUTS)
WRITERS = [name for name, output in OUTPUTS.items() if not output.live]
READERS = [name for name in WRITERS if OUTPUTS[name].source is not None]
SIGNALS = list(zip(WRITERS, itertools.cycle([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]), strict=False))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder for outputs."""
    path = tmp_path / "outputs"
    path.mkdir()
    return path


def forced(output: Output, source: Path, path: Path, *, force: bool) -> list[str]:
    """Return a command line."""
    return [os.fspath(word) for word in (*output.words(source, path), *(["-f"] if force else []))]


def write(output: Output, path: Path, code: int, *, force: bool = False, source: Path | None = None) -> None:
    """Run a command in this process, and check its exit code and what it leaves beside the file."""
    before = set(path.parent.iterdir()) if path.parent.is_dir() else set()
    assert main(forced(output, source or output.source or path, path, force=force)) == code
    if path.parent.is_dir():
        new = {entry.name for entry in set(path.parent.iterdir()) - before}
        assert not any(name.startswith(".") for name in new)
        assert code == 0 or not new


def refused(
    output: Output, path: Path, capsys: pytest.CaptureFixture[str], code: int = 1, *, force: bool = False
) -> str:
    """Run a command that must refuse the file, and return why: three lines that name it."""
    write(output, path, code, force=force)
    message = capsys.readouterr().err
    what, why, fix = message.splitlines()
    assert what.startswith("error: ")
    assert str(path) in what or str(path.parent) in what
    assert (why[:7], fix[:7]) == ("  why: ", "  fix: ")
    assert len(fix) > 7
    return why


def options() -> Iterator[tuple[str, click.Parameter]]:
    """Yield the options of all commands, with the command's name."""
    pending: list[tuple[str, click.Command]] = [("", cli)]
    while pending:
        name, command = pending.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                found = command.get_command(context, child)
                assert found is not None
                pending.append((f"{name} {child}".strip(), found))
        yield from ((name, option) for option in command.params if isinstance(option, click.Option))


def test_every_output_is_tried() -> None:
    """A new option that names a file is an output, which this file tries, or an input."""
    files = {f"{name} {max(option.opts, key=len)}" for name, option in options() if isinstance(option.type, click.Path)}
    assert files == OUTPUTS.keys() | INPUTS | CACHES
    forces = {name for name, option in options() if "--force" in option.opts}
    assert forces == {name.rpartition(" ")[0] for name in OUTPUTS}


@pytest.mark.parametrize("name", NAMES)
def test_existing_file_stays(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -f nothing is overwritten, and the message says how to."""
    output = OUTPUTS[name]
    path = folder / output.file
    path.write_bytes(OLD)
    assert "exists" in refused(output, path, capsys)
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("name", WRITERS)
def test_existing_file_is_replaced_with_f(name: str, folder: Path) -> None:
    """The old file keeps its other names; the new one has its mode, or 0600."""
    output = OUTPUTS[name]
    path, other = folder / output.file, folder / "other"
    path.write_bytes(OLD)
    path.chmod(0o604)
    other.hardlink_to(path)
    write(output, path, 0, force=True)
    assert other.read_bytes() == OLD
    assert path.read_bytes() != OLD
    assert stat.S_IMODE(path.stat().st_mode) == (0o600 if output.private else 0o604)


@pytest.mark.parametrize("name", WRITERS)
def test_mode_of_a_new_file(name: str, folder: Path) -> None:
    """It is that of the umask; a trace is for its owner alone."""
    output = OUTPUTS[name]
    before = os.umask(0o026)
    try:
        write(output, folder / output.file, 0)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / output.file).stat().st_mode) == (0o600 if output.private else 0o640)


@pytest.mark.parametrize("target", ["present", "absent"])
@pytest.mark.parametrize("name", NAMES)
def test_link_counts_as_existing(name: str, target: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -f neither the link nor its target changes, wherever it leads."""
    output = OUTPUTS[name]
    elsewhere = folder.parent / target
    if target == "present":
        elsewhere.write_bytes(OLD)
    (folder / output.file).symlink_to(elsewhere)
    assert "exists" in refused(output, folder / output.file, capsys)
    assert (folder / output.file).readlink() == elsewhere
    assert elsewhere.exists() == (target == "present")


@pytest.mark.parametrize("target", ["present", "absent"])
@pytest.mark.parametrize("name", WRITERS)
def test_link_stays_and_its_target_is_replaced(name: str, target: str, folder: Path) -> None:
    """With -f, in the target's folder."""
    output = OUTPUTS[name]
    elsewhere = folder.parent / target
    if target == "present":
        elsewhere.write_bytes(OLD)
    (folder / output.file).symlink_to(Path("..") / target)
    write(output, folder / output.file, 0, force=True)
    assert (folder / output.file).is_symlink()
    assert elsewhere.read_bytes() not in {OLD, b""}


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a link of another user")
@pytest.mark.parametrize("name", NAMES)
def test_planted_link_is_not_followed(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another user's link in a folder like /tmp leads to no file, not even with -f."""
    output = OUTPUTS[name]
    folder.chmod(0o1777)
    victim = folder.parent / "victim"
    victim.write_bytes(OLD)
    (folder / output.file).symlink_to(victim)
    os.chown(folder / output.file, 1234, 1234, follow_symlinks=False)
    assert "another user's link" in refused(output, folder / output.file, capsys, force=True)
    assert victim.read_bytes() == OLD


@pytest.mark.parametrize("kind", ["hard link", "symbolic link", "itself", "dotted"])
@pytest.mark.parametrize("name", READERS)
def test_input_is_never_overwritten(
    name: str, kind: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under no name of it, with or without -f."""
    output = OUTPUTS[name]
    assert output.source is not None
    source = folder / "input"
    source.write_bytes(output.source.read_bytes())
    path = folder / "output"
    match kind:
        case "hard link":
            path.hardlink_to(source)
        case "symbolic link":
            path.symlink_to(source)
        case "itself":
            path = source
        case "dotted":
            monkeypatch.chdir(folder)
            path = Path("../outputs/./input")
    for force in (False, True):
        write(output, path, 2, force=force, source=source)
        assert "it is the file to read" in capsys.readouterr().err
    assert source.read_bytes() == output.source.read_bytes()


@pytest.mark.parametrize("name", WRITERS)
def test_fifo_is_written_in_place(name: str, folder: Path) -> None:
    """Its reader gets the whole file, without -f."""
    output = OUTPUTS[name]
    path, plain = folder / output.file, folder.parent / output.file
    os.mkfifo(path)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(path.read_bytes()))
    reader.start()
    write(output, path, 0)
    reader.join()
    assert path.is_fifo()
    write(output, plain, 0)
    assert abs(len(got[0]) - plain.stat().st_size) < 100


def device(path: Path, minor: int) -> None:
    """Make a memory device, such as /dev/null (3) or /dev/full (7): a test must not lose the real one."""
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))


@pytest.mark.skipif(os.geteuid() != 0, reason="makes devices")
@pytest.mark.parametrize("name", WRITERS)
def test_devices_are_written_in_place(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The null device takes everything; a full one is an error that names it. Both stay what they are."""
    output = OUTPUTS[name]
    path = folder / output.file
    for force in (False, True):
        device(path, 3)
        write(output, path, 0, force=force)
        assert path.is_char_device()
        path.unlink()
        device(path, 7)
        capsys.readouterr()
        assert "No space left" in refused(output, path, capsys, force=force)
        assert path.is_char_device()
        path.unlink()


@pytest.mark.parametrize("name", NAMES)
def test_place_that_is_not_one(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of the name, and a file in place of the folder."""
    output = OUTPUTS[name]
    (folder / output.file).mkdir()
    assert "it is a folder" in refused(output, folder / output.file, capsys, force=True)
    (folder / "file").write_bytes(OLD)
    assert "not a folder" in refused(output, folder / "file" / output.file, capsys)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "man --output"])
def test_missing_folder(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is not created: the name may be mistyped. `man` writes into a folder, which it creates."""
    output = OUTPUTS[name]
    assert "its folder does not exist" in refused(output, folder / "missing" / output.file, capsys)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_leaves_the_old_file(name: str, folder: Path) -> None:
    """What does not fit is not written at all."""
    output = OUTPUTS[name]
    path = folder / output.file
    path.write_bytes(OLD)
    done = subprocess.run(
        [sys.executable, "-m", "kalloctrace", *forced(output, output.source or path, path, force=True)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 3)
    assert "File too large" in done.stderr
    assert [entry.read_bytes() for entry in folder.iterdir()] == [OLD]


def interrupted(words: Sequence[str], folder: Path, number: int, stdin: int | None = None) -> int:
    """Send a signal to the program as soon as it has made its temporary file, and return how it ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kalloctrace", *words],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if any(entry.name.startswith(".") for entry in folder.iterdir()):
            process.send_signal(number)
            break
        time.sleep(0.001)
    return process.wait(60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15), (signal.SIGHUP, -1)])
def test_signal_leaves_nothing(number: int, code: int, folder: Path) -> None:
    """A text that has not ended is imported when the signal comes: the old file stays, and no other."""
    path = folder / "t.arrows"
    path.write_bytes(OLD)
    read_end, write_end = os.pipe()
    try:
        os.write(write_end, EVENTS.read_bytes())
        assert interrupted(["import", "-f", "-o", str(path), "-"], folder, number, read_end) == code
    finally:
        os.close(read_end)
        os.close(write_end)
    assert [entry.read_bytes() for entry in folder.iterdir()] == [OLD]


@pytest.mark.parametrize(("name", "number"), SIGNALS)
def test_signal_leaves_the_old_file_or_the_new_one(name: str, number: int, folder: Path) -> None:
    """Whenever it comes, each file is whole."""
    output = OUTPUTS[name]
    path = folder / output.file
    write(output, path, 0)
    new = {entry.name: entry.stat().st_size for entry in folder.iterdir()}
    for entry in folder.iterdir():
        entry.write_bytes(OLD)
    code = interrupted(forced(output, output.source or path, path, force=True), folder, number)
    assert code in {0, 130 if number == signal.SIGINT else -number}
    found = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    assert found.keys() == new.keys()
    assert all(data == OLD or abs(len(data) - new[name]) < 100 for name, data in found.items())


def test_file_that_appears_meanwhile_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without -f nothing is overwritten, however late it comes."""
    source, path = folder.parent / "fifo", folder / "t.arrows"
    os.mkfifo(source)

    def send() -> None:
        with source.open("wb") as stream:
            path.write_bytes(OLD)
            stream.write(EVENTS.read_bytes())

    sender = threading.Thread(target=send)
    sender.start()
    assert main(["import", "-o", str(path), str(source)]) == 1
    sender.join()
    assert f"will not overwrite {path}" in capsys.readouterr().err
    assert [entry.read_bytes() for entry in folder.iterdir()] == [OLD]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_name_is_appended_to(name: str, tmp_path: Path) -> None:
    """A redirected standard output is no file to replace: what it holds already stays."""
    log = tmp_path / "log"
    log.write_bytes(OLD)
    with log.open("ab") as stream:
        words = [sys.executable, "-m", "kalloctrace", "export", "--format", "folded", "-o", name, str(traces.RECORDED)]
        assert subprocess.run(words, stdout=stream, stderr=subprocess.DEVNULL, check=False, timeout=60).returncode == 0
    assert log.read_bytes().startswith(OLD)
    assert log.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("name", NAMES)
def test_minus_is_no_file(
    name: str, folder: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each option takes "-" for standard output, or refuses it in three lines."""
    monkeypatch.chdir(folder)
    output = OUTPUTS[name]
    words = output.words(output.source or folder, Path("-") / "page" if name.startswith("man") else Path("-"))
    code = main([os.fspath(word) for word in words])
    printed, said = capfdbinary.readouterr()
    assert list(folder.iterdir()) == []
    if name.endswith("--html"):
        assert (code, printed[:15]) == (0, b"<!doctype html>")
        return
    assert (code, printed) == (2, b"")
    assert [line[:6] for line in said.splitlines()] == [b"error:", b"  why:", b"  fix:"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "folded", "speedscope", "tables", "duckdb", "parquet"])
def test_export_to_minus(form: str, folder: Path) -> None:
    """What is one stream goes to standard output; all else is refused."""
    words = [sys.executable, "-m", "kalloctrace", "export", "--format", form, str(traces.RECORDED)]
    named = subprocess.run([*words, "-o", "-"], capture_output=True, cwd=folder, check=False, timeout=60)
    unnamed = subprocess.run(words, capture_output=True, cwd=folder, check=False, timeout=60)
    assert (named.returncode, named.stdout, named.stderr) == (unnamed.returncode, unnamed.stdout, unnamed.stderr)
    assert named.returncode == (2 if form in {"tables", "duckdb", "parquet"} else 0)
    assert bool(named.stdout) == (named.returncode == 0)
    assert list(folder.iterdir()) == []


def test_standard_output_is_not_the_input(folder: Path) -> None:
    """`export t >> t` would feed itself."""
    trace = folder / "t.arrows"
    trace.write_bytes(traces.RECORDED.read_bytes())
    words = [sys.executable, "-m", "kalloctrace", "export", "--format", "csv", str(trace)]
    with trace.open("ab") as stream:
        done = subprocess.run(words, stdout=stream, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, "it is the file to read" in done.stderr) == (2, True)
    assert trace.read_bytes() == traces.RECORDED.read_bytes()


@pytest.mark.parametrize(
    "words",
    [["export", "--format", "csv"], ["verify", "--json"], ["report"], ["report", "--html", "-"]],
    ids=["export", "verify", "report", "page"],
)
def test_full_standard_output_is_named(words: list[str]) -> None:
    """Whatever prints there."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kalloctrace", *words, str(traces.RECORDED)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    what, why, fix = done.stderr.splitlines()
    assert (done.returncode, why) == (1, "  why: No space left on device")
    assert what.endswith(" standard output")
    assert ("--html" in fix) == ("--html" in words)


@pytest.mark.parametrize("name", WRITERS)
def test_names_of_any_bytes(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files and folders whose names are not UTF-8 are read, written and named."""
    output = OUTPUTS[name]
    inside = folder / NOT_UTF8
    inside.mkdir()
    path, source = inside / output.file, None
    if output.source is not None:
        path, source = inside / NOT_UTF8, inside / f"input{NOT_UTF8}"
        source.write_bytes(output.source.read_bytes())
    write(output, path, 0, source=source)
    assert path.stat().st_size
    capsys.readouterr()
    write(output, path, 1, source=source)
    message = capsys.readouterr().err
    message.encode()
    assert r"n\xff\xe9" in message
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
