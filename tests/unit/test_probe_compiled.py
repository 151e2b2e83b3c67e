# SPDX-License-Identifier: MIT
"""A compiled program is kept without what differs from boot to boot, and gets it when it is loaded."""

import json
import os
import stat
import struct
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach import compiler, program, program_cache
from kalloctrace.probe.attach.compiled import Compiled, later, numbered
from kalloctrace.probe.attach.compiler import flags_of
from kalloctrace.probe.attach.program import Program, split
from kalloctrace.probe.attach.program_cache import build_id_of, kept_path, obtain, read_kept
from kalloctrace.probe.maps.bpf_map import MapShape

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
SHAPES = [MapShape("counts", 1, 4, 8, 16, 0), MapShape("at_all", 27, 0, 0, 4096, 0)]


def load(register: int, source: int, value: int) -> bytes:
    """Return BPF_LD | BPF_IMM | BPF_DW: two instructions with a half of the value each."""
    low, high = struct.unpack("<ii", struct.pack("<Q", value))
    return struct.pack("<BBhi", 0x18, register | source << 4, 0, low) + struct.pack("<BBhi", 0, 0, 0, high)


def compiled(code: bytes = EXIT) -> Compiled:
    """Return a program of two maps."""
    return Compiled({"on_a": code, "at_tick": EXIT}, SHAPES)


def test_maps_and_values_are_stored_when_it_is_loaded() -> None:
    """Constants that look like one of these are left as they are."""
    alike = load(3, 0, 0x7FFF0001) + load(4, 0, 1)
    code = load(1, 1, 77) + alike + load(2, 2, 1) + load(5, 9, 0) + EXIT
    kept = compiled(numbered(code, {76: 0, 77: 1}))
    assert kept.programs["on_a"][:16] == load(1, 1, 1)
    address = 0xFFFFFFFF81234568
    loaded = kept.instructions("on_a", [10, 11], [20, 21], [address])
    assert loaded == load(1, 1, 11) + alike + load(2, 2, 21) + load(5, 0, address) + EXIT


def test_second_part_of_a_load_is_no_instruction() -> None:
    """Its bytes are a value, whatever they look like."""
    code = load(1, 0, 0x18 << 32 | 0x18) + load(2, 1, 77) + EXIT
    assert numbered(code, {77: 5}) == code[:16] + load(2, 1, 5) + EXIT


def test_unknown_map_is_an_error() -> None:
    """A program that names a file which is none of its maps cannot be kept."""
    with pytest.raises(KeyError):
        numbered(load(1, 1, 78) + EXIT, {77: 0})


def test_json_has_all_of_it() -> None:
    """What is read is what was written."""
    assert Compiled.from_json(json.loads(json.dumps(compiled().to_json()))) == compiled()


def test_constants_of_this_boot_are_not_given_to_the_compiler() -> None:
    """Addresses, processes, and the places of a node's zonelists; what the kernel's build decides is."""
    constants: dict[str, int | str] = {
        "RETURN_ADDRESS": 0xFFFFFFFF81000000,
        "DEFRAG_MODE_ADDRESS": 8,
        "OWN_TGID": 5,
        "TGID": 6,
        "CHILDREN": 7,
        "ZONELIST": 0,
        "SCOPE_GFP": "bx",
        "WIDE": 1 << 31,
        "ORDER": 3,
    }
    known, unknown = split(constants)
    assert known == {"SCOPE_GFP": "bx", "WIDE": 1 << 31, "ORDER": 3}
    assert flags_of(known, ["SLOTS", "LOOK"], list(unknown)) == sorted(
        [
            *("-DSCOPE_GFP=bx", "-DWIDE=0x80000000ULL", "-DORDER=3", "-DSLOTS_FD=0", "-DLOOK_FD=1"),
            *(f"-D{name}={later(number)}" for number, name in enumerate(unknown)),
        ]
    )
    assert later(2) == "bpf_pseudo_fd(9,2)"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder of compiled programs, on a kernel with a build id."""
    notes = tmp_path / "notes"
    notes.write_bytes(note(b"Xen\0", 3, b"\1\2\3\4") + note(b"GNU\0", 3, bytes.fromhex("ab" * 20)))
    monkeypatch.setattr(program_cache, "_NOTES", notes)
    monkeypatch.setenv(program_cache.CACHE_VARIABLE, str(tmp_path / "programs"))
    return tmp_path / "programs"


def note(name: bytes, kind: int, content: bytes) -> bytes:
    """Return an ELF note."""
    return struct.pack("<III", len(name), len(content), kind) + name + content


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts that are compiled."""
    texts: list[str] = []

    def compile_apart(text: str, _: list[str]) -> Compiled:
        texts.append(text)
        return compiled()

    monkeypatch.setattr(program_cache, "compile_apart", compile_apart)
    return texts


def test_build_id_is_read_from_the_kernels_notes() -> None:
    """Names and contents are padded; other notes come before it, or it is not there."""
    other = note(b"Linux\0\0\0", 0, bytes(8))
    assert build_id_of(other + note(b"GNU\0", 3, b"\xab\xcd\xef\x01")) == "abcdef01"
    assert build_id_of(other) is None
    assert build_id_of(b"\1\0\0") is None


def test_program_is_compiled_once(folder: Path, compilations: list[str]) -> None:
    """It is kept under the build id; another source, flag or kernel is another program."""
    assert obtain("a", ["-DB=1"]) == obtain("a", ["-DB=1"]) == compiled()
    assert compilations == ["a"]
    (kept,) = folder.rglob("*.program")
    assert (kept.parent.name, stat.S_IMODE(kept.stat().st_mode)) == ("ab" * 20, 0o600)
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    obtain("a", ["-DB=2"])
    obtain("b", ["-DB=1"])
    assert compilations == ["a", "a", "b"]


@pytest.mark.parametrize("damage", ["cut", "changed", "other", "writable", "folder writable", "link"])
def test_program_that_others_may_have_changed_is_compiled_again(
    folder: Path, compilations: list[str], damage: str
) -> None:
    """A recorder runs as root: it loads what is whole and its own, and replaces the rest."""
    obtain("a", [])
    (kept,) = folder.rglob("*.program")
    content = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(content[:-1])
    elif damage == "changed":
        kept.write_bytes(content.replace(b"on_a", b"on_b"))
    elif damage == "other":
        kept.write_bytes(b"\xff\n[]")
    elif damage == "writable":
        kept.chmod(0o666)
    elif damage == "folder writable":
        kept.parent.chmod(0o777)
    else:
        kept.unlink()
        kept.symlink_to("nowhere")
    obtain("a", [])
    assert compilations == ["a", "a"]


def test_program_without_a_folder_is_compiled_each_time(
    folder: Path, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is wanted, where it cannot be made, and on a kernel that shows no build id."""
    folder.write_text("a file, not a folder")
    assert obtain("a", []) == obtain("a", []) == compiled()
    monkeypatch.setenv(program_cache.CACHE_VARIABLE, "")
    assert kept_path("a", []) is None
    monkeypatch.setenv(program_cache.CACHE_VARIABLE, str(folder))
    monkeypatch.setattr(program_cache, "_NOTES", folder / "nothing")
    assert kept_path("a", []) is None
    assert compilations == ["a", "a"]


def test_service_keeps_programs_where_systemd_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CacheDirectory= of the unit."""
    monkeypatch.delenv(program_cache.CACHE_VARIABLE)
    monkeypatch.setenv("CACHE_DIRECTORY", str(folder / "service"))
    path = kept_path("a", [])
    assert path is not None
    assert path.parent.parent == folder / "service"


def test_kept_program_is_read_by_its_content(tmp_path: Path) -> None:
    """Nothing there is None, not an error."""
    assert read_kept(tmp_path / "nothing.program") is None


def test_compilers_words_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The process's standard error is the reason, its last lines at least."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\ncat >/dev/null\necho first >&2\necho 'x.c:1: error: no such name' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(compiler, "find_bcc", lambda: None)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(KalloctraceError) as caught:
        compiler.compile_apart("text", [])
    assert caught.value.why == "first; x.c:1: error: no such name"
    python.write_text('#!/bin/sh\ncat >/dev/null\necho \'{"error": ["a", "b", "c"]}\'\n')
    with pytest.raises(KalloctraceError) as caught:
        compiler.compile_apart("text", [])
    assert (caught.value.what, caught.value.why, caught.value.fix) == ("a", "b", "c")


def test_maps_are_made_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name; a refused one releases the others."""
    made: list[MapShape] = []
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]

    def create_map(shape: MapShape) -> int:
        made.append(shape)
        if len(made) == 4:
            raise OSError(12, "Cannot allocate memory")
        return files[len(made) - 1]

    monkeypatch.setattr(program, "create_map", create_map)
    with Program(compiled(load(1, 1, 1) + EXIT), [], [], {}) as loaded:
        assert (loaded.file("counts"), loaded.file("at_all")) == tuple(files[:2])
        assert loaded.instructions("on_a") == load(1, 1, files[1]) + EXIT
        assert loaded.tracepoints() == {"at_tick": "tick"}
    with pytest.raises(KalloctraceError) as caught:
        Program(compiled(), [], [], {})
    assert caught.value.why == "map at_all: Cannot allocate memory"
    for file in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(file)
