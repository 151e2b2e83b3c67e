# SPDX-License-Identifier: MIT
"""The BPF maps that user space reads."""
