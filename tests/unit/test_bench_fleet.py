# SPDX-License-Identifier: MIT
"""The fleets of `make fleet-bench`, and what a user would do instead: it finds what `fleet verify` judges."""

from pathlib import Path

from kalloctrace.fleet.dataset import Dataset
from kalloctrace.fleet.engines import engine
from kalloctrace.fleet.verify import verify_fleet
from tests.bench.fleet import PLAIN, SEEDS, fleets_of_seeds, sizes_of
from tests.bench.fleet_data import AFTER, BEFORE, SMALL, Fleet, export_fleet, make_fleet
from tests.bench.fleet_peers import PEERS


def test_fleets_have_the_size_that_is_asked_for() -> None:
    """In rows, but for what is less than a host."""
    assert [fleet.rows for fleet in sizes_of((100, 100_000, 1_000_100))] == [800, 100_000, 1_000_000]


def test_seeds() -> None:
    """Some fleets are without injections, in the others they get smaller; each has its own random numbers."""
    fleets = list(fleets_of_seeds(SEEDS, PLAIN, 50))
    assert [fleet.seed for fleet in fleets] == list(range(1, SEEDS + 1))
    plain, injected = fleets[:PLAIN], fleets[PLAIN:]
    assert {(fleet.outlier, fleet.regression, fleet.mismatched) for fleet in plain} == {(0, 1, 0)}
    assert all(fleet.mismatched for fleet in injected)
    for sizes in ([fleet.outlier for fleet in injected], [fleet.regression for fleet in injected]):
        assert sizes == sorted(sizes, reverse=True)
        assert len(set(sizes)) == SEEDS - PLAIN


def test_the_sums_are_those_that_a_user_would_find(tmp_path: Path) -> None:
    """Every call that a fleet is given is there, and judged; pandas and SQL find the same calls and requests."""
    fleet = Fleet(hosts=3, requests=20, calls=1000, slow=5, mismatched=7, fixture=SMALL)
    path, exported = tmp_path / "fleet", tmp_path / "exported"
    make_fleet(path, fleet)
    export_fleet(path, exported)
    with Dataset.opened(path) as dataset, engine() as running:
        found = verify_fleet(dataset, running, processes=1)
        assert set(dataset.table("recordings")["kernel_release"].to_pylist()) == {BEFORE, AFTER}
        assert dataset.table("allocations").num_rows == fleet.rows + 1
    assert (found.recordings, found.hosts, found.mismatched, found.unknown) == (6, 3, 7, 0)
    assert abs(found.allocations - 6 * fleet.calls) < 6 * 5 * fleet.calls**0.5
    assert len([*exported.iterdir()]) == found.recordings
    for answer in PEERS.values():
        assert answer(exported) == {"requests": found.judged, "calls": found.allocations}
