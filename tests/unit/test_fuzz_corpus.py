# SPDX-License-Identifier: MIT
"""The inputs of `make fuzz`, replayed without the fuzzer: each keeps the contract of its surface."""

from pathlib import Path

import pytest

from tests.fuzz.surface import CORPUS, Surface, all_surfaces

SURFACES = all_surfaces()
LIMIT = 300_000
"""Bytes of the corpus of one surface."""


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_each_seed_keeps_the_contract(surface: Surface) -> None:
    """A seed has an answer or the program's own error, in time; among them are all inputs that ever broke one."""
    seeds = surface.seeds()
    for seed in seeds:
        try:
            surface.check(seed.read_bytes())
        except Exception as error:
            error.add_note(f"the input is {seed}")
            raise
    assert seeds


def test_corpus_is_small_and_belongs_to_the_surfaces() -> None:
    """A folder without a surface would never be replayed; large seeds make the fuzzer slow."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(SURFACES)
    sizes = {name: sum(seed.stat().st_size for seed in surface.seeds()) for name, surface in SURFACES.items()}
    assert {name: size for name, size in sizes.items() if size > LIMIT} == {}
    longest = {name: max(Path(seed).stat().st_size for seed in surface.seeds()) for name, surface in SURFACES.items()}
    assert {name for name, size in longest.items() if size > SURFACES[name].max_len} == set()
