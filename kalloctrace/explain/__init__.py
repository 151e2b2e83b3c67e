# SPDX-License-Identifier: MIT
"""One request, followed through the preparation stage rule by rule."""
