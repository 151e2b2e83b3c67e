# SPDX-License-Identifier: MIT
"""How many logs are made: a few in every run, the same ones; many with KALLOCTRACE_LOGS=many."""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "few",
    max_examples=30,
    derandomize=True,
    deadline=None,
    database=None,
    # KALLOCTRACE_LOGS=many makes an example small.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "many", max_examples=5000, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("KALLOCTRACE_LOGS", "few"))
