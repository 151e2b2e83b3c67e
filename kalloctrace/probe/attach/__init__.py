# SPDX-License-Identifier: MIT
"""Decides what to attach, loads the program and attaches it."""
