# SPDX-License-Identifier: MIT
"""A recording under way, as a Textual screen or as text."""
