# SPDX-License-Identifier: MIT
"""A recording that never ends: a service that writes segments, within bounds.

A small process with all privileges (`service.py`) reads the configuration, talks to the service manager and starts a
worker (`worker.py`), which attaches, gives up its privileges and records. To attach again takes a new worker.
"""
