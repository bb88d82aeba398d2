"""What each child was measured to take over an interval, held against what it was dispatched to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

TRUSTED_AFTER: Final = 2
"""Intervals in which a child does what it is asked, before the whole of its offer counts again."""

LEAST_SHARE: Final = 0.5
"""Of an interval, measured: less says nothing of a delivery."""

LONGEST_S: Final = 3.5
"""A sample of telemetry stands for this long at most; then the child counts as silent."""


class Shortfall(NamedTuple):
    """A child that was beside its dispatch: mean power measured less asked, above 0 where it took too much."""

    child: str
    begin_s: float
    asked_w: float
    measured_w: float

    @property
    def missed_w(self) -> float:
        """What others have to make up for, watts; its sign is that of the excess."""
        return self.measured_w - self.asked_w


@dataclass(slots=True)
class _Mean:
    total_ws: float = 0.0
    known_s: float = 0.0


@dataclass(slots=True)
class Derating:
    """Bounds that a child has shown by what it did; trusted again after some intervals."""

    lower_w: float = float("-inf")
    upper_w: float = float("inf")
    kept: int = 0


@dataclass(slots=True)
class Delivery:
    """Telemetry in, shortfalls out. Times are UTC seconds of the market's clock; nothing counts before `since_s`."""

    since_s: float
    _last: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    _means: dict[str, _Mean] = field(default_factory=dict)
    _deratings: dict[str, Derating] = field(default_factory=dict)

    def sample(self, child: str, net_power_w: float | None, now_s: float) -> None:
        """A child's telemetry; None: it has no good measurement."""
        self._account(child, now_s)
        self._last[child] = now_s, net_power_w

    def latest_w(self, child: str, now_s: float) -> float | None:
        """Its power as last told, while that is not too old."""
        at_s, power_w = self._last.get(child, (float("-inf"), None))
        return power_w if now_s - at_s <= LONGEST_S else None

    def bounds_w(self, child: str) -> tuple[float, float]:
        """Between what a child has been seen to reach, where it did not reach what it offered."""
        derating = self._deratings.get(child)
        return (float("-inf"), float("inf")) if derating is None else (derating.lower_w, derating.upper_w)

    def judge(
        self, begin_s: float, now_s: float, next_s: float, asked_w: dict[str, float], tolerances_w: dict[str, float]
    ) -> list[Shortfall]:
        """Who has been beside its dispatch from the interval's begin until now; then nothing counts until the next."""
        found = []
        for child in self._last:
            self._account(child, now_s)
        for child, asked in asked_w.items():
            mean = self._means.get(child, _Mean())
            if mean.known_s < LEAST_SHARE * (now_s - begin_s):
                continue
            shortfall = Shortfall(child, begin_s, asked, mean.total_ws / mean.known_s)
            if abs(shortfall.missed_w) > tolerances_w[child]:
                found.append(shortfall)
            self._derate(shortfall, tolerances_w[child])
        self._means, self.since_s = {}, next_s
        return found

    def _derate(self, one: Shortfall, tolerance_w: float) -> None:
        if one.missed_w > tolerance_w:
            self._deratings[one.child] = Derating(lower_w=one.measured_w)
        elif one.missed_w < -tolerance_w:
            self._deratings[one.child] = Derating(upper_w=one.measured_w)
        elif one.child in self._deratings:
            self._deratings[one.child].kept += 1
            if self._deratings[one.child].kept >= TRUSTED_AFTER:
                del self._deratings[one.child]

    def _account(self, child: str, now_s: float) -> None:
        at_s, power_w = self._last.get(child, (now_s, None))
        begin_s = max(at_s, self.since_s)
        dt_s = min(now_s, at_s + LONGEST_S) - begin_s
        if power_w is None or dt_s <= 0.0:
            return
        mean = self._means.setdefault(child, _Mean())
        mean.total_ws += power_w * dt_s
        mean.known_s += dt_s
