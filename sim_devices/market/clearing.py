"""The market's own clearing: the two neighbouring prices at which anything bends between which the target
lies, and a straight line between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Points: TypeAlias = tuple[tuple[float, float], ...]
"""(price per kWh, net power in W): prices ascend, powers don't rise; two powers at one price are a jump."""


class Bid(NamedTuple):
    """A curve, constant beyond its ends, and the bounds that hold it."""

    points: Points
    lower_w: float
    upper_w: float

    def below(self, price: float) -> float:
        """Power just below a price."""
        return self._held(self._at(price, last=False))

    def above(self, price: float) -> float:
        """Power just above a price."""
        return self._held(self._at(price, last=True))

    def bends(self) -> set[float]:
        """Every price at which the bounded curve bends or jumps."""
        found = {price for price, _ in self.points}
        for (price, power), (later, lower) in pairwise(self.points):
            for bound in (self.lower_w, self.upper_w):
                if lower < bound < power and price < later:
                    found.add(price + (power - bound) / (power - lower) * (later - price))
        return found

    def _held(self, power_w: float) -> float:
        return min(max(power_w, self.lower_w), self.upper_w)

    def _at(self, price: float, *, last: bool) -> float:
        same = [power for at, power in self.points if at == price]
        if same:
            return same[-1 if last else 0]
        before = [point for point in self.points if point[0] < price]
        after = [point for point in self.points if point[0] > price]
        if not before:
            return after[0][1]
        if not after:
            return before[-1][1]
        (low, power), (high, lower) = before[-1], after[0]
        return power + (price - low) / (high - low) * (lower - power)


class Cleared(NamedTuple):
    """The price, and each bid's power in order."""

    price_per_kwh: float
    powers_w: tuple[float, ...]

    @property
    def total_w(self) -> float:
        """What all take together."""
        return sum(self.powers_w)


def clear(bids: Sequence[Bid], target_w: float) -> Cleared:
    """The lowest price at which the bounded bids sum to the target, or to the nearest sum that there is.

    Within a jump, and beyond the ends of all curves, the bids move by the same fraction of what they have left.
    """
    if not bids:
        return Cleared(0.0, ())
    prices = sorted(set().union(*(bid.bends() for bid in bids)))
    # Halving: the sum just above a price never rises with it.
    at = bisect_left(prices, True, key=lambda price: sum(bid.above(price) for bid in bids) <= target_w)
    if at == len(prices):
        return _on_the_way(prices[-1], [bid.above(prices[-1]) for bid in bids], prices[-1], _lowers(bids), target_w)
    below = [bid.below(prices[at]) for bid in bids]
    if sum(below) > target_w:
        return _on_the_way(prices[at], below, prices[at], [bid.above(prices[at]) for bid in bids], target_w)
    if at == 0:
        return _on_the_way(prices[0], [bid.upper_w for bid in bids], prices[0], below, target_w)
    return _on_the_way(prices[at - 1], [bid.above(prices[at - 1]) for bid in bids], prices[at], below, target_w)


def _lowers(bids: Sequence[Bid]) -> list[float]:
    return [bid.lower_w for bid in bids]


def _on_the_way(
    price: float, powers_w: Sequence[float], later: float, lower_w: Sequence[float], target_w: float
) -> Cleared:
    """Where the sum of the powers, which fall alike from one list to the other, passes the target."""
    most_w, least_w = sum(powers_w), sum(lower_w)
    share = 1.0 if most_w <= least_w else min(max((most_w - target_w) / (most_w - least_w), 0.0), 1.0)
    shares = tuple(high + share * (low - high) for high, low in zip(powers_w, lower_w, strict=True))
    return Cleared(price + share * (later - price), shares)
