# SPDX-License-Identifier: MIT
"""Compares the recorded attempts of the slow path with the model."""
