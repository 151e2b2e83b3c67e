# SPDX-License-Identifier: MIT
"""The traces of a fleet as one dataset of Parquet files, and the questions about it."""
