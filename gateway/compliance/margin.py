"""Zero export and fuse protection: a margin at the connection point that follows the measured disturbance.

The time that net power spends by how far beyond the aim (the bound less the margin) is kept as a histogram that
forgets. The margin is what all but a stated share of that time lies within: net power is beyond the bound so long.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import exp, inf, isfinite
from typing import Any, Final

from config.compliance import DisturbanceMargin as MarginSettings
from gateway.compliance.frame import ComplianceFunction, Margins, Moment, Ruling

BINS: Final = 64
BESIDE: Final = 2.0
"""Net power counts while it is within so many of the largest margin from the aim: farther off, no bound presses."""

SETTLE_S: Final = 5.0
"""Control needs this long to follow an aim that moved: its own step is no disturbance. The margin moves as rarely."""

MOVED: Final = 0.1
"""Of the largest margin, how far the aim has to move for that."""

LONGEST_STEP_S: Final = 1.0
ENOUGH: Final = 0.1
"""Of the window, how long net power must have been beside a bound for the margin to follow it."""


class MarginState(StrEnum):
    """Whether the margin follows anything yet."""

    DECLARED = "declared margin"
    FOLLOWING = "following the disturbance"


class _Side:
    """One bound's histogram of how far beyond the aim net power was, both counted outwards."""

    def __init__(self, settings: MarginSettings, most_w: float, declared_w: float) -> None:
        self._most_w, self._declared_w = most_w, declared_w
        self._window_s, self._kept = settings.window_s, settings.kept_pu
        self._weights_s = [0.0] * (BINS + 1)
        self._aim_w = inf
        self._settled_s = 0.0
        self._due_s: float | None = None
        self.margin_w = declared_w

    def take(self, bound_w: float, net_w: float | None, now_s: float, dt_s: float) -> None:
        """Time passes under a bound (infinite: none); net power is None where it is not measured."""
        forget = exp(-dt_s / self._window_s)
        self._weights_s = [weight_s * forget for weight_s in self._weights_s]
        if isfinite(bound_w):
            self._look(bound_w - self.margin_w, net_w, now_s, dt_s)
        if self._due_s is None or now_s >= self._due_s:
            self._due_s = now_s + SETTLE_S
            self.margin_w = max(self._within_w(), self._declared_w)

    def _look(self, aim_w: float, net_w: float | None, now_s: float, dt_s: float) -> None:
        if abs(aim_w - self._aim_w) > MOVED * self._most_w:
            self._aim_w, self._settled_s = aim_w, now_s + SETTLE_S
        if net_w is None or now_s < self._settled_s or abs(net_w - aim_w) > BESIDE * self._most_w:
            return
        index = int(max(net_w - aim_w, 0.0) / self._most_w * BINS)
        self._weights_s[min(index, BINS)] += dt_s

    def _within_w(self) -> float:
        beyond_s, total_s = 0.0, sum(self._weights_s)
        if total_s < ENOUGH * self._window_s:
            return 0.0
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
        self._upper = _Side(settings, most_w, declared_w)
        self._lower = _Side(settings, most_w, declared_w)
        self._last_s: float | None = None

    def _advance(self, moment: Moment) -> None:
        now_s, net_w = moment.now_s, moment.measured_net_w
        dt_s = 0.0 if self._last_s is None else min(max(now_s - self._last_s, 0.0), LONGEST_STEP_S)
        self._last_s = now_s
        self._upper.take(moment.upper_w, net_w, now_s, dt_s)
        self._lower.take(-moment.lower_w, None if net_w is None else -net_w, now_s, dt_s)
        widest_w = max(self._upper.margin_w, self._lower.margin_w)
        state = MarginState.FOLLOWING if widest_w > self._declared_w else MarginState.DECLARED
        if state is not self._state:
            self._to(state, now_s, "margin by measured disturbance", f"{widest_w:.0f} W")

    def rule(self, moment: Moment) -> Ruling:
        """The margins; no bound of its own."""
        upper_w, lower_w = self._upper.margin_w, self._lower.margin_w
        margins = Margins(lower_w, upper_w, self.state)
        return self._ruling(False, margins=margins, facts={"lower_w": lower_w, "upper_w": upper_w})

    def dump(self, now_s: float, utc_s: float) -> dict[str, Any]:
        """Nothing: a disturbance is measured anew."""
        return {}

    def restore(self, dumped: Mapping[str, Any], now_s: float, utc_s: float) -> None:
        """Nothing to take up."""
