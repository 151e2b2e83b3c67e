# SPDX-License-Identifier: MIT
"""What a person adds to a log that does not show it."""

from dataclasses import dataclass

from kalloctrace.diagnose.reports.model import LoggedFailure
from kalloctrace.flags.textsearch import Found

_OPTION = "option"


@dataclass(frozen=True)
class Given:
    """Facts about the requests of a log; None where the person gives none.

    Attributes:
        gfp: the mask: its names, or its value.
        order: the order.
        page_kb: the kernel's page size in kB.
    """

    gfp: tuple[str, ...] | int | None = None
    order: int | None = None
    page_kb: int | None = None

    def complete(self, logged: LoggedFailure) -> None:
        """Add the mask and the order to a report that lacks them; what it prints holds."""
        if logged.mask is None and self.gfp is not None:
            value, names = (self.gfp, ()) if isinstance(self.gfp, int) else (None, self.gfp)
            logged.mask = Found(
                line=logged.line,
                column=1,
                kind="gfp",
                value=value,
                decoded=None,
                printed=names,
                kernel="",
                source=_OPTION,
                note="",
                form=_OPTION,
            )
        if not logged.order_shown and self.order is not None:
            logged.order, logged.order_shown = self.order, True
