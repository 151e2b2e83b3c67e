# SPDX-License-Identifier: MIT
"""A kernel as its log shows it: a release, and what follows from that."""

from dataclasses import dataclass, replace
from functools import lru_cache

from kalloctrace.flags.builtin import builtin_tables, known_release, tables_of
from kalloctrace.flags.releases import Release, parse_release, upstream_release
from kalloctrace.flags.tables import FlagTables
from kalloctrace.kernel.builtin import OLD_STAND_IN, features_in
from kalloctrace.kernel.machine import machine_of
from kalloctrace.kernel.slowpath_rules import SlowpathRules, rules_in, unsure_rules
from kalloctrace.kernel.snapshot import Snapshot
from kalloctrace.kernel.watermark_rules import WatermarkRules, watermark_rules
from kalloctrace.kernel.zone_counters import absent_counters

_OLD_RELEASE = Release(*map(int, OLD_STAND_IN.split(".")))


@dataclass(frozen=True, eq=False, slots=True)
class LoggedKernel:
    """What is known of the kernel that printed a log.

    Attributes:
        release: `uname -r`, or a release such as "5.10"; "" if unknown.
        tables: its flags; None if unknown, as for old releases.
        snapshot: the kernel without zones. Unknown flags and features are those of the stand-in for old kernels.
        watermarks: its watermark check.
        slowpath: its slow path.
        unsure: members of `slowpath` that the release may or may not have.
        absent_counters: zone counters that it does not have, so that its log cannot show them.
        parsed: the release as a number, also of a vendor that moves code between releases; None if unknown.
    """

    release: str
    tables: FlagTables | None
    snapshot: Snapshot
    watermarks: WatermarkRules
    slowpath: SlowpathRules
    unsure: frozenset[str]
    absent_counters: frozenset[str]
    parsed: Release | None


@lru_cache(maxsize=8)
def logged_kernel(release: str, version: str, tables: FlagTables | None = None) -> LoggedKernel:
    """Return what a release shows about its kernel; the result is cached.

    A log does not show CONFIG_CMA. With it ALLOC_CMA opens the CMA pages that the log counts, 0 without it.

    Args:
        release: `uname -r`, or a release such as "5.10"; "" if unknown.
        version: `uname -v`; "" if unknown.
        tables: its flags, if they are known better than by its release.
    """
    known, parsed, upstream = (
        known_release(release, version),
        parse_release(release, version),
        upstream_release(release, version),
    )
    if tables is None and known is not None:
        tables = tables_of(known)
    flags = tables or builtin_tables(OLD_STAND_IN)
    features = features_in(known or _OLD_RELEASE)
    machine = machine_of({0: ()}, gfp_allowed_mask=0)
    return LoggedKernel(
        release=release,
        tables=tables,
        snapshot=Snapshot(release, version, replace(features, config_cma=True), flags, machine),
        watermarks=watermark_rules(upstream),
        slowpath=SlowpathRules() if known is None else rules_in(known),
        unsure=unsure_rules(known),
        absent_counters=absent_counters(upstream),
        parsed=parsed,
    )
