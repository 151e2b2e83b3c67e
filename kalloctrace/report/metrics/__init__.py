# SPDX-License-Identifier: MIT
"""Metrics of a recording, in the Prometheus format."""
