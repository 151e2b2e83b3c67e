# SPDX-License-Identifier: MIT
"""Compares a trace with the model: group, predict once for each distinct request, compare."""
