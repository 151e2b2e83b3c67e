# SPDX-License-Identifier: MIT
"""A trace as a set of tables for SQL: a folder of Parquet files, or one DuckDB file."""
