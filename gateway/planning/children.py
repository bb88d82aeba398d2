"""Layers below as the planner is told of them: what they offer for the clock's steps, and what of it they deliver."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import exp
from typing import Final, Protocol, runtime_checkable

from config.messages import Offer, OfferInterval
from config.vocabulary import DeviceKind
from gateway.control.resources import DOES_NOT_FOLLOW, Resource
from gateway.parent.utc import utc_datetime
from gateway.planning.child_plan import CHILD_STEPS
from gateway.planning.messages import ChildInterval, ChildState

FORGETS_S: Final = 1800.0
"""What a child has delivered counts less by a factor of e after this time."""

LEAST_ASKED_PU: Final = 0.05
"""Of the rating: where a child is asked to move by less, nothing can be said of whether it does."""

TOLERANCE_PU: Final = 0.02
DISCOUNTED_PU: Final = 0.9
"""A child that delivers less of what it is asked for is told of."""

MOST_GAP_S: Final = 10.0


@runtime_checkable
class Offering(Protocol):
    """A link to layers below: the offers that hold now, by device, of those that we have authority over.

    `announce` takes the prices ahead by the UTC second from which each is for, and how often they were announced.
    """

    def offered(self) -> Mapping[str, Offer]: ...
    def announce(self, prices: Mapping[float, float], version: int) -> None: ...


Offered = Callable[[], Mapping[str, Offer]]


@dataclass(slots=True)
class _Delivery:
    asked_ws: float = 0.0
    missed_ws: float = 0.0
    from_w: float | None = None
    asked_w: float | None = None
    since_s: float = 0.0


@dataclass(slots=True)
class DeliveryRecord:
    """What part of what it is asked for each child delivers, 0 to 1, from measurements; control's cycle tells.

    A child is judged while a share stands that is far from where it was when it was asked, once its response is over.
    """

    _known: dict[str, _Delivery] = field(default_factory=dict)
    _last_s: float | None = None

    def observe(self, now_s: float, resources: tuple[Resource, ...], asked_w: Mapping[str, float]) -> None:
        """One look at all children; `asked_w` are the setpoints by device."""
        dt_s = 0.0 if self._last_s is None else min(max(now_s - self._last_s, 0.0), MOST_GAP_S)
        self._last_s = now_s
        for one in resources:
            asked = asked_w.get(one.model.name)
            if one.model.kind is DeviceKind.LAYER and one.power_w is not None and asked is not None:
                self._judge(self._known.setdefault(one.model.name, _Delivery()), one, one.power_w, asked, now_s, dt_s)

    def delivered_pu(self, name: str) -> float:
        """1 of a child of which nothing is known."""
        known = self._known.get(name)
        if known is None or known.asked_ws <= 0.0:
            return 1.0
        return min(max(1.0 - known.missed_ws / known.asked_ws, 0.0), 1.0)

    def discounted(self) -> dict[str, float]:
        """The children that are counted on in part only."""
        found = {name: self.delivered_pu(name) for name in self._known}
        return {name: round(part, 2) for name, part in found.items() if part < DISCOUNTED_PU}

    def _judge(
        self, known: _Delivery, one: Resource, power_w: float, asked_w: float, now_s: float, dt_s: float
    ) -> None:
        least_w = LEAST_ASKED_PU * one.model.rating_w
        if known.asked_w is None:
            known.from_w, known.asked_w, known.since_s = power_w, asked_w, now_s
        if one.lower.source != DOES_NOT_FOLLOW:
            # While it does not follow it is asked for what it does: what it was asked for before is what counts.
            if abs(asked_w - known.asked_w) > least_w:
                known.from_w, known.since_s = power_w, now_s
            known.asked_w = asked_w
        moved_w = abs(known.asked_w - (known.from_w or 0.0))
        if moved_w <= least_w or now_s - known.since_s <= 2.0 * one.model.response_s:
            return
        fades = exp(-dt_s / FORGETS_S)
        missed_w = min(max(abs(power_w - known.asked_w) - TOLERANCE_PU * one.model.rating_w, 0.0), moved_w)
        known.asked_ws = known.asked_ws * fades + moved_w * dt_s
        known.missed_ws = known.missed_ws * fades + missed_w * dt_s


def child_states(
    resources: tuple[Resource, ...],
    offered: Mapping[str, Offer],
    delivery: DeliveryRecord,
    utc_s: float,
    step_s: float,
    steps: int,
) -> tuple[ChildState, ...]:
    """Every child that is measured, by the clock's steps from the present one on.

    One that can't be asked, or offers nothing, goes on as it is.
    """
    begin_s = utc_s // step_s * step_s
    found = []
    for one in resources:
        if one.model.kind is not DeviceKind.LAYER or one.power_w is None:
            continue
        offer = offered.get(one.model.name) if one.usable else None
        chosen = [_at(offer, utc_s if at == 0 else begin_s + (at + 0.5) * step_s) for at in range(steps + 1)]
        base: list[float] = []
        for interval in chosen:
            base.append(_base_w(interval, base[-1] if base else one.power_w))
        told = chosen[0]
        found.append(
            ChildState(
                name=one.model.name,
                begin_utc_s=begin_s,
                base_w=tuple(base),
                intervals=tuple(
                    None if interval is None else _interval(interval) for interval in chosen[: CHILD_STEPS + 1]
                ),
                energy_up_wh=0.0 if told is None else told.energy_up_wh,
                energy_down_wh=0.0 if told is None else told.energy_down_wh,
                ramp_w_per_s=None if told is None else told.ramp_w_per_s,
                delivered_pu=delivery.delivered_pu(one.model.name),
            )
        )
    return tuple(found)


def _at(offer: Offer | None, at_s: float) -> OfferInterval | None:
    """The interval of an offer in which a time lies; None after its last one, and in a gap."""
    at = utc_datetime(at_s)
    for interval in offer.intervals if offer is not None else ():
        if interval.start <= at < interval.start + timedelta(seconds=interval.duration_s):
            return interval
    return None


def _base_w(interval: OfferInterval | None, before_w: float) -> float:
    """What the child does by itself: what it forecasts; else what it did before, within its envelope."""
    if interval is None:
        return before_w
    wanted_w = before_w if interval.forecast is None else interval.forecast.p50_w
    return min(max(wanted_w, interval.lower_w), interval.upper_w)


def _interval(interval: OfferInterval) -> ChildInterval:
    return ChildInterval(
        prices_per_kwh=tuple(point.price_per_kwh for point in interval.curve),
        powers_w=tuple(point.power_w for point in interval.curve),
        lower_w=interval.lower_w,
        upper_w=interval.upper_w,
    )
