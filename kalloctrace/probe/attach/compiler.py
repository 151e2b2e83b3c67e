# SPDX-License-Identifier: MIT
"""Compiles the BPF program with bcc, in a process of its own: a recorder has no use for the compiler's memory.

The process reads `{"text": …, "flags": […]}` from standard input, and writes what `Compiled.to_json` returns, or
`{"error": [what, why, fix]}`. bcc creates the program's maps meanwhile, so it needs the privileges of a recorder.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kalloctrace.errors import KalloctraceError
from kalloctrace.probe.attach.bcc_import import find_bcc, import_bcc
from kalloctrace.probe.attach.compiled import Compiled, later, numbered
from kalloctrace.probe.attach.programs import not_loaded
from kalloctrace.probe.layout import bpf_folder
from kalloctrace.probe.maps.bpf_map import MapShape

_LINES = 8
"""Of what the compiler says about an error."""
_RINGBUF = 27
"""include/uapi/linux/bpf.h: enum bpf_map_type"""


def flags_of(
    constants: Mapping[str, int | str], names_of_maps: Sequence[str], names_of_later: Sequence[str]
) -> list[str]:
    """Return the preprocessor symbols of the program, as the compiler takes them.

    Args:
        constants: their values.
        names_of_maps: the maps that the program addresses without a look-up, by their numbers.
        names_of_later: the symbols whose values are stored into the loaded program, by their numbers.
    """
    known = {name: _number(value) for name, value in constants.items()}
    known |= {f"{name}_FD": str(number) for number, name in enumerate(names_of_maps)}
    known |= {name: later(number) for number, name in enumerate(names_of_later)}
    return [f"-D{name}={value}" for name, value in sorted(known.items())]


def source_text(sources: Sequence[str]) -> str:
    """Return the files of a program, joined."""
    return "".join((bpf_folder() / name).read_text() for name in sources)


def compile_apart(text: str, flags: Sequence[str]) -> Compiled:
    """Compile a program in a process of its own.

    Args:
        text: its source.
        flags: the compiler's.

    Raises:
        KalloctraceError: bcc is missing, or refused; with what it said.
    """
    find_bcc()
    command = [sys.executable, "-m", __name__]
    request = json.dumps({"text": text, "flags": list(flags)}).encode()
    done = subprocess.run(command, input=request, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-_LINES:]
        raise not_loaded("; ".join(said) or f"the compiler ended with exit code {done.returncode}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise KalloctraceError(*answer["error"])
    return Compiled.from_json(answer)


def _compiled(text: str, flags: Sequence[str]) -> Compiled:
    bcc = import_bcc()
    folder = bpf_folder()
    # Only bcc's own prologue includes kernel headers; the folder has replacements for these.
    os.environ["BCC_KERNEL_SOURCE"] = str(folder)
    program = bcc.BPF(text=text.encode(), cflags=[f"-I{folder}", "-Wno-unused-command-line-argument", *flags])
    lib, module = _declared(bcc.libbcc.lib), program.module
    shapes, files = [], {}
    for number in range(lib.bpf_num_tables(module)):
        kind = lib.bpf_table_type_id(module, number)
        key, value = (0, 0) if kind == _RINGBUF else _sizes(lib, module, number)
        entries, map_flags = (of(module, number) for of in (lib.bpf_table_max_entries_id, lib.bpf_table_flags_id))
        name = lib.bpf_table_name(module, number).decode()
        shapes.append(MapShape(name, kind, key, value, entries, map_flags))
        files[lib.bpf_table_fd_id(module, number)] = number
    names = [lib.bpf_function_name(module, number) for number in range(lib.bpf_num_functions(module))]
    return Compiled({name.decode(): numbered(bytes(program.dump_func(name)), files) for name in names}, shapes)


def _sizes(lib: Any, module: Any, number: int) -> tuple[int, int]:  # noqa: ANN401 bcc has no types
    return lib.bpf_table_key_size_id(module, number), lib.bpf_table_leaf_size_id(module, number)


def _declared(lib: Any) -> Any:  # noqa: ANN401 bcc has no types
    """Return bcc's C library with the functions declared that bcc does not use."""
    for name, returns in (
        ("bpf_table_name", ctypes.c_char_p),
        ("bpf_table_fd_id", ctypes.c_int),
        ("bpf_table_key_size_id", ctypes.c_size_t),
        ("bpf_table_leaf_size_id", ctypes.c_size_t),
    ):
        function = getattr(lib, name)
        function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t], returns
    lib.bpf_num_tables.argtypes, lib.bpf_num_tables.restype = [ctypes.c_void_p], ctypes.c_size_t
    return lib


def _number(value: int | str) -> str:
    return f"{value:#x}ULL" if isinstance(value, int) and value > 0x7FFFFFFF else str(value)


def main() -> None:
    """Compile what standard input has."""
    request = json.load(sys.stdin)
    try:
        answer = _compiled(request["text"], request["flags"]).to_json()
    except KalloctraceError as error:
        answer = {"error": [error.what, error.why, error.fix]}
    # For a program, not for people.
    json.dump(answer, sys.stdout)  # noqa: TID251


if __name__ == "__main__":
    main()
