"""Curves and `clear`: the one operation by which every layer shares power.

A curve says how much power a resource takes at each price: breakpoints with ascending price and power that does not
rise. Two breakpoints at one price are a jump: at that price the resource is indifferent between the two powers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple


class Curve(NamedTuple):
    """Power (W, load convention) by price; constant beyond the first and the last breakpoint."""

    prices_per_kwh: tuple[float, ...]
    powers_w: tuple[float, ...]

    def limits_at(self, price_per_kwh: float) -> tuple[float, float]:
        """Power just below and just above a price; they differ where the curve jumps."""
        prices, powers = self.prices_per_kwh, self.powers_w
        left = bisect_left(prices, price_per_kwh)
        right = bisect_right(prices, price_per_kwh)
        if left < right:
            return powers[left], powers[right - 1]
        if left == 0:
            return powers[0], powers[0]
        if left == len(prices):
            return powers[-1], powers[-1]
        share = (price_per_kwh - prices[left - 1]) / (prices[left] - prices[left - 1])
        power = powers[left - 1] + share * (powers[left] - powers[left - 1])
        return power, power


def make_curve(points: Sequence[tuple[float, float]]) -> Curve:
    """A curve from (price, power) pairs.

    Raises ValueError unless prices ascend and powers do not rise.
    """
    prices = tuple(price for price, _ in points)
    powers = tuple(power for _, power in points)
    if not points or any(b < a for a, b in pairwise(prices)):
        raise ValueError("a curve has breakpoints, in ascending order of price")
    if any(b > a for a, b in pairwise(powers)):
        raise ValueError("the power of a curve must not rise with price")
    return Curve(prices, powers)


class Bid(NamedTuple):
    """A curve and the bounds that hold it in this interval, `lower_w <= upper_w`."""

    curve: Curve
    lower_w: float
    upper_w: float


class Clearing(NamedTuple):
    """The price that gives the target, each bid's share in order, and their sum."""

    lambda_per_kwh: float
    shares_w: tuple[float, ...]
    total_w: float


def clear(bids: Sequence[Bid], target_w: float) -> Clearing:
    """Find the price at which the bids' bounded curves sum to the target, and each bid's share of it.

    Shares lie within their bounds. The sum equals the target, or the nearest sum that the bounds allow. Where the
    target falls into a jump, the bids that jump at that price move by the same fraction of their jumps; where every
    curve is exhausted, the rest is shared in the same way between the curves' ends and the bounds. O(n log n).
    """
    kinks = _kinks(bids)
    below, above = _bracket(bids, kinks, target_w)
    at_jump = below == above
    high = [_bounded_at(bid, below, _LEFT if at_jump else _RIGHT) for bid in bids]
    low = [_bounded_at(bid, above, _RIGHT if at_jump else _LEFT) for bid in bids]
    fraction = _fraction(sum(high), sum(low), target_w)
    shares = tuple(b + fraction * (a - b) for a, b in zip(high, low, strict=True))
    if below == _FLOOR:
        price = above if above != _CEILING else 0.0
    elif above == _CEILING:
        price = below
    else:
        price = above + fraction * (below - above)
    return Clearing(price, shares, sum(shares))


def taken_at(bids: Sequence[Bid], price_per_kwh: float) -> Clearing:
    """What the bids take at a price; at a jump, the lower power."""
    shares = tuple(_bounded_at(bid, price_per_kwh, _RIGHT) for bid in bids)
    return Clearing(price_per_kwh, shares, sum(shares))


_FLOOR, _CEILING = -1e30, 1e30
_LEFT, _RIGHT = 0, 1


def _bounded_at(bid: Bid, price_per_kwh: float, side: int) -> float:
    if price_per_kwh == _FLOOR:
        return bid.upper_w
    if price_per_kwh == _CEILING:
        return bid.lower_w
    return min(max(bid.curve.limits_at(price_per_kwh)[side], bid.lower_w), bid.upper_w)


def _kinks(bids: Sequence[Bid]) -> list[float]:
    """Ascending prices between which every bounded curve is linear."""
    kinks: set[float] = set()
    for bid in bids:
        prices, powers = bid.curve
        kinks.update(prices)
        for index in range(1, len(prices)):
            high, low = powers[index - 1], powers[index]
            for bound in (bid.lower_w, bid.upper_w):
                if low < bound < high and prices[index] > prices[index - 1]:
                    share = (high - bound) / (high - low)
                    kinks.add(prices[index - 1] + share * (prices[index] - prices[index - 1]))
    return sorted(kinks)


def _bracket(bids: Sequence[Bid], kinks: list[float], target_w: float) -> tuple[float, float]:
    """The neighbouring kinks, or the one kink twice, between or at which the sum passes the target."""
    first, last = 0, len(kinks)
    while first < last:
        middle = (first + last) // 2
        if sum(_bounded_at(bid, kinks[middle], _RIGHT) for bid in bids) <= target_w:
            last = middle
        else:
            first = middle + 1
    above = kinks[first] if first < len(kinks) else _CEILING
    if above != _CEILING and sum(_bounded_at(bid, above, _LEFT) for bid in bids) >= target_w:
        return above, above
    return (kinks[first - 1] if first > 0 else _FLOOR), above


def _fraction(total_high_w: float, total_low_w: float, target_w: float) -> float:
    """Where the target lies between the two sums: 1 at the high one, 0 at the low one."""
    if target_w >= total_high_w:
        return 1.0
    if target_w <= total_low_w:
        return 0.0
    return (target_w - total_low_w) / (total_high_w - total_low_w)
