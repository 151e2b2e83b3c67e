# SPDX-License-Identifier: MIT
"""The slow path of the page allocator, functions named as the kernel's."""
