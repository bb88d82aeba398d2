"""From the samples around a step to what a device's `Response` states: dead time, then first order with Tr90."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from statistics import fmean, pstdev
from typing import Final, NamedTuple

Samples = Sequence[tuple[float, float]]
"""Instants and powers, in order of time."""

_BAND: Final = (0.05, 0.93)
_LEAST_POINTS: Final = 3
_FIT_WITHIN: Final = 0.1
"""Of the time to 90 %: a response that strays further from first order is told by its crossings."""

_AT_10: Final = log10(1.0 / 0.9)
"""Where a first-order response crosses 10 %, in units of Tr90."""


class Seen(NamedTuple):
    """A step as one instrument saw it. `noise_w`: its standard deviation before the step, and once it had settled.

    `period_s`: the mean time between its samples, by which the lag may be wrong.
    """

    change_w: float
    noise_w: float
    dead_time_s: float | None
    tr90_s: float | None
    period_s: float = 0.0

    @property
    def lag_s(self) -> float | None:
        """From the setpoint to 90 % of the step."""
        return None if self.dead_time_s is None or self.tr90_s is None else self.dead_time_s + self.tr90_s


def measure(before: Samples, after: Samples, step_s: float, settle_s: float) -> Seen:
    """The step at `step_s` from samples before it and after it, the last `settle_s` of which count as settled.

    Both need at least one sample. The lag is None where the change does not stand out from the noise.
    """
    base_w = fmean(power for _, power in before)
    end_s = after[-1][0]
    settled = [power for at_s, power in after if at_s >= end_s - settle_s] or [after[-1][1]]
    change_w = fmean(settled) - base_w
    noise_w = max(pstdev(power for _, power in before), pstdev(settled))
    period_s = (end_s - after[0][0]) / max(len(after) - 1, 1)
    if abs(change_w) < max(5.0 * noise_w, 1.0):
        return Seen(change_w, noise_w, None, None, period_s)
    shares = [(at_s - step_s, (power - base_w) / change_w) for at_s, power in after]
    dead_s, tr90_s = lag_of(shares)
    return Seen(change_w, noise_w, dead_s, tr90_s, period_s)


def lag_of(shares: Samples) -> tuple[float, float]:
    """Dead time and Tr90 of a response given as instants since the setpoint and shares of the step done by then."""
    t10_s, t90_s = _crossing(shares, 0.1), _crossing(shares, 0.9)
    fitted = _fit(shares, t90_s)
    if fitted is not None:
        return fitted
    tr90_s = max((t90_s - t10_s) / (1.0 - _AT_10), 1e-3)
    return min(max(t10_s - _AT_10 * tr90_s, 0.0), t90_s), tr90_s


def _fit(shares: Samples, t90_s: float) -> tuple[float, float] | None:
    """First order makes t = dead + Tr90 log10(1 / (1 - share)) a line; None where it is none, or too short."""
    points = [(log10(1.0 / (1.0 - y)), t) for t, y in shares if _BAND[0] <= y <= _BAND[1] and t <= 1.2 * t90_s]
    if len(points) < _LEAST_POINTS:
        return None
    mean_z, mean_t = fmean(z for z, _ in points), fmean(t for _, t in points)
    spread = sum((z - mean_z) ** 2 for z, _ in points)
    if spread <= 0.0:
        return None
    tr90_s = sum((z - mean_z) * (t - mean_t) for z, t in points) / spread
    dead_s = mean_t - tr90_s * mean_z
    strays_s = max(abs(dead_s + tr90_s * z - t) for z, t in points)
    if tr90_s <= 0.0 or strays_s > _FIT_WITHIN * t90_s + 0.01:
        return None
    return max(dead_s, 0.0), tr90_s


def _crossing(shares: Samples, level: float) -> float:
    """When the level is crossed first, between the samples around it; the last instant where it never is."""
    last_t, last_y = 0.0, 0.0
    for t, y in shares:
        if y >= level:
            return last_t + (t - last_t) * (level - last_y) / (y - last_y) if y > last_y else t
        last_t, last_y = t, y
    return last_t
