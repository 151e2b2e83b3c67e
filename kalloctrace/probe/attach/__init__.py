# SPDX-License-Identifier: MIT
"""What to attach, and how."""
