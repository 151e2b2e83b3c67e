# SPDX-License-Identifier: MIT
"""Holds the model against a trace: group, predict once per distinct request, compare."""
