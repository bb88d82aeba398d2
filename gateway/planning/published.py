"""From a layer's own curve to the one that is offered: without the interchange's cost, and on the published grid."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, pairwise
from math import ceil, floor
from typing import Final, NamedTuple

from gateway.control.clearing import make_curve
from gateway.control.interchange import InterchangeCost
from gateway.planning.tracing import Points, error_w, fewer_points

MOST_BREAKPOINTS: Final = 20
BENDS: Final = 6
"""A marginal cost that bends is followed at so many places between two points."""

BALANCE_W: Final = 1.0
"""Net power of less than this is none: the solver's rounding."""

SLACK: Final = 1e-6
"""Of a step: what reaches a grid line but for the solver's last digits has reached it."""


class Grid(NamedTuple):
    """The published grid, watts and price per kWh."""

    power_step_w: float
    price_step_per_kwh: float

    def inside(self, lower_w: float, upper_w: float) -> tuple[float, float]:
        """Bounds to the inside; one line where no two lie between them."""
        step_w = self.power_step_w
        low, high = ceil(lower_w / step_w - SLACK), floor(upper_w / step_w + SLACK)
        if low > high:
            low = high = round((lower_w + upper_w) / 2.0 / step_w)
        return low * step_w, high * step_w

    def power(self, power_w: float) -> float:
        """The nearest power."""
        return round(power_w / self.power_step_w) * self.power_step_w

    def price(self, price_per_kwh: float) -> float:
        """The nearest price."""
        return round(round(price_per_kwh / self.price_step_per_kwh) * self.price_step_per_kwh, 9)

    def price_above(self, price_per_kwh: float) -> float:
        """The least price on the grid that is not lower."""
        return round(ceil(price_per_kwh / self.price_step_per_kwh - SLACK) * self.price_step_per_kwh, 9)

    def floored(self, magnitude: float) -> float:
        """The largest magnitude on the grid that is not more."""
        return max(floor(magnitude / self.power_step_w + SLACK), 0) * self.power_step_w


class Published(NamedTuple):
    """A curve on the grid with its envelope; `error_w` as it was checked, in half steps of power."""

    points: Points
    lower_w: float
    upper_w: float
    error_w: float


def published(
    own: Points, cost: InterchangeCost, envelope_w: tuple[float, float], grid: Grid, fits_w: float, unknown_w: float
) -> Published:
    """The offered curve by the parent's price, from the layer's own by its local price.

    A layer that takes n at the local price lambda takes it at the parent's price w = lambda - g'(n). `fits_w`: what the
    curve may miss before its powers are rounded; `unknown_w`: by how much `own` may be wrong.
    """
    lower_w, upper_w = grid.inside(*envelope_w)
    every = tuple((price, min(max(power, lower_w), upper_w)) for price, power in by_outside_price(own, cost))
    few = fewer_points(every, fits_w, MOST_BREAKPOINTS)
    points = tuple(_plain((grid.price(price), grid.power(power)) for price, power in few))
    missed_w = error_w(make_curve(points), every, grid.price_step_per_kwh)
    half_w = grid.power_step_w / 2.0
    halves = max(ceil(max(missed_w, unknown_w) / half_w - SLACK), 1)
    return Published(points, lower_w, upper_w, halves * half_w)


def by_outside_price(own: Points, cost: InterchangeCost) -> Points:
    """The same powers at the prices of the outside that lead to them."""
    found = []
    for price, power_w in _followed(own, bends=BENDS if cost.is_curved else 1):
        sides = (1, -1) if power_w == 0.0 else (1,)
        found += [(price - cost.marginal_per_kwh(power_w, side), power_w) for side in sides]
    return tuple(sorted(found, key=lambda point: (point[0], -point[1])))


def _followed(own: Points, bends: int) -> Iterator[tuple[float, float]]:
    """The points with those between them that matter: where balance is crossed, and where a marginal cost bends."""
    yield own[0][0], _balanced(own[0][1])
    for (left, high_w), (right, low_w) in pairwise(own):
        shares = {at / bends for at in range(1, bends)} if high_w - low_w > BALANCE_W else set()
        if high_w > BALANCE_W and low_w < -BALANCE_W:
            shares.add(high_w / (high_w - low_w))
        for share in sorted(shares):
            yield left + share * (right - left), _balanced(high_w + share * (low_w - high_w))
        yield right, _balanced(low_w)


def _balanced(power_w: float) -> float:
    return 0.0 if abs(power_w) <= BALANCE_W else power_w


def _plain(points: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Of points at one price the ends of the jump, and of points of one power the ends of the flat part."""
    ends: list[tuple[float, float]] = []
    for _, group in groupby(points, key=lambda point: point[0]):
        same = list(group)
        ends += same[:1] if same[0] == same[-1] else [same[0], same[-1]]
    for _, group in groupby(ends, key=lambda point: point[1]):
        same = list(group)
        yield from same[:1] if len(same) == 1 else (same[0], same[-1])
