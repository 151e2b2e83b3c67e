# SPDX-License-Identifier: MIT
"""Why an allocation failed or was slow: from a trace, or from a kernel log."""
