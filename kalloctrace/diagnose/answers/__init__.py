# SPDX-License-Identifier: MIT
"""The questions people ask of a logged failure, answered from what the log shows."""
