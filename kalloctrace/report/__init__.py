# SPDX-License-Identifier: MIT
"""Reporters: loaded data in, text out."""
