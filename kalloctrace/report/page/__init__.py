# SPDX-License-Identifier: MIT
"""A trace as one HTML file that opens from disk and makes no network requests."""
