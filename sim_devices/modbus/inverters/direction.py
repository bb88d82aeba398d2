"""Which way power flows, for status registers: a model approaches its setpoint exponentially and never reaches zero."""

from __future__ import annotations

from typing import Final

IDLE_W: Final = 1.0


def direction(power_w: float) -> int:
    """1 consuming, -1 generating, 0 neither."""
    if abs(power_w) < IDLE_W:
        return 0
    return 1 if power_w > 0 else -1
