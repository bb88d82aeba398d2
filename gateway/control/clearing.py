"""Curves and `clear`: the one operation by which every layer shares power.

A curve says how much power a resource takes at each price: breakpoints with ascending price and power that does not
rise. Two breakpoints at one price are a jump: at that price the resource is indifferent between the two powers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter, mul
from typing import Final, NamedTuple

SAME_UNIT_DIGITS: Final = 12
"""Curves whose powers per unit agree to so many digits are one shape at different ratings."""

SHAPES_KEPT: Final = 4096

FEW_EVENTS: Final = 64
"""So many are sorted; more are narrowed down before."""


class Shape(NamedTuple):
    """A curve per unit of its greatest power. Shapes are told apart by identity, as equal ones are made once."""

    prices_per_kwh: tuple[float, ...]
    units: tuple[float, ...]

    def limits_at(self, price_per_kwh: float) -> tuple[float, float]:
        """Units just below and just above a price; they differ where the curve jumps."""
        prices, units = self
        left = bisect_left(prices, price_per_kwh)
        if left == len(prices):
            return units[-1], units[-1]
        if prices[left] == price_per_kwh:
            right = left
            while right + 1 < len(prices) and prices[right + 1] == price_per_kwh:
                right += 1
            return units[left], units[right]
        if left == 0:
            return units[0], units[0]
        share = (price_per_kwh - prices[left - 1]) / (prices[left] - prices[left - 1])
        unit = units[left - 1] + share * (units[left] - units[left - 1])
        return unit, unit


@lru_cache(SHAPES_KEPT)
def _shape(prices_per_kwh: tuple[float, ...], units: tuple[float, ...]) -> Shape:
    return Shape(prices_per_kwh, units)


@dataclass(frozen=True, slots=True)
class Curve:
    """Power (W, load convention) by price; constant beyond the first and the last breakpoint.

    `shape` times `scale_w` is the curve again.
    """

    prices_per_kwh: tuple[float, ...]
    powers_w: tuple[float, ...]
    scale_w: float = field(init=False, compare=False, repr=False)
    shape: Shape = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        scale_w = max(map(abs, self.powers_w)) or 1.0
        units = tuple([round(power / scale_w, SAME_UNIT_DIGITS) for power in self.powers_w])
        object.__setattr__(self, "scale_w", scale_w)
        object.__setattr__(self, "shape", _shape(self.prices_per_kwh, units))

    def limits_at(self, price_per_kwh: float) -> tuple[float, float]:
        """Power just below and just above a price; they differ where the curve jumps."""
        left, right = self.shape.limits_at(price_per_kwh)
        return left * self.scale_w, right * self.scale_w


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


_SCALE: Final = attrgetter("scale_w")
_SHAPE: Final = attrgetter("shape")


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

    Shares lie within their bounds. The sum equals the target, or the nearest sum that the bounds allow. Of several
    prices that give the target it is the lowest. Where the target falls into a jump, the bids that jump at that price
    move by the same fraction of their jumps; where every curve is exhausted, the rest is shared in the same way between
    the curves' ends and the bounds. Exact: O(n) after a search over the distinct prices of the curves.
    """
    if not bids:
        return Clearing(0.0, (), 0.0)
    field_of_bids = _Bids(bids)
    prices = sorted({price for shape in field_of_bids.shapes for price in shape.prices_per_kwh})
    first = _first_within(field_of_bids, prices, target_w)
    above = prices[first] if first < len(prices) else prices[-1]
    after = field_of_bids.units_at(above)
    if first == len(prices):
        # Not even the highest price takes enough away: between the curves' ends and the lower bounds.
        return _between(field_of_bids.shares([right for _, right in after]), field_of_bids.lowers_w, target_w, above)
    left = [unit for unit, _ in after]
    before_w = field_of_bids.shares(left)
    if sum(before_w) > target_w:
        return _between(before_w, field_of_bids.shares([right for _, right in after]), target_w, above)
    if first == 0:
        return _between(field_of_bids.uppers_w, before_w, target_w, above)
    below = prices[first - 1]
    right = [unit for _, unit in field_of_bids.units_at(below)]
    share = field_of_bids.crossing(right, left, target_w)
    units = [a + share * (b - a) for a, b in zip(right, left, strict=True)]
    shares_w = tuple(field_of_bids.shares(units))
    # Rounding must not carry the price past a breakpoint, where the curves may jump.
    return Clearing(min(below + share * (above - below), above), shares_w, sum(shares_w))


def taken_at(bids: Sequence[Bid], price_per_kwh: float) -> Clearing:
    """What the bids take at a price; at a jump, the lower power."""
    if not bids:
        return Clearing(price_per_kwh, (), 0.0)
    field_of_bids = _Bids(bids)
    shares = tuple(field_of_bids.shares([right for _, right in field_of_bids.units_at(price_per_kwh)]))
    return Clearing(price_per_kwh, shares, sum(shares))


class _Bids:
    """Bids by column. A list of units has one for each distinct shape, `kinds` says which shape each bid has."""

    __slots__ = ("kinds", "lowers_w", "scales_w", "shapes", "uppers_w")

    def __init__(self, bids: Sequence[Bid]) -> None:
        # Whole columns at a time: for ten thousand bids a loop over them takes three times as long.
        curves, self.lowers_w, self.uppers_w = zip(*bids, strict=True)
        self.scales_w: list[float] = list(map(_SCALE, curves))
        shapes: list[Shape] = list(map(_SHAPE, curves))
        ids = list(map(id, shapes))
        distinct = dict(zip(ids, shapes, strict=True))
        number = {one: at for at, one in enumerate(distinct)}
        self.kinds = list(map(number.__getitem__, ids))
        self.shapes = list(distinct.values())

    def units_at(self, price_per_kwh: float) -> list[tuple[float, float]]:
        return [shape.limits_at(price_per_kwh) for shape in self.shapes]

    def shares(self, units: Sequence[float]) -> list[float]:
        """Each bid's power where its shape stands at its unit, within its bounds."""
        return [
            low if (power := units[kind] * scale) < low else high if power > high else power
            for kind, scale, low, high in zip(self.kinds, self.scales_w, self.lowers_w, self.uppers_w, strict=True)
        ]

    def crossing(self, start: Sequence[float], end: Sequence[float], target_w: float) -> float:
        """How far, from 0 to 1, the units go from `start` to `end`, down and all alike, until the sum is the target."""
        rate_w = 0.0
        moments: list[float] = []
        changes_w: list[float] = []
        falls = [a - b for a, b in zip(start, end, strict=True)]
        for kind, scale, low, high in zip(self.kinds, self.scales_w, self.lowers_w, self.uppers_w, strict=True):
            if not falls[kind]:
                continue
            at, to = start[kind] * scale, end[kind] * scale
            if at <= low or to >= high or at == to:
                continue
            fall = at - to
            if at > high:
                moments.append((at - high) / fall)
                changes_w.append(fall)
            else:
                rate_w += fall
            if to < low:
                moments.append((at - low) / fall)
                changes_w.append(-fall)
        return _crossing(sum(self.shares(start)) - target_w, rate_w, moments, changes_w)


def _first_within(bids: _Bids, prices: Sequence[float], target_w: float) -> int:
    """The first price, by index, above which the bids take no more than the target; their number if there is none."""
    first, last = 0, len(prices)
    most_w, least_w = sum(bids.uppers_w), sum(bids.lowers_w)
    halve = False
    while first < last:
        # Every other time where a straight line between the sums at the ends passes the target, else in the middle.
        share = 0.5 if halve or most_w <= least_w else min(max((most_w - target_w) / (most_w - least_w), 0.0), 1.0)
        halve = not halve
        at = min(first + int(share * (last - first)), last - 1)
        total_w = sum(bids.shares([right for _, right in bids.units_at(prices[at])]))
        if total_w <= target_w:
            last, least_w = at, total_w
        else:
            first, most_w = at + 1, total_w
    return first


def _between(high_w: Sequence[float], low_w: Sequence[float], target_w: float, price_per_kwh: float) -> Clearing:
    """The same fraction of the way from each low share to its high one."""
    most_w, least_w = sum(high_w), sum(low_w)
    fraction = 1.0 if target_w >= most_w else 0.0
    if least_w < target_w < most_w:
        fraction = (target_w - least_w) / (most_w - least_w)
    shares = tuple([low + fraction * (high - low) for high, low in zip(high_w, low_w, strict=True)])
    return Clearing(price_per_kwh, shares, sum(shares))


def _crossing(drop_w: float, rate_w: float, moments: list[float], changes_w: list[float]) -> float:
    """Where a fall at `rate_w`, which changes by `changes_w` at `moments`, has come to `drop_w`.

    The moments are halved until few are left, each time by the one in the middle of the list. Two columns, for pairs
    would be ten thousand objects for the garbage collector to look at.
    """
    moment_w, start, end = 0.0, 0.0, 1.0
    while len(moments) > FEW_EVENTS:
        pivot = moments[len(moments) // 2]
        before_w = [change for at, change in zip(moments, changes_w, strict=True) if at <= pivot]
        before = [at for at in moments if at <= pivot]
        change_w = sum(before_w)
        change_moment_w = sum(map(mul, before, before_w))
        if (rate_w + change_w) * pivot - moment_w - change_moment_w >= drop_w:
            if len(before) == len(moments):
                break
            moments, changes_w, end = before, before_w, pivot
        else:
            rate_w += change_w
            moment_w += change_moment_w
            changes_w = [change for at, change in zip(moments, changes_w, strict=True) if at > pivot]
            moments, start = [at for at in moments if at > pivot], pivot
    for at, change in sorted(zip(moments, changes_w, strict=True)):
        if rate_w * at - moment_w >= drop_w:
            end = at
            break
        start = at
        rate_w += change
        moment_w += at * change
    # Where nothing moves any more, what is left to fall is a rounding error.
    return min(max((drop_w + moment_w) / rate_w, start), end) if rate_w > 0.0 else start
