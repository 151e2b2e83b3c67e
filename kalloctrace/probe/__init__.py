# SPDX-License-Identifier: MIT
"""Loads and attaches the BPF program and reads its maps; the only package that uses bcc."""
