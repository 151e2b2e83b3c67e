# SPDX-License-Identifier: MIT
"""The proven kernels: the file, its table, and the status of a kernel."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kalloctrace.errors import KalloctraceError
from kalloctrace.kernel.builtin import builtin_features
from kalloctrace.kernel.proven import MachineProof, Proof, differing_features, load, proof_status
from tests.matrix.proofs import BEGIN, END, save, table, variant_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/kernels.md"
ONE = MachineProof("one node", 600_123, 400, 0, 0, 0)
TWO = MachineProof("two nodes", 400_000, 500, 0, 0, 0)


def proof(kernel: str, release: str, version: str, *machines: MachineProof, failure: str = "") -> Proof:
    """Return a made-up proof."""
    features = builtin_features(kernel)
    return Proof(kernel, release, version, variant_of(features), features, "module", machines, failure)


OLD = proof("5.10", "5.10.0-46-amd64", "5.10.262-1", ONE, TWO)
NEW = proof("6.12", "6.12.117+deb13-amd64", "6.12.117-1", ONE)
WRONG = proof("7.3", "7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", ONE, replace(TWO, mismatched=3))
GONE = Proof("7.0", "", "", "", None, "module", (), "no longer available")
ALL = (OLD, NEW, GONE, WRONG)


def test_sums() -> None:
    """A kernel's numbers are the sums over its machines."""
    assert (OLD.requests, OLD.distinct, OLD.mismatched, OLD.unknown, OLD.lost) == (1_000_123, 900, 0, 0, 0)
    assert OLD.proven


@pytest.mark.parametrize(
    "bad",
    [
        replace(OLD, machines=()),
        replace(OLD, machines=(replace(ONE, requests=0, distinct=0),)),
        replace(OLD, machines=(ONE, replace(TWO, mismatched=1))),
        replace(OLD, machines=(ONE, replace(TWO, unknown=1))),
        replace(OLD, machines=(ONE, replace(TWO, lost=1))),
        replace(OLD, machines=(ONE, replace(TWO, failure="the guest hung"))),
        replace(OLD, failure="the module did not build"),
        GONE,
    ],
)
def test_anything_short_of_everything_is_not_proven(bad: Proof) -> None:
    """No request, a mismatch, an unknown, a loss or a failure anywhere: not proven, and the table says why."""
    assert not bad.proven
    assert "| no: " in table([bad])


def test_file_round_trip(tmp_path: Path) -> None:
    """What is saved is loaded, oldest kernel first, and saving it again changes no byte."""
    path = tmp_path / "proven.json"
    save(reversed(ALL), path)
    assert load(path) == ALL
    before = path.read_bytes()
    save(load(path), path)
    assert path.read_bytes() == before


def test_file_changes_by_line(tmp_path: Path) -> None:
    """A measurement that gives another number changes that line only."""
    path = tmp_path / "proven.json"
    save(ALL, path)
    before = path.read_text().splitlines()
    save([replace(OLD, machines=(replace(ONE, requests=7), TWO)), *ALL[1:]], path)
    changed = [pair for pair in zip(before, path.read_text().splitlines(), strict=True) if pair[0] != pair[1]]
    assert [new.strip() for _, new in changed] == ['"requests": 7,']


@pytest.mark.parametrize("text", ["", "{}x", "[1]", '[{"kernel": "5.10"}]', "7"])
def test_damaged_file_is_three_lines(tmp_path: Path, text: str) -> None:
    """A file with other content is an error."""
    path = tmp_path / "proven.json"
    path.write_text(text)
    with pytest.raises(KalloctraceError) as caught:
        load(path)
    assert str(path) in caught.value.what


def test_missing_file_is_three_lines(tmp_path: Path) -> None:
    """A missing file is an error."""
    with pytest.raises(KalloctraceError, match="cannot read"):
        load(tmp_path / "none.json")


def test_packaged_file_can_be_read() -> None:
    """The packaged file can be read, and each variant has the name of its features."""
    for row in load():
        assert row.features is None or row.variant == variant_of(row.features)
        assert row.failures or row.requests > 0


@pytest.mark.parametrize(
    ("kernels", "variant"),
    [
        (["5.8"], "5.8"),
        (["5.9", "5.10", "5.12"], "5.9 to 5.12"),
        (["5.13", "5.14"], "5.13 to 5.14"),
        (["5.15", "6.1", "6.8", "6.12", "6.14"], "5.15 to 6.8, 6.12 to 6.14"),
        (["6.9", "6.11"], "6.9 to 6.11"),
        (["6.15", "6.16", "6.17", "6.18", "6.19", "7.0", "7.2"], "6.15 to 7.2"),
        (["7.3"], "7.3"),
    ],
)
def test_variants_are_the_releases_they_are_named_after(kernels: list[str], variant: str) -> None:
    """Each built-in release has the variant whose name contains it."""
    assert {variant_of(builtin_features(kernel)) for kernel in kernels} == {variant}


def test_build_options_make_no_variant() -> None:
    """CONFIG_CMA and the entry's name do not change the variant; a rule of another release makes a new one."""
    features = builtin_features("6.1")
    assert variant_of(replace(features, config_cma=True, entry="other")) == variant_of(features)
    assert variant_of(replace(features, highatomic_on_fast_path=True)) == "new"


def test_differing_features_are_named() -> None:
    """Two kernels differ in the features that were replaced."""
    features = builtin_features("6.1")
    assert differing_features(features, replace(features, config_cma=True, max_order=9)) == ("config_cma", "max_order")
    assert differing_features(features, features) == ()


def test_measured_release() -> None:
    """The status of a measured release names it, with its numbers."""
    found = proof_status(builtin_features("5.10"), "5.10.0-46-amd64", "#1 SMP Debian 5.10.262-1 (2026-07-31)", ALL)
    assert (found.measured, found.nearest, found.same, found.refuted) == (OLD, OLD, True, False)
    assert found.covered
    assert "this very release" in str(found)
    assert "5.10 (5.10.262-1): 1,000,123 requests, 0 mismatches" in str(found)


def test_another_build_of_the_same_rules() -> None:
    """Another package of a proven kernel has the same features, but is not the measured one."""
    found = proof_status(builtin_features("5.10"), "5.10.0-46-amd64", "#1 SMP Debian 5.10.261-1 (2026-07-01)", ALL)
    assert (found.measured, found.nearest, found.same) == (None, OLD, True)
    assert str(found) == (
        "the rules for this kernel were proven on 5.10 (5.10.262-1): 1,000,123 requests, 0 mismatches"
    )


def test_nearest_kernel_and_what_differs() -> None:
    """If no proven kernel has the same features, the nearest one and all differing features are named."""
    features = replace(builtin_features("6.12"), config_cma=True)
    found = proof_status(features, "6.13.7", "", ALL)
    assert (found.nearest, found.same, found.differing) == (NEW, False, ("config_cma",))
    assert found.to_json() == {
        "kernel": "6.12",
        "release": "6.12.117+deb13-amd64",
        "same": False,
        "differing": ["config_cma"],
        "measured": False,
        "refuted": False,
    }
    assert "differs in config_cma: 6.12 (6.12.117-1)" in str(found)


def test_nearest_release_breaks_a_tie() -> None:
    """Among kernels with equally few differences, the nearest release is named."""
    near = replace(NEW, kernel="6.13", release="6.13.1")
    assert proof_status(builtin_features("6.12"), "6.14.2", "", [OLD, NEW, near]).nearest == near


def test_refuted_release() -> None:
    """A release that failed its measurement is not proven, and does not prove other kernels."""
    features = builtin_features("7.3")
    found = proof_status(features, WRONG.release, f"#1 SMP Debian {WRONG.version} (2026-10-01)", ALL)
    assert found.refuted
    assert not found.covered
    assert found.nearest in {OLD, NEW}
    assert "not proven: 3 mismatched" in str(found)


def test_refuted_release_of_proven_rules() -> None:
    """A failed release is not covered, even if another kernel proves the same rules."""
    twin = replace(WRONG, kernel="7.3-rt", release="7.3.4+deb13-rt-amd64", machines=(ONE,))
    found = proof_status(builtin_features("7.3"), WRONG.release, f"#1 SMP Debian {WRONG.version}", [WRONG, twin])
    assert (found.nearest, found.same, found.refuted, found.covered) == (twin, True, True, False)


def test_nothing_proven() -> None:
    """The status says so."""
    found = proof_status(builtin_features("5.10"), "5.10", "", [])
    assert (found.nearest, found.same) == (None, False)
    assert str(found) == "no kernel's rules are proven yet"
    assert found.to_json()["kernel"] is None


def test_table() -> None:
    """Each kernel is a line with its numbers; one that could not be measured says why."""
    lines = table(ALL).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == ("| 5.10 | 5.10.262-1 | 5.9 to 5.12 | module | 2 | 1,000,123 | 900 | 0 | 0 | 0 | yes |")
    assert "no longer available" in lines[4]
    assert "no: 3 mismatched" in lines[5]


def test_table_cells_stay_cells() -> None:
    """A bar or a line break in a failure does not break the table."""
    (line,) = table([replace(GONE, failure="a|b\nc")]).splitlines()[2:]
    assert "a\\|b c" in line


def test_page_has_the_table_of_the_packaged_file() -> None:
    """docs/kernels.md shows what was measured, and the module prints the same."""
    text = PAGE.read_text()
    assert text.partition(BEGIN)[2].partition(END)[0] == f"\n\n{table(load())}\n\n"
    printed = subprocess.run(
        [sys.executable, "-m", "tests.matrix.proofs"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert printed.stdout == f"{table(load())}\n"


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    """The file can be read by anything that reads JSON."""
    path = tmp_path / "proven.json"
    save(ALL, path)
    assert [row["kernel"] for row in json.loads(path.read_text())] == ["5.10", "6.12", "7.0", "7.3"]
