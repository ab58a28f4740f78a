"""How many cases hypothesis tries of a property."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

THOROUGH = os.environ.get("CASES") == "thorough"

QUICK_SHARE = 4


def cases(count: int, **more: Any) -> settings:
    """`count` of them, others in each run, where CASES=thorough; else a quarter, always the same
    ones, so that a change that has nothing to do with a property can't fail by it."""
    return settings(
        max_examples=count if THOROUGH else max(10, count // QUICK_SHARE),
        deadline=None,
        derandomize=not THOROUGH,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )
