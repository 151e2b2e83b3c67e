# SPDX-License-Identifier: MIT
"""How the source of the preparation stage changed from release to release, for people.

What changes a result is a row of `kalloctrace.kernel.builtin`. What changed only a name, a constant or the place of the
code is listed here, each with its source.
"""

from collections.abc import Mapping
from typing import NamedTuple

from kalloctrace.flags.releases import parse_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.builtin import ROWS, Row, allowed_mask_changes


class Rewrite(NamedTuple):
    """A change of the source that leaves the result of a rule as it was.

    Attributes:
        since: the first release with the change, (major, minor).
        what: the new source, and the old one where it helps.
        source: the file or the two releases that were compared.
    """

    since: tuple[int, int]
    what: str
    source: str


_FINALISE = Rewrite((5, 10), "in prepare_alloc_pages; before in finalise_ac, right after it", "5.9.2 against 5.11.0")

REWRITES: Mapping[str, tuple[Rewrite, ...]] = {
    "order": (
        Rewrite((5, 19), "WARN_ON_ONCE_GFP(), before a test of __GFP_NOWARN of its own", "5.17-rc5 against 5.19.0"),
        Rewrite((6, 4), "order > MAX_ORDER (10), before order >= MAX_ORDER (11)", "6.3.8 against 6.4.6"),
        Rewrite((6, 8), "MAX_PAGE_ORDER, before MAX_ORDER", "6.6.0 against 6.8.1"),
    ),
    "gfp_allowed_mask": tuple(
        Rewrite(since, f"after boot the mask is {mask:#x}", source) for since, mask, source in allowed_mask_changes()
    ),
    "cpuset": (Rewrite((6, 0), "might_alloc() follows, which changes no value", "5.19.0 against 6.0.1"),),
    "spread_dirty_pages": (_FINALISE,),
    "preferred_zone": (_FINALISE,),
}
"""The changes by rule identifier, oldest first."""


def order_test(tables: FlagTables) -> str:
    """Return the expression by which a kernel rejects an order that is too large; sources as in `REWRITES`."""
    if _series(tables) >= (6, 8):
        return "order > MAX_PAGE_ORDER"
    return "order > MAX_ORDER" if _series(tables) >= (6, 4) else "order >= MAX_ORDER"


def feature_rows(feature: str) -> tuple[Row, ...]:
    """Return the values of a feature of `Features`, oldest release first."""
    return tuple(row for row in ROWS if row.feature == feature)


def row_in_force(feature: str, tables: FlagTables) -> Row | None:
    """Return the row that sets a feature on the release that the tables name; the newest row when they name none."""
    reached = [row for row in feature_rows(feature) if row.since <= _series(tables)]
    return reached[-1] if reached else None


def _series(tables: FlagTables) -> tuple[int, int]:
    release = parse_release(tables.kernel)
    return (1 << 16, 0) if release is None else (release.major, release.minor)
