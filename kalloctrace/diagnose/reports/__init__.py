# SPDX-License-Identifier: MIT
"""The reports of the page allocator in a kernel log: what each says, and which lines are its own."""
