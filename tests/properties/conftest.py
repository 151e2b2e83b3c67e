# SPDX-License-Identifier: MIT
"""How many logs are drawn: a few, or so many as KALLOCTRACE_EXAMPLES says."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "logs",
    max_examples=int(os.environ.get("KALLOCTRACE_EXAMPLES") or 100),
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("logs")
