"""Zero export and fuse protection: a margin at the connection point that follows the measured disturbance.

The time that net power spends by how far beyond the aim (the bound less the margin) is kept as a histogram that
forgets. The margin is what all but a stated share of that time lies within: net power is beyond the bound so long.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import exp, isfinite
from typing import Any, Final

from config.compliance import DisturbanceMargin as MarginSettings
from gateway.compliance.frame import ComplianceFunction, Margins, Moment, Ruling

BINS: Final = 64
BESIDE: Final = 2.0
"""Net power counts while it is within so many of the largest margin from the aim: farther off, no bound presses."""

LONGEST_STEP_S: Final = 1.0
ENOUGH: Final = 0.1
"""Of the window, how long net power must have been beside a bound for the margin to follow it."""


class MarginState(StrEnum):
    """Whether the margin follows anything yet."""

    DECLARED = "declared margin"
    FOLLOWING = "following the disturbance"


class _Side:
    """One bound's histogram of how far beyond the aim net power was; `excess_w` up to the largest margin counted."""

    def __init__(self, most_w: float, window_s: float, kept: float) -> None:
        self._most_w, self._window_s, self._kept = most_w, window_s, kept
        self._weights_s = [0.0] * (BINS + 1)
        self.margin_w = 0.0

    @property
    def enough(self) -> bool:
        """Whether there is a statistic to go by."""
        return sum(self._weights_s) >= ENOUGH * self._window_s

    def take(self, excess_w: float | None, dt_s: float) -> None:
        """Time passes; `excess_w` beyond the aim, None where nothing was measured or no bound was near."""
        forget = exp(-dt_s / self._window_s)
        self._weights_s = [weight_s * forget for weight_s in self._weights_s]
        if excess_w is not None and abs(excess_w) <= BESIDE * self._most_w:
            index = int(max(excess_w, 0.0) / self._most_w * BINS)
            self._weights_s[min(index, BINS)] += dt_s
        self.margin_w = self._within_w() if self.enough else 0.0

    def _within_w(self) -> float:
        beyond_s, total_s = 0.0, sum(self._weights_s)
        for index in range(BINS, 0, -1):
            beyond_s += self._weights_s[index]
            if beyond_s > (1.0 - self._kept) * total_s:
                return min((index + 1) / BINS, 1.0) * self._most_w
        return 0.0


class DisturbanceMargin(ComplianceFunction):
    """Margins inside both bounds on net power; never above the largest, and never less than the declared one."""

    def __init__(self, settings: MarginSettings, rating_w: float, declared_w: float) -> None:
        super().__init__("disturbance_margin", MarginState.DECLARED)
        self._declared_w = declared_w
        most_w = max(settings.most_pu * rating_w, declared_w)
        self._upper = _Side(most_w, settings.window_s, settings.kept_pu)
        self._lower = _Side(most_w, settings.window_s, settings.kept_pu)
        self._last_s: float | None = None

    def _advance(self, moment: Moment) -> None:
        dt_s = 0.0 if self._last_s is None else min(max(moment.now_s - self._last_s, 0.0), LONGEST_STEP_S)
        self._last_s = moment.now_s
        net_w = moment.measured_net_w
        upper_w, lower_w = self._margins()
        beyond_w = below_w = None
        if net_w is not None and isfinite(moment.upper_w):
            beyond_w = net_w - (moment.upper_w - upper_w)
        if net_w is not None and isfinite(moment.lower_w):
            below_w = moment.lower_w + lower_w - net_w
        self._upper.take(beyond_w, dt_s)
        self._lower.take(below_w, dt_s)
        follows = max(self._upper.margin_w, self._lower.margin_w) > self._declared_w
        state = MarginState.FOLLOWING if follows else MarginState.DECLARED
        if state is not self._state:
            self._to(state, moment.now_s, "margin by measured disturbance", f"{max(self._margins()):.0f} W")

    def _margins(self) -> tuple[float, float]:
        return max(self._upper.margin_w, self._declared_w), max(self._lower.margin_w, self._declared_w)

    def rule(self, moment: Moment) -> Ruling:
        """The margins; no bound of its own."""
        upper_w, lower_w = self._margins()
        margins = Margins(lower_w, upper_w, self.state)
        return self._ruling(False, margins=margins, facts={"lower_w": lower_w, "upper_w": upper_w})

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """Nothing: a disturbance is measured anew."""
        return {}

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Nothing to take up."""
