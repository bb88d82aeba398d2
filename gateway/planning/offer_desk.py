"""Control's side of the offers: the intervals that the planner has made curves for, and the curves behind each offer.

Nothing is believed that was not checked. From an interval's gate on its curve is final. While the planner is away the
intervals run out one by one, and the offer shows the present curve in their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from config.messages import Offer
from config.vocabulary import UtcClock
from gateway.control.clearing import Curve, make_curve
from gateway.parent.intervals import PlannedInterval
from gateway.planning.messages import OfferMessage, OutlookMessage, RefusedMessageError, checked_curves

TOLD_KEPT: Final = 256
"""Offers that a dispatch may still answer: some hours of them."""

FARTHEST_S: Final = 3 * 86_400.0
"""An interval that begins later is of another clock."""

ON_GRID: Final = 1e-6
"""Of a step."""

Curves = tuple[tuple[str, Curve], ...]


class _Taken(NamedTuple):
    """An interval and the devices' curves that made it."""

    interval: PlannedInterval
    curves: Curves


@dataclass(slots=True)
class OfferDesk:
    """`bounds_w` are the least and most power of each device that may have a curve, `limits_w` of the connection.

    `power_step_w` is the published grid's: nothing beside it may go out, for it could be told a device by.
    """

    utc: UtcClock
    power_step_w: float
    bounds_w: Mapping[str, tuple[float, float]]
    limits_w: tuple[float, float]
    gate_s: float
    taken: int = 0
    after_gate: int = 0
    _intervals: dict[float, _Taken] = field(default_factory=dict)
    _outlook: dict[float, PlannedInterval] = field(default_factory=dict)
    _told: OrderedDict[str, dict[float, _Taken]] = field(default_factory=OrderedDict)

    # From the planner

    def take(self, message: OfferMessage) -> None:
        """One interval; raises RefusedMessageError for what can't be offered. After its gate the first one stays."""
        now_s = self.utc()
        if not now_s < message.begin_utc_s <= now_s + FARTHEST_S:
            raise RefusedMessageError(f"an offer for an interval that began {now_s - message.begin_utc_s:.0f} s ago")
        self._check_grid((*message.powers_w, message.lower_w, message.upper_w, *message.forecast_w))
        taken = _Taken(_interval(message, self.limits_w), checked_curves(message, dict(self.bounds_w)))
        if message.begin_utc_s - now_s < self.gate_s and message.begin_utc_s in self._intervals:
            self.after_gate += 1
            return
        self.taken += 1
        self._intervals[message.begin_utc_s] = taken

    def take_outlook(self, message: OutlookMessage) -> None:
        """What is planned after the intervals with a curve; raises RefusedMessageError."""
        if not len(message.p10_w) == len(message.p50_w) == len(message.p90_w):
            raise RefusedMessageError("an outlook with p10, p50 and p90 of other lengths")
        self._check_grid((*message.p10_w, *message.p50_w, *message.p90_w))
        found: dict[float, PlannedInterval] = {}
        for at, band in enumerate(zip(message.p10_w, message.p50_w, message.p90_w, strict=True)):
            low_w, middle_w, high_w = sorted(band)
            begin_s = message.begin_utc_s + at * message.length_s
            points = ((0.0, middle_w),)
            found[begin_s] = PlannedInterval(
                begin_s, message.length_s, points, middle_w, middle_w, 0.0, 0.0, 0.0, 0.0, 0.0, None,
                (low_w, middle_w, high_w), 0.0,
            )  # fmt: skip
        self._outlook = found

    def _check_grid(self, powers_w: tuple[float, ...]) -> None:
        for power_w in powers_w:
            steps = power_w / self.power_step_w
            if abs(steps - round(steps)) > ON_GRID:
                raise RefusedMessageError(f"an offer of {power_w:g} W is off the published grid")

    # To the parents

    def planned(self) -> tuple[PlannedInterval, ...]:
        """The intervals to come, without a gap between them; none where the next one has no curve."""
        now_s = self.utc()
        self._intervals = {at: one for at, one in self._intervals.items() if at + one.interval.length_s > now_s}
        known = self._outlook | {at: one.interval for at, one in self._intervals.items()}
        found: list[PlannedInterval] = []
        begins = sorted(at for at in known if at > now_s)
        for begin_s in begins:
            one = known[begin_s]
            last_s = found[-1].begin_utc_s + found[-1].length_s if found else None
            if last_s is None and (begin_s - now_s > one.length_s or begin_s not in self._intervals):
                break
            if last_s is not None and begin_s != last_s:
                break
            found.append(one)
        return tuple(found)

    def told(self, offer: Offer) -> None:
        """This offer went to the parents: a dispatch may answer it."""
        begins = {interval.start.timestamp() for interval in offer.intervals[1:]}
        self._told[offer.id] = {at: one for at, one in self._intervals.items() if at in begins}
        while len(self._told) > TOLD_KEPT:
            self._told.popitem(last=False)

    # To control

    def curves_of(self, offer_id: str) -> Curves | None:
        """The curves that made the present interval of an offer; None where its curve was the present one."""
        now_s = self.utc()
        for begin_s, one in self._told.get(offer_id, {}).items():
            if begin_s <= now_s < begin_s + one.interval.length_s:
                return one.curves
        return None

    def snapshot(self) -> dict[str, Any]:
        """In short, for whoever looks."""
        intervals = [one.interval for one in self._intervals.values() if one.interval.begin_utc_s > self.utc()]
        return {
            "intervals": len(intervals),
            "taken": self.taken,
            "after_gate": self.after_gate,
            "error_w": max((one.error_w for one in intervals), default=None),
        }


def _interval(message: OfferMessage, limits_w: tuple[float, float]) -> PlannedInterval:
    """The interval of a message that fits together; raises RefusedMessageError."""
    prices, powers = message.prices_per_kwh, message.powers_w
    if len(prices) != len(powers):
        raise RefusedMessageError(f"an offer of {len(prices)} prices and {len(powers)} powers")
    try:
        make_curve(list(zip(prices, powers, strict=True)))
    except ValueError as error:
        raise RefusedMessageError(f"an offer: {error}") from None
    least_w, most_w = limits_w
    if not least_w <= message.lower_w <= powers[-1] <= powers[0] <= message.upper_w <= most_w:
        raise RefusedMessageError(f"an offer beyond its envelope, or beyond {least_w:g} to {most_w:g} W")
    if any(b < a for a, b in pairwise(message.forecast_w)):
        raise RefusedMessageError("an offer whose forecast falls from p10 to p90")
    return PlannedInterval(
        message.begin_utc_s,
        message.length_s,
        tuple(zip(prices, powers, strict=True)),
        message.lower_w,
        message.upper_w,
        message.error_w,
        message.energy_up_wh,
        message.energy_down_wh,
        message.regulation_up_w,
        message.regulation_down_w,
        message.regulation_price_per_kwh,
        message.forecast_w,
        message.price_step_per_kwh,
    )
