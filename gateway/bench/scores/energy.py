"""Energy that was taken, that was missing, what it cost, and how far power was from its target."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from gateway.bench.metrics import MAX_GAP_S


@dataclass(frozen=True, slots=True)
class TrackingError:
    """Distance from a target over time, in watts, weighted by time."""

    mean_w: float
    rms_w: float
    worst_w: float


class PriceStep(NamedTuple):
    """From `start_s` on, what a kWh taken costs and what one given earns."""

    start_s: float
    import_per_kwh: float
    export_per_kwh: float


def tracking_error(
    times: Sequence[float], values_w: Sequence[float], targets_w: Sequence[float | None]
) -> TrackingError | None:
    """How far the power was from its target, where it had one; None where it never had."""
    total = squares = measured_s = worst_w = 0.0
    for index in range(len(times) - 1):
        target_w, step_s = targets_w[index], times[index + 1] - times[index]
        if target_w is None or step_s > MAX_GAP_S:
            continue
        error_w = abs(values_w[index] - target_w)
        total += error_w * step_s
        squares += error_w * error_w * step_s
        worst_w = max(worst_w, error_w)
        measured_s += step_s
    return TrackingError(total / measured_s, sqrt(squares / measured_s), worst_w) if measured_s else None


def energy_taken_wh(times: Sequence[float], power_w: Sequence[float], from_s: float, until_s: float) -> float:
    """Energy taken less energy given between two instants; holes add nothing."""
    total_ws = 0.0
    for index in range(bisect_left(times, from_s), min(bisect_left(times, until_s), len(times) - 1)):
        step_s = times[index + 1] - times[index]
        if step_s <= MAX_GAP_S:
            total_ws += power_w[index] * (min(times[index + 1], until_s) - times[index])
    return total_ws / 3600.0


def unserved_wh(needed_wh: float, taken_wh: float) -> float:
    """What was needed and not taken; taking more than was needed makes up for nothing else."""
    return max(0.0, needed_wh - taken_wh)


def energy_cost(times: Sequence[float], net_w: Sequence[float], prices: Sequence[PriceStep]) -> float:
    """What the net energy cost, in the currency of the prices; earnings count against it.

    `prices` in the order of time; before the first one, energy costs nothing.
    """
    starts = [step.start_s for step in prices]
    cost = 0.0
    for index in range(len(times) - 1):
        step_s = times[index + 1] - times[index]
        place = bisect_right(starts, times[index]) - 1
        if step_s > MAX_GAP_S or place < 0:
            continue
        price = prices[place].import_per_kwh if net_w[index] > 0 else prices[place].export_per_kwh
        cost += net_w[index] * step_s / 3.6e6 * price
    return cost
