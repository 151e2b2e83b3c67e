# SPDX-License-Identifier: MIT
"""Rules of the slow path that only a kernel's release shows.

Long-term kernels got some of them as fixes, hence the patch levels. Tables and features show whether a kernel has
ALLOC_HARDER or ALLOC_NON_BLOCK, __GFP_ATOMIC, vm.defrag_mode or a fifth argument of the entry.
"""

from dataclasses import dataclass
from typing import NamedTuple

from kalloctrace.flags.builtin import known_release
from kalloctrace.flags.releases import NEWEST_PATCH, Release


class Row(NamedTuple):
    """Releases in which a rule is in force.

    Attributes:
        rule: name of the attribute of `SlowpathRules`.
        since: first release that has it.
        source: where that was read.
        until: first release that no longer has it, for a fix in one stable series; None if every later release has it.
    """

    rule: str
    since: Release
    source: str
    until: Release | None = None


@dataclass(frozen=True)
class SlowpathRules:
    """The rules of one kernel's slow path.

    Attributes:
        compact_skipped_returns: no attempt follows compaction that was skipped.
        reserves_keep_kswapd: ALLOC_KSWAPD stays set when the reserves are opened.
        highatomic_for_high: ALLOC_HIGHATOMIC needs __GFP_HIGH. Without this rule every request that cannot block gets
            it.
        compact_first: a retry repeats the first attempt, and compaction comes before reclaim in the first round of a
            costly order, or of order > 0 for pages that are not movable.
        defrag_falls_back_at_once: requests that cannot reclaim drop ALLOC_NOFRAGMENT of vm.defrag_mode as well.
        defrag_promotes: with vm.defrag_mode, compaction for unmovable pages makes whole pageblocks, even for
            order 0.
        thisnode_compacts_only: a costly __GFP_NORETRY request for one node gives up after early compaction. Without
            this rule it may also continue.
    """

    compact_skipped_returns: bool = False
    reserves_keep_kswapd: bool = False
    highatomic_for_high: bool = False
    compact_first: bool = False
    defrag_falls_back_at_once: bool = False
    defrag_promotes: bool = False
    thisnode_compacts_only: bool = False


def _since(major: int, minor: int, patch: int = 0) -> Release:
    return Release(major, minor, patch)


_HIGHATOMIC = '6a204d4b14c9 ("mm/page_alloc: only set ALLOC_HIGHATOMIC for __GPF_HIGH allocations") (in v6.18)'
_THISNODE = '9c9828d3ead6 ("mm, page_alloc, thp: prevent reclaim for __GFP_THISNODE THP allocations") (in v7.0)'
_FLOW = '"mm/page_alloc: simplify __alloc_pages_slowpath() flow" and the two commits before it (in v7.0)'
_READ_7_2 = "mm/page_alloc.c of linux-source-7.2 7.2.12-1~bpo13+1"

ROWS = (
    Row(
        "compact_skipped_returns",
        _since(5, 13),
        '06dac2f467fe ("mm: compaction: update the COMPACT[STALL|FAIL] events properly") (in v5.13)',
    ),
    Row(
        "reserves_keep_kswapd",
        _since(6, 1),
        '"mm/page_alloc: ensure kswapd doesn\'t accidentally go to sleep" (in v6.1); mm/page_alloc.c:5257 of 6.1.192-2',
    ),
    Row("highatomic_for_high", _since(6, 1, 157), f"{_HIGHATOMIC}; Debian changelog of 6.1.158-1", _since(6, 2)),
    Row("highatomic_for_high", _since(6, 6, 113), f"{_HIGHATOMIC}; announcement of Linux 6.6.113", _since(6, 7)),
    Row("highatomic_for_high", _since(6, 12, 54), f"{_HIGHATOMIC}; Debian changelog of 6.12.57-1", _since(6, 13)),
    Row("highatomic_for_high", _since(6, 17, 4), f"{_HIGHATOMIC}; announcement of Linux 6.17.4", _since(6, 18)),
    Row("highatomic_for_high", _since(6, 18), _HIGHATOMIC),
    Row("thisnode_compacts_only", _since(5, 10, 252), f"{_THISNODE}; Debian changelog of 5.10.257-1", _since(5, 11)),
    Row("thisnode_compacts_only", _since(6, 1, 165), f"{_THISNODE}; Debian changelog of 6.1.170-1", _since(6, 2)),
    Row("thisnode_compacts_only", _since(6, 12, 75), f"{_THISNODE}; Debian changelog of 6.12.85-1", _since(6, 13)),
    # The first patch levels of 6.6, 6.18 and 6.19 with it are not known. Without the rule the model permits more.
    Row("thisnode_compacts_only", _since(6, 19, 14), "the compiled function of 6.19.14-1~bpo13+1"),
    Row("compact_first", _since(7, 0), _FLOW),
    Row("defrag_falls_back_at_once", _since(7, 2), _READ_7_2),
    Row("defrag_promotes", _since(7, 2), _READ_7_2),
)


def slowpath_rules(kernel: str, version: str = "") -> SlowpathRules | None:
    """Return the rules of a release.

    Args:
        kernel: "6.12", "v6.12", "6.12.117", or `uname -r`; without a patch level it means the newest of that series.
        version: `uname -v`, from which Debian's package version is read.

    Returns:
        The rules; None if the release is unknown.
    """
    release = known_release(kernel, version)
    return None if release is None else rules_in(release)


def rules_in(release: Release) -> SlowpathRules:
    """Return the rules of a release that is known."""
    in_force = (row.rule for row in ROWS if row.since <= release and (row.until is None or release < row.until))
    return SlowpathRules(**dict.fromkeys(in_force, True))


def unsure_rules(release: Release | None) -> frozenset[str]:
    """Return the names of the rules that a kernel may or may not have, because its patch level is not known.

    A fix that several stable series took may be in a distribution's kernel of any series between them.

    Args:
        release: the kernel's; None if it is not known.

    Returns:
        Names of attributes of `SlowpathRules`; all that were fixes where the release is not known.
    """
    fixes = {row.rule for row in ROWS if row.until is not None}
    if release is None:
        return frozenset(fixes)
    if release.patch != NEWEST_PATCH:
        return frozenset()
    first = Release(release.major, release.minor, 0)
    taken = {row.rule for row in ROWS if row.until is not None and row.since <= release}
    upstream = {row.rule for row in ROWS if row.until is None and row.since <= first}
    return frozenset(taken - upstream)
