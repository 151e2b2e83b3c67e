# SPDX-License-Identifier: MIT
"""A kernel log in any wrapping becomes plain kernel messages."""
