# SPDX-License-Identifier: MIT
"""Facts about one kernel and machine, as one immutable snapshot."""
