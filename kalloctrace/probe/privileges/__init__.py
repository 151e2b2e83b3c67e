# SPDX-License-Identifier: MIT
"""What this process may do: capabilities, and the restrictions it puts on itself once everything is attached.

These are a few system calls, made through ctypes: PyPI's pyseccomp and python-prctl had their last release in 2021 and
2020, landlock is a development version, and none sets capabilities.
"""
