# SPDX-License-Identifier: MIT
"""Compares what `--json` prints with what an earlier commit printed, on every fixture; `make compare-json` runs it.

The commands are verify, report, report --failures, explain --batch, explain on kernel logs, and decode. Both programs
get the same arguments and standard input. Values under the prose keys may differ. Any other difference must be in
`corrections.toml`, with its reason; an entry there that matches nothing is an error.

Exit code 0: the same; 1: a difference that is not listed, or a stale entry.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

ROOT = Path(__file__).parents[2]
PROSE = frozenset({"effect", "rule", "why", "text", "summary"})
"""Keys whose values are sentences for people."""
SERIES = ("5.10", "6.1", "6.12", "6.16", "6.19", "7.0", "7.2", "7.3")
MOST_REQUESTS = 20_000
"""Distinct requests of one fixture that explain --batch answers."""
ZONES = {"ZONE_DMA": "DMA", "ZONE_DMA32": "DMA32", "ZONE_NORMAL": "Normal", "ZONE_MOVABLE": "Movable"}
"""The names in a batch line of the zones that fixtures have."""
SHOWN = 20


@dataclass(frozen=True)
class Case:
    """One command to run in both programs.

    Attributes:
        name: for messages.
        arguments: of `kalloctrace`.
        stdin: its standard input.
    """

    name: str
    arguments: Sequence[str]
    stdin: bytes = b""


@dataclass(frozen=True)
class Difference:
    """A value that the two programs print differently.

    Attributes:
        case: the command.
        object: which JSON object of its output, from 1.
        path: the keys that lead to the value; positions in arrays are `[]`.
        old: the earlier value; `(absent)` where only the new program prints the key.
        new: the value now.
        request: the case's line of input, where it has one for each object.
    """

    case: str
    object: int
    path: str
    old: Any
    new: Any
    request: str = ""


@dataclass
class Corrections:
    """The differences that are meant, from `corrections.toml`.

    Attributes:
        rules: tables with `case` and `path` (both must be equal to the difference's, `*` stands for any), and `reason`.
        used: how many differences each one explains.
    """

    rules: list[dict[str, str]]
    used: Counter[int] = field(default_factory=Counter)

    def explain(self, found: Difference) -> bool:
        """Return whether a rule lists this difference, and count it."""
        for index, rule in enumerate(self.rules):
            if rule["path"] in (found.path, "*") and (rule["case"] == "*" or found.case.startswith(rule["case"])):
                self.used[index] += 1
                return True
        return False

    def stale(self) -> list[dict[str, str]]:
        """Return the rules that explained nothing."""
        return [rule for index, rule in enumerate(self.rules) if not self.used[index]]


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401  (JSON)
    """Yield the path and both values of each difference outside the prose keys.

    Keys that only `new` has are additions, which the contract allows.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old:
            if key not in PROSE:
                yield from differences(old[key], new.get(key, "(absent)"), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for one, other in zip(old, new, strict=True):
            yield from differences(one, other, f"{path}[]")
    elif old != new or type(old) is not type(new):
        yield path, old, new


def fixtures() -> list[Path]:
    """Return the recorded traces."""
    return sorted((ROOT / "fixtures").glob("*/*.arrows"))


def cases(old: Path) -> Iterator[Case]:
    """Yield the commands to compare.

    Args:
        old: the checkout of the earlier program, which lists the requests of the fixtures.
    """
    for path in fixtures():
        name = f"{path.parent.name}/{path.stem}"
        yield Case(f"verify {name}", ["verify", "--json", str(path)])
        yield Case(f"report {name}", ["report", "--json", "--top", "1000", str(path)])
        yield Case(f"failures {name}", ["report", "--json", "--failures", "--slower-than", "5", str(path)])
        lines, masks, flags = requests(old, path)
        yield Case(f"batch {name}", ["explain", "--batch", "-"], lines)
        yield Case(f"decode {name}", ["decode", "--json", "--kernel", str(path), *masks])
        yield Case(f"decode-alloc {name}", ["decode", "--json", "--kind", "alloc", "--kernel", str(path), *flags])
    for path in sorted((ROOT / "tests/unit/data/failures").glob("*.log")):
        yield Case(f"log {path.stem}", ["explain", "--json", str(path)])
        yield Case(f"masks {path.stem}", ["decode", "--json", "-"], path.read_bytes())
    for series in SERIES:
        bits = [str(1 << bit) for bit in range(28)]
        yield Case(f"decode {series}", ["decode", "--json", "--kernel", series, *bits])
        yield Case(f"decode-alloc {series}", ["decode", "--json", "--kind", "alloc", "--kernel", series, *bits])


def requests(old: Path, trace: Path) -> tuple[bytes, list[str], list[str]]:
    """Return the distinct requests of a trace as lines of a batch, and its gfp masks and alloc_flags."""
    snapshot = json.loads(pa.ipc.open_stream(str(trace)).schema.metadata[b"kalloctrace.snapshot"])
    machine = _machine(snapshot)
    kernel = next(series for series in SERIES if snapshot["release"].startswith(f"{series}."))
    rows = run(old, Case("", ["export", "--format", "jsonl", str(trace)])).stdout.splitlines()
    lines: dict[str, None] = {}
    masks, flags = Counter[str](), Counter[str]()
    for text in rows:
        row = json.loads(text)
        masks[str(row["gfp_mask"])] += 1
        if row["alloc_flags"] is not None:
            flags[str(row["alloc_flags"])] += 1
        if row["entry"] in ("normal", "nolock") and len(lines) < MOST_REQUESTS:
            lines[json.dumps(_line(kernel, machine, row))] = None
    return "".join(f"{line}\n" for line in lines).encode(), list(masks), list(flags)


def _machine(snapshot: dict[str, Any]) -> dict[str, Any]:
    names = {number: ZONES[name] for name, number in snapshot["tables"]["zone_type"] if name in ZONES}
    nodes = {
        str(node["nid"]): [names[zone["index"]] for zone in node["zones"] if zone["present_pages"]]
        for node in snapshot["machine"]["nodes"]
    }
    return {"nodes": {nid: zones for nid, zones in nodes.items() if zones}}


def _line(kernel: str, machine: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {
        "kernel": kernel,
        "entry": row["entry"],
        "gfp": row["gfp_mask"],
        "order": row["order"],
        "preferred_nid": row["preferred_nid"],
        "alloc_flags": row["entry_alloc_flags"],
        "task_flags": row["task_flags"],
        "preempt_count": row["preempt_count"],
        "numa_node_id": row["numa_node_id"],
        "nodemask": None if row["nodemask"] is None else _nodes(row["nodemask"]),
    }
    context = {
        "cpusets_enabled": None if row["cpusets_enabled"] is None else row["cpusets_enabled"] > 0,
        "gfp_allowed_mask": row["gfp_allowed_mask"],
        "defrag_mode": row["defrag_mode"],
        "mems_allowed": None if row["mems_allowed"] is None else _nodes(row["mems_allowed"]),
    }
    line["machine"] = machine | {key: value for key, value in context.items() if value is not None}
    return {key: value for key, value in line.items() if value is not None}


def _nodes(text: str) -> list[int]:
    ends = [part.split("-") for part in text.split(",") if part]
    return [node for part in ends for node in range(int(part[0]), int(part[-1]) + 1)]


def run(checkout: Path, case: Case) -> subprocess.CompletedProcess[bytes]:
    """Run the program of a checkout."""
    return subprocess.run(
        [sys.executable, "-m", "kalloctrace", *case.arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        input=case.stdin,
        capture_output=True,
        check=False,
    )


def compare(old: Path, new: Path, case: Case) -> tuple[int, list[Difference]]:
    """Return how many objects a command prints, and where the two programs differ."""
    one, other = run(old, case), run(new, case)
    if one.returncode != other.returncode:
        return 0, [
            Difference(case.name, 0, "exit code", one.returncode, other.returncode, other.stderr.decode()[-400:])
        ]
    before, after = one.stdout.splitlines(), other.stdout.splitlines()
    if before and all(b'"type": "error"' in line for line in before):
        return 0, [Difference(case.name, 0, "every answer is an error", before[0].decode(), "")]
    if len(before) != len(after):
        return 0, [Difference(case.name, 0, "objects", len(before), len(after))]
    lines = case.stdin.splitlines()
    asked = lines if len(lines) == len(before) else [b""] * len(before)
    found = [
        Difference(case.name, number, *difference, request=line.decode(errors="replace"))
        for number, (first, second, line) in enumerate(zip(before, after, asked, strict=True), 1)
        if first != second
        for difference in differences(json.loads(first), json.loads(second))
    ]
    return len(before), found


def main() -> int:
    """Compare, print the differences that are not listed, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("base", nargs="?", default="615d23c", help="the earlier commit")
    base = parser.parse_args().base
    corrections = Corrections(tomllib.loads(Path(__file__).with_name("corrections.toml").read_text())["correction"])
    unlisted: list[Difference] = []
    objects = listed = 0
    with tempfile.TemporaryDirectory() as folder:
        old = Path(folder) / "old"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(old), base], cwd=ROOT, check=True)
        try:
            for case in cases(old):
                count, found = compare(old, ROOT, case)
                objects += count
                new = [each for each in found if not corrections.explain(each)]
                listed += len(found) - len(new)
                unlisted += new
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=True)
    for each in unlisted[:SHOWN]:
        print(f"{each.case}, object {each.object}: {each.path}: {each.old!r} -> {each.new!r}")
        if each.request:
            print(f"    {each.request}")
    for rule in corrections.stale():
        print(f"corrections.toml: nothing differs at {rule['case']} {rule['path']} any more")
    print(f"{objects:,} JSON objects compared with {base}: {listed} listed differences, {len(unlisted)} others")
    return 1 if unlisted or corrections.stale() else 0


if __name__ == "__main__":
    sys.exit(main())
