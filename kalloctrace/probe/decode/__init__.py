# SPDX-License-Identifier: MIT
"""What the BPF programs recorded, as columns of a trace."""
