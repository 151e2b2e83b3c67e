# SPDX-License-Identifier: MIT
"""Questions to a trace: its calls, filtered and grouped by any fields."""
