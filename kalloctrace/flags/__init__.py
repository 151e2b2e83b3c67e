# SPDX-License-Identifier: MIT
"""What each bit means on which kernel: gfp, alloc_flags, migratetypes, zones, watermarks, PF_* scope bits."""
