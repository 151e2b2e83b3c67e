# SPDX-License-Identifier: MIT
"""The trace file: schema, writer, reader."""
