"""Waiting for what another thread or process does, without trusting the machine's speed."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 120  # a machine that takes longer is no machine for tests


def until(true: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
    """Wait until something is true; whether it came true in time."""
    end = time.monotonic() + patience_s
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
