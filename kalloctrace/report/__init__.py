# SPDX-License-Identifier: MIT
"""Reporters: a trace or a verdict in, text, a page or a file for another tool out."""
