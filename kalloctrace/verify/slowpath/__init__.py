# SPDX-License-Identifier: MIT
"""The slow path: recorded attempts against the model."""
