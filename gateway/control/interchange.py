"""The interchange with the outside as a virtual bid, so that the local price comes of the clearing.

With the outside's price w and an interchange cost g(n) of net power n, the local price is lambda = w + g'(n): the
outside takes part in the clearing as whoever sells net power at that marginal cost. A spread s between import and
export is g(n) = s |n|: at lambda above w + s everything is imported, below w - s exported, and between them nothing is
traded and the local price floats, which is self-consumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Final, NamedTuple

from gateway.control.clearing import Bid, Curve, clear, make_curve

CURVED_POINTS: Final = 16
"""A marginal cost that bends is drawn by so many pieces on either side of balance."""


class InterchangeCost(NamedTuple):
    """The terms of g(n), n in watts: g'(n) = added + sign(n) spread + quadratic n + sign(n) root sqrt|n|, per kWh.

    The last is the derivative of the 3/2 term; none of them falls with n, so that the bid's curve is one.
    """

    spread_per_kwh: float = 0.0
    added_per_kwh: float = 0.0
    quadratic_per_kwh_w: float = 0.0
    root_per_kwh: float = 0.0

    def marginal_per_kwh(self, net_w: float, side: int) -> float:
        """g'(n); at balance of the side that is asked for: 1 of import, -1 of export."""
        sign = side if net_w == 0.0 else (1 if net_w > 0.0 else -1)
        bent = self.quadratic_per_kwh_w * net_w + sign * self.root_per_kwh * sqrt(abs(net_w))
        return self.added_per_kwh + sign * self.spread_per_kwh + bent

    @property
    def is_curved(self) -> bool:
        """Whether it needs more points than the ends and the balance."""
        return self.quadratic_per_kwh_w != 0.0 or self.root_per_kwh != 0.0


class LocalPrice(NamedTuple):
    """The price that the clearing with the outside came to, and the devices' sum at it."""

    lambda_per_kwh: float
    total_w: float


def interchange_curve(
    price_per_kwh: float, cost: InterchangeCost, lower_w: float, upper_w: float, pieces: int = CURVED_POINTS
) -> Curve:
    """What the outside takes at each local price, watts: minus the net power of a site that may have it in bounds.

    `pieces`: so many lines draw a marginal cost that bends, on either side of balance.
    """
    lower_w, upper_w = min(lower_w, upper_w), max(lower_w, upper_w)
    nets = {lower_w, upper_w}
    if cost.is_curved:
        # Closer together at balance, where a root bends most.
        shares = [(at / pieces) ** 2 for at in range(1, pieces)]
        nets |= {end * share for end in (lower_w, upper_w) for share in shares if lower_w <= end * share <= upper_w}
    points = []
    for net_w in sorted(nets | ({0.0} if lower_w <= 0.0 <= upper_w else set())):
        sides = (-1, 1) if net_w == 0.0 else (1,)
        points += [(price_per_kwh + cost.marginal_per_kwh(net_w, side), -net_w) for side in sides]
    return make_curve(points)


def local_price(
    bids: Sequence[Bid],
    price_per_kwh: float,
    cost: InterchangeCost,
    rest_w: float,
    lower_w: float,
    upper_w: float,
    pieces: int = CURVED_POINTS,
) -> LocalPrice:
    """Clear bids and outside together: all that they take makes up for what cannot be controlled, `rest_w`.

    `lower_w` and `upper_w` bound the devices' sum; within them the outside gives whatever net power results.
    """
    lower_w, upper_w = min(lower_w, upper_w), max(lower_w, upper_w)
    curve = interchange_curve(price_per_kwh, cost, lower_w + rest_w, upper_w + rest_w, pieces)
    outside = Bid(curve, -(upper_w + rest_w), -(lower_w + rest_w))
    clearing = clear([*bids, outside], -rest_w)
    return LocalPrice(clearing.lambda_per_kwh, sum(clearing.shares_w[:-1]))
