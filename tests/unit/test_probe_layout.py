# SPDX-License-Identifier: MIT
"""The header that the program and user space share is read as the compiler reads it, or not at all."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kalloctrace.probe.layout import (
    HeaderError,
    bpf_folder,
    constant,
    enum_texts,
    enum_values,
    read_header,
    shared_header,
    struct_dtype,
)

LENGTHS = {"NODEMASK_WORDS": 3, "BY_WORDS": 0, "ALLOC_CONTEXT_WORDS": 5, "ZONE_WORDS": 184}

MEANINGS = {
    "entry": ["ENTRY_NORMAL", "ENTRY_NOLOCK", "ENTRY_BULK", "ENTRY_BULK_SINGLE"],
    "mode": ["OFF", "CALIBRATE", "CAPTURE"],
    "counter": [
        "OPENED",
        "DROPPED",
        "PENDING_FULL",
        "UNPAIRED_FREELIST",
        "UNPAIRED_RETURN",
        "OVERWRITTEN",
        "FREELIST_BUSY",
        "FILTERED",
        "REJECTED",
        "COMMS_DROPPED",
        "ZONES_DROPPED",
        "OWN",
        "UNMATCHED",
        "OVERFLOWED",
        "NR_COUNTERS",
    ],
    "capturing": ["IDLE", "CAPTURING", "CLOSING"],
    "audit": ["AUDIT_OFF", "AUDIT_READY", "AUDIT_COUNT"],
    "slow_kind": ["SLOW_BEGINS", "SLOW_ATTEMPT", "SLOW_RETURNS", "SLOW_RECLAIM", "SLOW_COMPACTION", "SLOW_OOM"],
    "slow_part": ["PART_REST", "PART_RECLAIM", "PART_COMPACTION", "PART_OOM", "PART_THROTTLE", "PART_LOCK"],
}
"""Enums whose values count from 0."""
FLAGS = {
    "present": [
        "NODEMASK",
        "TASK_CONTEXT",
        "PREPARED",
        "AC_NODEMASK_CALLER",
        "AC_NODEMASK_MEMS_ALLOWED",
        "AC_NODEMASK_OTHER",
        "BULK_SINGLE",
    ],
    "switches": ["CPUSETS_ENABLED", "CPUSETS_SWITCHING", "DEFRAG_MODE"],
}
"""Enums whose values are bits, from bit 0 on."""
VALUES = {
    **{enum: {name: value for value, name in enumerate(names)} for enum, names in MEANINGS.items()},
    **{enum: {name: 1 << bit for bit, name in enumerate(names)} for enum, names in FLAGS.items()},
}


def test_every_enum_has_the_values_written_here() -> None:
    """Two members that swap their places, or a new one, must be written in two places."""
    assert shared_header().enums == VALUES


@pytest.mark.parametrize("enum", VALUES)
def test_swapped_members_are_noticed(enum: str) -> None:
    """Any two neighbours of any enum, swapped in the header, give other values than those written above."""
    header = (bpf_folder() / "record.h").read_text()
    for one, other in pairwise(VALUES[enum]):
        swapped = re.sub(rf"\b({one}|{other})\b", lambda name: other if name[0] == one else one, header)  # noqa: B023 used at once
        assert read_header(swapped).enums[enum] == {**VALUES[enum], one: VALUES[enum][other], other: VALUES[enum][one]}
        assert read_header(swapped).enums != VALUES


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return sizes, offsets and values as a C compiler has them."""
    header = shared_header()
    questions = {
        **{f"sizeof {s}": f"sizeof(struct {s})" for s in header.structs},
        **{
            f"{s}.{m.name}": f"__builtin_offsetof(struct {s}, {m.name})"
            for s, members in header.structs.items()
            for m in members
        },
        **{
            f"sizeof {s}.{m.name}": f"sizeof(((struct {s} *)0)->{m.name})"
            for s, members in header.structs.items()
            for m in members
        },
        **{name: name for members in header.enums.values() for name in members},
        **{name: name for name in header.constants},
    }
    lines = [f'printf("%s\\t%ld\\n", "{key}", (long)({value}));' for key, value in questions.items()]
    folder = tmp_path_factory.mktemp("compiled")
    source = folder / "layout.c"
    source.write_text(
        "\n".join(
            [
                "#include <stdint.h>\n#include <stdio.h>",
                *(
                    f"typedef {sign}int{bits}_t {name}{bits};"
                    for sign, name in (("u", "u"), ("", "s"))
                    for bits in (32, 64)
                ),
                f'#include "{bpf_folder() / "record.h"}"',
                "int main(void) {",
                *lines,
                "return 0; }",
            ]
        )
    )
    program = folder / "layout"
    defines = [f"-D{name}={value}" for name, value in LENGTHS.items()]
    subprocess.run(["gcc", "-w", *defines, "-o", program, source], check=True)
    output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in (line.split("\t") for line in output.splitlines())}


@pytest.mark.parametrize("struct", shared_header().structs)
def test_structure_is_laid_out_as_the_compiler_does(struct: str, compiled: dict[str, int]) -> None:
    """Size, and each member's offset and size."""
    dtype = struct_dtype(struct, LENGTHS)
    assert dtype.itemsize == compiled[f"sizeof {struct}"]
    assert dtype.fields is not None
    first, *others = shared_header().structs[struct]
    members = others if first.is_struct and first.count is None else [first, *others]
    for member in members:
        kind, offset = dtype.fields[member.name][:2]
        assert offset == compiled[f"{struct}.{member.name}"], member
        assert kind.itemsize == compiled[f"sizeof {struct}.{member.name}"], member


def test_constants_and_enums_have_the_compilers_values(compiled: dict[str, int]) -> None:
    """Also those that are expressions."""
    for members in shared_header().enums.values():
        assert members == {name: compiled[name] for name in members}
    for name in shared_header().constants:
        assert constant(name) == compiled[name]


def test_first_structure_lends_its_members() -> None:
    """At the compiler's offsets, even where padding ends the inner structure."""
    header = read_header("struct inner {\n\tu64 a;\n\tu32 b;\n};\nstruct outer {\n\tstruct inner i;\n\tu32 c;\n};\n")
    dtype = header.dtype("outer", {})
    assert {name: dtype.fields[name][1] for name in dtype.names or ()} == {"a": 0, "b": 8, "c": 16}  # type: ignore[index]
    assert dtype.itemsize == 24


def test_other_structures_are_one_member() -> None:
    """Also in arrays."""
    header = read_header("struct inner {\n\tu32 a;\n};\nstruct outer {\n\tstruct inner i[2];\n\tstruct inner j;\n};\n")
    dtype = header.dtype("outer", {})
    assert dtype.names == ("i", "j")
    assert dtype["i"].shape == (2,)
    assert dtype["j"] == np.dtype([("a", "<u4")], align=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct s {\n\tu64 a;\n\tunsigned int b;\n};", "a member of struct s is not understood: unsigned int b"),
        ("struct s {\n\tu64 *a;\n};", r"a member of struct s is not understood: u64 \*a"),
        ("struct s {\n\tu32 a : 3;\n};", "a member of struct s is not understood: u32 a : 3"),
        ("struct s {\n\tu64 a\n\tu32 b;\n};", "a member of struct s is not understood: u64 a"),
        ("struct s {\n\tlong a;\n};", "a member of struct s is not understood: long a"),
        ("struct s {\n\tu64 a;;\n};", "struct s has an empty member"),
        ("struct s {\n};", "struct s has an empty member"),
        ("struct s {\n\tunion { u32 a; u32 b; };\n};", r"line 1 is not understood: struct s \{"),
        ("enum e { A, , B };", "enum e has an empty member"),
        ("enum e { A B };", "a member of enum e is not understood: A B"),
        ("enum e { A = f(1) };", r"the value 'f\(1\)' is not understood"),
        ("enum e { A = 1 % 2 };", "the value '1 % 2' is not understood"),
        ("enum e { A = };", "a member of enum e is not understood: A ="),
        ("enum e { A };\nenum e { B };", "enum e is declared twice"),
        ("struct s {\n\tu64 a;\n};\n\ntypedef int t;\n", "line 5 is not understood: typedef int t;"),
        ("/* two\n   lines */\n#ifdef X\n#endif\n", "line 3 is not understood: #ifdef X"),
        ("struct s {\n\tu64 a;\n} __attribute__((packed));\n", "line 1 is not understood"),
    ],
)
def test_what_is_not_understood_is_an_error_that_names_it(text: str, message: str) -> None:
    """A member that is skipped would shift all that follow it."""
    with pytest.raises(HeaderError, match=message):
        read_header(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("struct s {\n\tu64 a[WORDS];\n};", "the value 'WORDS' is not understood"),
        ("struct s {\n\tstruct t a;\n};", "there is no struct t"),
        ("struct s {\n\tchar a;\n};", "the type of `char a` is not known"),
    ],
)
def test_structure_that_cannot_be_laid_out_is_an_error(text: str, message: str) -> None:
    """A length or a type that is missing is named."""
    with pytest.raises(HeaderError, match=message):
        read_header(text).dtype("s", {})


def test_expressions_have_their_values() -> None:
    """Constants, enumerators that follow a value, and those of the command line."""
    header = read_header(
        "#define A 3 /* three */\n#define B (A << 2 | 1)\nenum e { X = A * 2, Y, Z = B / 2 - 1 };\n".replace(" + W", "")
    )
    assert header.enums == {"e": {"X": 6, "Y": 7, "Z": 5}}
    assert header.evaluate("A + W", {"W": 4}) == 7


def test_enum_is_named_whole() -> None:
    """A member that user space does not know is an error, and so is one that the header lacks."""
    assert enum_values("mode", "CAPTURE", "OFF", "CALIBRATE") == (2, 0, 1)
    for names in (("OFF", "CALIBRATE"), ("OFF", "CALIBRATE", "CAPTURE", "PAUSE")):
        with pytest.raises(HeaderError, match="enum mode has the members"):
            enum_values("mode", *names)
    with pytest.raises(HeaderError, match="enum missing"):
        enum_values("missing", "A")


def test_texts_stand_by_value() -> None:
    """Whatever their order; values with gaps have no such list."""
    assert enum_texts("mode", {"CAPTURE": "c", "OFF": "o", "CALIBRATE": "k"}) == ["o", "k", "c"]
    with pytest.raises(HeaderError, match="do not count from 0"):
        enum_texts("switches", dict.fromkeys(FLAGS["switches"], ""))


def test_program_is_found_in_a_checkout_and_in_a_package() -> None:
    """One folder holds all of it."""
    assert isinstance(bpf_folder(), Path)
    assert (bpf_folder() / "common.bpf.c").is_file()
