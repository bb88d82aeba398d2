"""How well a regulation signal was followed: the performance score of PJM Manual 12, section 4.5.6.

Correlation, delay and precision, each at most 1. Both sides are averaged over the same intervals first: a signal that
changes every 2 s held against a 10 s mean would count its own movement as an error of the response.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Final

from gateway.bench.metrics import MAX_GAP_S

AVERAGE_S: Final = 10.0
WINDOW_S: Final = 300.0
LONGEST_SHIFT_S: Final = 300.0

FLAT_PU: Final = 0.01
"""A side whose standard deviation is below this share of the signal's largest value has no shape to correlate."""

LEAST_MEASURED: Final = 0.5
"""An interval of which less than this was measured has no mean."""


@dataclass(frozen=True, slots=True)
class RegulationScore:
    """The three parts and how many windows were scored. `precision` is below 0 where the error exceeds the signal."""

    correlation: float
    delay: float
    precision: float
    windows: int

    @property
    def score(self) -> float:
        """Their mean. Doing nothing scores 0.67 on a slow signal, so precision is gated on by itself."""
        return (self.correlation + self.delay + self.precision) / 3.0


def regulation_score(
    times: Sequence[float],
    signal_w: Sequence[float],
    response_w: Sequence[float],
    *,
    average_s: float = AVERAGE_S,
    window_s: float = WINDOW_S,
    longest_shift_s: float = LONGEST_SHIFT_S,
) -> RegulationScore | None:
    """The score of a response against what the signal asked for; None where no window was measured as a whole.

    A window needs the record of the response up to `longest_shift_s` beyond its end, so the last ones aren't scored.

    In each window the response is shifted from 0 to `longest_shift_s`: correlation is the largest Pearson r of all
    shifts, delay is |shift - longest| / longest at the shift with the largest sum of both. Precision is taken over all
    of the record at no shift: 1 - mean |response - signal| / mean |signal|.
    """
    if not times:
        return None
    end_s = times[-1]
    signal = averaged(times, signal_w, times[0], end_s, average_s)
    response = averaged(times, response_w, times[0], end_s, average_s)
    precision = _precision(signal, response)
    length, shifts = round(window_s / average_s), round(longest_shift_s / average_s)
    scale_w = max((abs(value) for value in signal if value is not None), default=0.0)
    scored = [
        found
        for start in range(0, len(signal) - length - shifts + 1, length)
        if (found := _window(signal[start : start + length], response[start:], shifts, scale_w)) is not None
    ]
    if precision is None or not scored:
        return None
    correlations, delays = zip(*scored, strict=True)
    return RegulationScore(sum(correlations) / len(scored), sum(delays) / len(scored), precision, len(scored))


def averaged(
    times: Sequence[float], values: Sequence[float], from_s: float, until_s: float, width_s: float
) -> list[float | None]:
    """Time-weighted means over equal intervals; None where less than half of one was measured."""
    count = int((until_s - from_s) / width_s + 1e-6)
    sums, weights = [0.0] * count, [0.0] * count
    first = bisect_left(times, from_s)
    for index in range(first, len(times) - 1):
        start_s, end_s = times[index], min(times[index + 1], until_s)
        if times[index + 1] - start_s > MAX_GAP_S:
            continue
        while start_s < end_s:
            place = int((start_s - from_s) / width_s + 1e-9)
            if place >= count:
                break
            step_s = min(end_s, from_s + (place + 1) * width_s) - start_s
            sums[place] += values[index] * step_s
            weights[place] += step_s
            start_s += max(step_s, 1e-9)
    return [
        total / weight if weight >= LEAST_MEASURED * width_s else None
        for total, weight in zip(sums, weights, strict=True)
    ]


def _precision(signal: Sequence[float | None], response: Sequence[float | None]) -> float | None:
    pairs = [(s, r) for s, r in zip(signal, response, strict=True) if s is not None and r is not None]
    asked = sum(abs(s) for s, _ in pairs)
    return 1.0 - sum(abs(r - s) for s, r in pairs) / asked if asked else None


def _window(
    signal: Sequence[float | None], response: Sequence[float | None], shifts: int, scale_w: float
) -> tuple[float, float] | None:
    """Correlation and delay of one window; `response` begins with the window and goes on beyond it."""
    asked = [value for value in signal if value is not None]
    if len(asked) < len(signal):
        return None
    found: list[tuple[float, float]] = []
    for shift in range(shifts + 1):
        given = [value for value in response[shift : shift + len(asked)] if value is not None]
        if len(given) == len(asked):
            delay = (shifts - shift) / shifts if shifts else 1.0
            found.append((_correlation(asked, given, scale_w), delay))
    if not found:
        return None
    return max(c for c, _ in found), max(found, key=sum)[1]


def _correlation(signal: Sequence[float], response: Sequence[float], scale_w: float) -> float:
    """Pearson's r; where a side is flat, 1 less the difference of the slopes per interval, in units of the scale."""
    deviations = [[value - sum(side) / len(side) for value in side] for side in (signal, response)]
    spreads = [sqrt(sum(value * value for value in side) / len(side)) for side in deviations]
    if min(spreads) > FLAT_PU * scale_w:
        product: float = sum(s * r for s, r in zip(*deviations, strict=True)) / len(signal)
        return product / (spreads[0] * spreads[1])
    if scale_w == 0.0:
        return 1.0
    return max(0.0, 1.0 - abs(_slope(signal) - _slope(response)) / scale_w)


def _slope(values: Sequence[float]) -> float:
    """The mean change from one value to the next."""
    steps = [after - before for before, after in pairwise(values)]
    return sum(steps) / len(steps) if steps else 0.0
