# SPDX-License-Identifier: MIT
"""The preparation stage re-implemented: pure functions, named as the kernel names them."""
