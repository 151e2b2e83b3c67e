# SPDX-License-Identifier: MIT
"""Records how Linux prepares each page allocation, predicts it, and says where the two differ."""

__version__ = "0.1.0"
