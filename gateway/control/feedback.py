"""Feedback at the connection point: the uncontrolled rest by paired sample ages, and a slow integral.

The rest is the meter's reading minus the devices' power at the meter sample's own time. Paired with any other time, a
meter that is older than the devices makes a limit cycle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import exp
from typing import Final

LN_10: Final = 2.302585092994046
HISTORY: Final = 512


@dataclass(slots=True)
class PowerHistory:
    """One device's measured power over time, oldest first, and what it was last asked for."""

    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    powers_w: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))

    def add(self, time_s: float, power_w: float) -> None:
        """Append a sample newer than the last; an older or equal one is ignored."""
        if not self.times_s or time_s > self.times_s[-1]:
            self.times_s.append(time_s)
            self.powers_w.append(power_w)

    def at(self, time_s: float, heading_w: float | None, tr90_s: float) -> float | None:
        """Power at a time: between samples interpolated, before the first one the first one.

        After the last sample the device is taken to move towards `heading_w` with first order response `tr90_s`, or to
        stay where no heading is known. None without any sample.
        """
        times, powers = self.times_s, self.powers_w
        if not times:
            return None
        last_s = times[-1]
        if time_s >= last_s:
            if heading_w is None or time_s == last_s:
                return powers[-1]
            return powers[-1] + (heading_w - powers[-1]) * (1.0 - exp(-LN_10 * (time_s - last_s) / tr90_s))
        after = bisect_right(times, time_s)
        if after == 0:
            return powers[0]
        share = (time_s - times[after - 1]) / (times[after] - times[after - 1])
        return powers[after - 1] + share * (powers[after] - powers[after - 1])


@dataclass(slots=True)
class RestEstimate:
    """The uncontrolled power as an interval; one value while the meter is good, widening while it is not."""

    minimum_w: float
    maximum_w: float
    widens_w_per_s: float
    lower_w: float | None = None
    upper_w: float | None = None
    measured_s: float | None = None

    def measured(self, rest_w: float, measured_s: float) -> None:
        """A new paired reading."""
        self.lower_w = self.upper_w = rest_w
        self.measured_s = measured_s

    def unknown_for(self, dt_s: float) -> None:
        """No good meter for another `dt_s`: widen to the declared extremes, or start from them."""
        if self.lower_w is None or self.upper_w is None:
            self.lower_w, self.upper_w = self.minimum_w, self.maximum_w
            return
        reach = self.widens_w_per_s * dt_s
        self.lower_w = max(self.lower_w - reach, min(self.minimum_w, self.lower_w))
        self.upper_w = min(self.upper_w + reach, max(self.maximum_w, self.upper_w))


@dataclass(slots=True)
class Integral:
    """The slow correction of devices that deliver another power than asked; anti-windup by a bound and by gating."""

    gain_per_s: float
    limit_w: float
    value_w: float = 0.0

    def advance(self, error_w: float, dt_s: float) -> None:
        """Integrate the measured excess of net power over what was intended, once per new meter sample."""
        moved = self.value_w + self.gain_per_s * dt_s * error_w
        self.value_w = min(max(moved, -self.limit_w), self.limit_w)

    def fade(self, dt_s: float) -> None:
        """Forget, while nothing binds."""
        self.value_w *= exp(-dt_s / 2.0)


def settle_time_s(tr90_and_dead_s: Iterable[tuple[float, float]]) -> float:
    """How long after a step the slowest of the devices still moves: dead time and twice Tr90."""
    return max((dead + 2.0 * tr90 for tr90, dead in tr90_and_dead_s), default=0.0)
