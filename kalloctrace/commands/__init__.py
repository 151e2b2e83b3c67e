# SPDX-License-Identifier: MIT
"""One module per sub-command; each defines `command`."""
