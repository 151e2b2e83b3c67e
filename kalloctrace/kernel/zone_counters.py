# SPDX-License-Identifier: MIT
"""Which counters of a zone an old kernel does not have, so that a log without them means 0, not an unknown number."""

from kalloctrace.flags.releases import Release

_SINCE = {
    # 0aaa29a56e4f ("mm, page_alloc: reserve pageblocks for high-order atomic allocations on demand") (in v4.4)
    "reserved_highatomic": Release(4, 4, 0),
    # 47118af076f6 ("mm: mmzone: MIGRATE_CMA migration type added") (in v3.5)
    "free_cma": Release(3, 5, 0),
}


def absent_counters(release: Release | None) -> frozenset[str]:
    """Return the counters, named as in the report of a failed allocation, that a release does not have.

    Args:
        release: as `kalloctrace.flags.releases.upstream_release` returns it; when it is None, no counter is certain to
            be absent.
    """
    return frozenset(name for name, since in _SINCE.items() if release is not None and release < since)
