# SPDX-License-Identifier: MIT
"""Real kernels in virtual machines: get one, boot it, run a command in it, bring back what it did."""
