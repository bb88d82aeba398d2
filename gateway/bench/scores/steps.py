"""How a power went from one value to another: against the first-order step of IEEE 1547.1-2020, overshoot, swing."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp
from typing import Final

LN_10: Final = 2.303
"""As the standard writes the natural logarithm of 10."""


def expected_step(elapsed_s: float, from_w: float, to_w: float, tr90_s: float) -> float:
    """y(t) = y0 + (yss - y0) (1 - exp(-2.303 t / Tr)), the open-loop response of IEEE 1547.1-2020."""
    return from_w + (to_w - from_w) * (1.0 - exp(-LN_10 * max(elapsed_s, 0.0) / tr90_s))


def step_shortfall_pu(
    times: Sequence[float],
    values_w: Sequence[float],
    start_s: float,
    until_s: float,
    from_w: float,
    to_w: float,
    tr90_s: float,
) -> float | None:
    """By how much of the step the power was behind the expected one, at the worst instant; 0 where it led throughout.

    None without samples, or without a step.
    """
    first, last = bisect_left(times, start_s), bisect_left(times, until_s)
    height_w = to_w - from_w
    if first >= last or height_w == 0.0:
        return None
    behind = (
        (expected_step(times[index] - start_s, from_w, to_w, tr90_s) - values_w[index]) / height_w
        for index in range(first, last)
    )
    return max(0.0, *behind) if last - first > 1 else max(0.0, next(behind))


def overshoot_pu(
    times: Sequence[float], values_w: Sequence[float], start_s: float, until_s: float, from_w: float, to_w: float
) -> float | None:
    """How far the power went beyond the step's end, in units of the step; None without samples, or without a step."""
    first, last = bisect_left(times, start_s), bisect_left(times, until_s)
    height_w = to_w - from_w
    if first >= last or height_w == 0.0:
        return None
    return max([0.0, *((values_w[index] - to_w) / height_w for index in range(first, last))])


def swing_w(times: Sequence[float], values_w: Sequence[float], from_s: float, until_s: float) -> float | None:
    """Largest less least power of a time; None without samples. A limit cycle shows as a swing that doesn't end."""
    part = values_w[bisect_left(times, from_s) : bisect_left(times, until_s)]
    return max(part) - min(part) if part else None
