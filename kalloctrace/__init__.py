# SPDX-License-Identifier: MIT
"""Records how Linux prepares each page allocation, predicts it, and reports where the two differ."""

from kalloctrace.version import __version__ as __version__
