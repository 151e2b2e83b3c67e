# SPDX-License-Identifier: MIT
"""Reads the BPF maps."""
