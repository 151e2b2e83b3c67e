# SPDX-License-Identifier: MIT
"""Real kernels in virtual machines: fetch one, boot it, run a command in it, and bring back its output and files."""
