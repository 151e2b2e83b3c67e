# SPDX-License-Identifier: MIT
"""The meaning of each bit by kernel: gfp, alloc_flags, migratetypes, zones, watermarks, PF_* scope bits."""
