"""Figures of merit over sampled power: pure functions, nothing read and nothing written.

A sample holds until the next one. Where samples are further apart than `MAX_GAP_S` nothing was measured in between, and
that time counts for nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

BAND_PU: Final = 0.01
"""Tolerance around a limit or a target, per unit of the connection rating."""

HOLD_S: Final = 0.5
"""How long power has to stay inside the band to count as settled."""

GRACE_S: Final = 0.5
"""How long a bound has to have been in force before crossing it counts as an excursion."""

MAX_GAP_S: Final = 0.5
"""Samples further apart than this have a hole between them."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Nearest-rank percentiles of a figure, in its own unit; None where nothing was measured."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Excursion:
    """One unbroken time beyond a bound. The energy and the peak are what lies beyond the bound itself."""

    start_s: float
    duration_s: float
    energy_wh: float
    peak_w: float


def percentile(values: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile: the smallest value that at least `share` (0 to 1) of the values do not exceed."""
    if not values:
        return None
    # 0.07 * 100 is a little above 7; the rank must not rise by one for that.
    rank = math.ceil(round(share * len(values), 9))
    return sorted(values)[max(rank, 1) - 1]


def spread(values: Iterable[float]) -> Spread:
    """Median, 99th percentile and maximum."""
    ordered = sorted(values)
    return Spread(percentile(ordered, 0.5), percentile(ordered, 0.99), ordered[-1] if ordered else None)


def settled_s(
    times: Sequence[float],
    errors: Sequence[float],
    from_s: float,
    until_s: float,
    band: float,
    hold_s: float = HOLD_S,
) -> float | None:
    """Seconds after `from_s` until the error comes within `band` and stays there for `hold_s`.

    `errors` are magnitudes at `times`. 0 where it is within from the first sample on; None where it never settles
    before `until_s`, or samples are missing.
    """
    first = bisect_left(times, from_s)
    entered: float | None = None
    previous: float | None = None
    for index in range(first, bisect_left(times, until_s)):
        now = times[index]
        if errors[index] > band:
            entered = None
        elif entered is None or (previous is not None and now - previous > MAX_GAP_S):
            entered = now
        previous = now
        if entered is not None and now - entered >= hold_s - 1e-9:
            return 0.0 if entered == times[first] else entered - from_s
    return None


def mean_error(times: Sequence[float], errors: Sequence[float], from_s: float, until_s: float) -> float | None:
    """Time-weighted mean of the error between two instants; None where nothing was measured in between."""
    weighted = measured = 0.0
    for index in range(bisect_left(times, from_s), min(bisect_left(times, until_s), len(times) - 1)):
        step = min(times[index + 1], until_s) - times[index]
        if step <= MAX_GAP_S:
            weighted += errors[index] * step
            measured += step
    return weighted / measured if measured else None


def excursions(times: Sequence[float], excess: Sequence[float | None], tolerance: float) -> list[Excursion]:
    """Every unbroken run of samples beyond a bound by more than `tolerance`.

    `excess` is the power beyond the bound in W, negative inside it, None where nothing is judged.
    """
    found: list[Excursion] = []
    start: float | None = None
    energy_ws = peak = 0.0
    for index, now in enumerate(times):
        beyond = excess[index]
        if beyond is not None and beyond > tolerance:
            if start is None:
                start, energy_ws, peak = now, 0.0, 0.0
            peak = max(peak, beyond)
            step = times[index + 1] - now if index + 1 < len(times) else 0.0
            if step <= MAX_GAP_S:
                energy_ws += beyond * step
                continue
            end = now
        elif start is not None:
            end = now
        else:
            continue
        found.append(Excursion(start, end - start, energy_ws / 3600.0, peak))
        start = None
    if start is not None:
        found.append(Excursion(start, times[-1] - start, energy_ws / 3600.0, peak))
    return found


def energy_wh(times: Sequence[float], power_w: Sequence[float]) -> list[float]:
    """Energy since the first sample at each sample, in Wh; holes add nothing."""
    total = 0.0
    result: list[float] = []
    for index, now in enumerate(times):
        if index:
            step = now - times[index - 1]
            total += power_w[index - 1] * step / 3600.0 if step <= MAX_GAP_S else 0.0
        result.append(total)
    return result
