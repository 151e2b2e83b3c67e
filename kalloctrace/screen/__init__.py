# SPDX-License-Identifier: MIT
"""A recording under way, as a screen that updates or as text."""
