# SPDX-License-Identifier: MIT
"""A recording in progress, as a Textual screen or as text."""
