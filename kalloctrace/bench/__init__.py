# SPDX-License-Identifier: MIT
"""What tracing adds to an allocation on the machine at hand, for this program and for its peers."""
