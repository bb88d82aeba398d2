"""Feedback at the connection point: the uncontrolled rest, and a slow integral.

The rest is the meter's reading minus the devices' power at the meter sample's own time. Paired with any other time, a
meter that is older than the devices makes a limit cycle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp
from typing import Final

RESPONSES_PER_INTEGRAL: Final = 8.0
"""The integral takes at least so many responses of the slowest device, so that its lag cannot make it swing."""


@dataclass(slots=True)
class RestEstimate:
    """The uncontrolled power as an interval; one value while the meter is good, widening while it is not."""

    minimum_w: float
    maximum_w: float
    widens_w_per_s: float
    lower_w: float | None = None
    upper_w: float | None = None
    measured_s: float | None = None
    known: bool = False

    def measured(self, low_w: float, expected_w: float, high_w: float) -> None:
        """A new paired reading, which leaves the rest between `low_w` and `high_w`.

        The estimate moves only as far as it must to be possible. What a device may do within the doubt about its lag
        is then never taken for a change of the rest, and the error never grows: no gain, no swing.
        """
        value_w = expected_w
        if self.known and self.lower_w is not None:
            value_w = min(max(self.lower_w, low_w), high_w)
        self.lower_w = self.upper_w = value_w
        self.known = True

    def assume(self, value_w: float) -> None:
        """Take the rest to have been this, without a reading."""
        self.lower_w = self.upper_w = value_w

    def moved(self, by_w: float) -> None:
        """Devices have left the sharing, or come back to it, with so much power."""
        if self.lower_w is not None and self.upper_w is not None:
            self.lower_w += by_w
            self.upper_w += by_w

    def unknown_for(self, dt_s: float) -> None:
        """No good meter for another `dt_s`: widen to the declared extremes, or start from them."""
        self.known = False
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

    def advance(self, error_w: float, dt_s: float, slowest_s: float) -> None:
        """Integrate the measured excess of net power over what was intended, once per new meter sample.

        `slowest_s`: dead time and Tr90 of the slowest device that is corrected.
        """
        gain = min(self.gain_per_s, 1.0 / (RESPONSES_PER_INTEGRAL * slowest_s)) if slowest_s > 0.0 else self.gain_per_s
        moved = self.value_w + min(gain * dt_s, 1.0) * error_w
        self.value_w = min(max(moved, -self.limit_w), self.limit_w)

    def fade(self, dt_s: float) -> None:
        """Forget, while nothing binds."""
        self.value_w *= exp(-dt_s / 2.0)


def slowest_s(tr90_and_dead_s: Iterable[tuple[float, float]]) -> float:
    """The longest response, dead time and Tr90."""
    return max((dead + tr90 for tr90, dead in tr90_and_dead_s), default=0.0)
