# SPDX-License-Identifier: MIT
"""Ways in which the terminal of `kalloctrace live` disappears or stops, and signals at bad moments."""
