"""What was offered, and what of it is awarded: a kilowatt that is promised twice is noticed before it is missed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from config.messages import DispatchOrder, Offer, OfferInterval

OFFERS_KEPT: Final = 512
TOLD_S: Final = 60.0
LONGEST_TOLD_S: Final = 3600.0
"""A promise made twice is told upward until its time is over, but at least and at most for so long."""


@dataclass(slots=True)
class Promises:
    """The offers that the parents were told, and the last award that would have promised something twice.

    An award is a dispatch that answers an offer and has an end. A parent's share of each control cycle has none, and is
    held inside what can be done anyway.
    """

    count: int = 0
    reason: str = ""
    _offers: OrderedDict[str, Offer] = field(default_factory=OrderedDict)
    _until_s: float = 0.0

    def told(self, offer: Offer) -> None:
        """This offer went to the parents."""
        self._offers[offer.id] = offer
        while len(self._offers) > OFFERS_KEPT:
            self._offers.popitem(last=False)

    def refusal(
        self, source: str, order: DispatchOrder, held: Iterable[tuple[str, DispatchOrder]], utc_s: float
    ) -> str:
        """Why an award can't stand beside what is offered and awarded; empty: it can. `held` are those awarded."""
        if order.offer_id is None or order.ends_at is None:
            return ""
        found = self._awarded_elsewhere(source, order, held) or self._beyond_offer(order)
        if found:
            self.count += 1
            self.reason = found
            self._until_s = max(utc_s + TOLD_S, min(order.ends_at.timestamp(), utc_s + LONGEST_TOLD_S))
        return found

    def stands(self, utc_s: float) -> bool:
        """Whether a promise made twice is still to be told upward."""
        return utc_s < self._until_s

    def _awarded_elsewhere(self, source: str, order: DispatchOrder, held: Iterable[tuple[str, DispatchOrder]]) -> str:
        for other_source, other in held:
            if other_source != source and other.offer_id is not None and _overlap(order, other):
                return f"promised twice: {other_source} holds {other.id} for the same time"
        return ""

    def _beyond_offer(self, order: DispatchOrder) -> str:
        offer = self._offers.get(order.offer_id or "")
        least_w, most_w = order.net_power_w - order.regulation_up_w, order.net_power_w + order.regulation_down_w
        for interval in () if offer is None else offer.intervals:
            assert offer is not None
            slack_w = offer.error_bound_w + offer.power_step_w
            beyond = least_w < interval.lower_w - slack_w or most_w > interval.upper_w + slack_w
            if beyond and _within(order, interval):
                with_reserve = " with its reserve" if order.regulation_up_w or order.regulation_down_w else ""
                return (
                    f"promised twice: {least_w:g} to {most_w:g} W{with_reserve} is beyond the "
                    f"{interval.lower_w:g} to {interval.upper_w:g} W that {offer.id} offers"
                )
        return ""


def _overlap(one: DispatchOrder, other: DispatchOrder) -> bool:
    begin, end = max(one.begins_at, other.begins_at), min(_end(one), _end(other))
    return begin < end


def _end(order: DispatchOrder) -> datetime:
    return order.ends_at or order.begins_at + timedelta(days=366)


def _within(order: DispatchOrder, interval: OfferInterval) -> bool:
    """Whether some of an order's time is in an interval."""
    return order.begins_at < interval.start + timedelta(seconds=interval.duration_s) and interval.start < _end(order)
