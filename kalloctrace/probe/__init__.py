# SPDX-License-Identifier: MIT
"""Loads, attaches and drains the BPF programs; the only place that knows bcc."""
