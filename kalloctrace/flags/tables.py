# SPDX-License-Identifier: MIT
"""The flag tables of one kernel."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from kalloctrace.errors import Exit, KalloctraceError
from kalloctrace.flags.bits import FlagBits

Named = tuple[tuple[str, int], ...]

# Members of `enum migratetype` that mark the end of a range and are not types.
_MIGRATETYPE_MARKS = ("MIGRATE_PCPTYPES", "__MIGRATE_TYPE_END", "MIGRATE_TYPES")

# mm/page_alloc.c, zone_names[]: the names in /proc/zoneinfo of the members of `enum zone_type`.
_ZONE_NAMES = {
    "ZONE_DMA": "DMA",
    "ZONE_DMA32": "DMA32",
    "ZONE_NORMAL": "Normal",
    "ZONE_HIGHMEM": "HighMem",
    "ZONE_MOVABLE": "Movable",
    "ZONE_DEVICE": "Device",
}

_NAMED_FIELDS = ("gfp_print", "gfp_bits", "alloc", "migratetype", "zone_type", "zone_watermarks", "pf")


@dataclass(frozen=True)
class FlagTables:
    """The names of one kernel's flags; every value is an unsigned 32-bit number.

    Attributes:
        kernel: "5.10" for built-in rows, the full release for tables read from a kernel.
        source: "builtin", "tracefs" or "btf"; several sources are joined by "+".
        gfp_print: names and masks in the order in which the kernel's `%pGg` walks them.
        gfp_bits: all single gfp bits of this kernel in ascending order.
        alloc: the three watermarks (an index in the two low bits), then the ALLOC_* bits in ascending order.
        migratetype: `enum migratetype`, with its aliases.
        zone_type: `enum zone_type`.
        zone_watermarks: `enum zone_watermarks`.
        pf: the PF_* bits that change what an allocation may do.
    """

    kernel: str
    source: str
    gfp_print: Named
    gfp_bits: Named
    alloc: Named
    migratetype: Named
    zone_type: Named
    zone_watermarks: Named
    pf: Named

    @cached_property
    def _gfp_values(self) -> dict[str, int]:
        return {**dict(self.gfp_print), **dict(self.gfp_bits)}

    @cached_property
    def bits(self) -> FlagBits:
        """The values of the flags that the model tests or sets.

        Raises:
            KalloctraceError: a flag is missing that every kernel has.
        """
        return FlagBits.of(self)

    def gfp(self, name: str) -> int:
        """Return the value of a gfp bit or compound (`gfp_t`).

        Args:
            name: "__GFP_IO", "GFP_KERNEL".

        Raises:
            KalloctraceError: this kernel has no such flag; `has_gfp` tests for it.
        """
        try:
            return self._gfp_values[name]
        except KeyError:
            raise KalloctraceError(
                f"there is no gfp flag {name}",
                f"kernel {self.kernel} does not have it",
                "check the name, or choose another kernel",
                Exit.USAGE,
            ) from None

    def has_gfp(self, name: str) -> bool:
        """Return whether this kernel has a gfp bit or compound of this name."""
        return name in self._gfp_values

    def gfp_of(self, names: Iterable[str]) -> int:
        """Return the mask that names of bits and compounds make; names that this kernel lacks add nothing."""
        mask = 0
        for name in names:
            mask |= self._gfp_values.get(name, 0)
        return mask

    def migratetype_name(self, value: int) -> str:
        """Return the name of a migratetype, such as "MIGRATE_MOVABLE"; for an unknown one the number as text."""
        return next(
            (name for name, member in self.migratetype if member == value and name not in _MIGRATETYPE_MARKS),
            str(value),
        )

    def zone_name(self, index: int) -> str:
        """Return the name of a zone as in /proc/zoneinfo, such as "Normal"; for an unknown one the index as text."""
        return next((_ZONE_NAMES[name] for name, member in self._zones if member == index), str(index))

    def zone_index(self, name: str) -> int | None:
        """Return the index (`enum zone_type`) of a zone named as in /proc/zoneinfo; None for an unknown name."""
        return next((member for zone, member in self._zones if _ZONE_NAMES[zone] == name), None)

    @property
    def zone_names(self) -> list[str]:
        """The names of this kernel's zones, as in /proc/zoneinfo."""
        return [_ZONE_NAMES[name] for name, _ in self._zones]

    @property
    def _zones(self) -> Named:
        return tuple(entry for entry in self.zone_type if entry[0] in _ZONE_NAMES)

    def to_json(self) -> dict[str, object]:
        """Return the tables as JSON values."""
        listed = {field: [list(entry) for entry in getattr(self, field)] for field in _NAMED_FIELDS}
        return {"kernel": self.kernel, "source": self.source, **listed}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "FlagTables":
        """Build the tables from the result of `to_json`.

        Raises:
            KalloctraceError: a table is missing, or is not a list of names and numbers.
        """
        kernel, source = data.get("kernel"), data.get("source")
        if not isinstance(kernel, str) or not isinstance(source, str):
            raise _bad_tables("kernel" if not isinstance(kernel, str) else "source")
        return cls(kernel, source, *(_named(field, data.get(field)) for field in _NAMED_FIELDS))


def _named(field: str, data: object) -> Named:
    if not isinstance(data, list | tuple):
        raise _bad_tables(field)
    entries: list[tuple[str, int]] = []
    for entry in data:
        match entry:
            case [str(name), int(value)] if not isinstance(value, bool):
                entries.append((name, value))
            case _:
                raise _bad_tables(field)
    return tuple(entries)


def _bad_tables(field: str) -> KalloctraceError:
    return KalloctraceError(
        "cannot read the flag tables",
        f"{field} is missing or malformed",
        "record the trace again, or read it with the version of kalloctrace that wrote it",
    )
