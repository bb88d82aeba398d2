"""How a layer's price comes about: lambda = w + g'(n) + mu, by the gateway's own clearing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.control.clearing import Bid, taken_at
from gateway.control.interchange import CURVED_POINTS, InterchangeCost, local_price
from gateway.price.interchange_cost import outside_effect

WINDOW_PER_KWH: Final = 0.005
"""The response is looked at over a price change of so much to either side."""

ILLIQUID_PU: Final = 1e-6
"""A response over the window of less than this part of the resources' range is none."""

AT_LIMIT_PU: Final = 1e-9
"""Of the interface's range: net power this close to its end is at it."""

_SIDES: Final = {"import": 1, "export": -1, "": 0}


class Formation(NamedTuple):
    """A price and its parts, per kWh; `net_w` in load convention.

    `marginal_per_kwh` is g'(n); at balance whatever between its two sides the clearing came to; 0 while islanded.
    `mu_per_kwh` is the interface limit's own price: above 0 where import is short, below where export is; None while
    islanded, as then there is no outside to compare with. `response_w` is S', watts per price of 1 per kWh.
    `outside_effect` is dlambda/dw. `illiquid`: nobody would change anything, so that the price is one of many.
    """

    lambda_per_kwh: float
    net_w: float
    marginal_per_kwh: float
    mu_per_kwh: float | None
    response_w: float
    outside_effect: float
    at_limit: str
    illiquid: bool


def form_price(
    bids: Sequence[Bid],
    rest_w: float,
    outside_per_kwh: float | None,
    cost: InterchangeCost,
    import_limit_w: float,
    export_limit_w: float,
    pieces: int = CURVED_POINTS,
) -> Formation:
    """The price of a layer whose resources bid, with what cannot be controlled, `rest_w`.

    Limits are magnitudes. `outside_per_kwh` None: islanded, net power is 0 or as near as the bounds allow. `pieces`:
    so many lines draw a bent marginal cost on either side of balance.
    """
    islanded = outside_per_kwh is None
    upper_w, lower_w = (0.0, 0.0) if islanded else (import_limit_w, -export_limit_w)
    found = local_price(bids, outside_per_kwh or 0.0, cost, rest_w, lower_w - rest_w, upper_w - rest_w, pieces)
    price, net_w = found.lambda_per_kwh, rest_w + found.total_w
    near_w = AT_LIMIT_PU * max(upper_w - lower_w, 1.0)
    at_limit = _end(net_w, lower_w, upper_w, near_w)
    net_w = 0.0 if abs(net_w) <= near_w else net_w
    response_w = response_at(bids, price)
    range_w = sum(bid.upper_w - bid.lower_w for bid in bids)
    illiquid = response_w * 2.0 * WINDOW_PER_KWH <= ILLIQUID_PU * range_w
    if outside_per_kwh is None:
        return Formation(price, net_w, 0.0, None, response_w, 0.0, "islanded", illiquid)
    excess = price - outside_per_kwh
    side = _SIDES[at_limit]
    mu = side * max(side * (excess - cost.marginal_per_kwh(net_w, side)), 0.0) if side else 0.0
    effect = 0.0 if side else outside_effect(cost, net_w, response_w)
    return Formation(price, net_w, excess - mu, mu, response_w, effect, at_limit, illiquid)


def response_at(bids: Sequence[Bid], price_per_kwh: float) -> float:
    """S', watts per price of 1 per kWh, over a small window; a jump inside the window counts as steep."""
    below = taken_at(bids, price_per_kwh - WINDOW_PER_KWH).total_w
    above = taken_at(bids, price_per_kwh + WINDOW_PER_KWH).total_w
    return max(below - above, 0.0) / (2.0 * WINDOW_PER_KWH)


def _end(net_w: float, lower_w: float, upper_w: float, near_w: float) -> str:
    """Which end of the interface the net power is at; empty inside."""
    if net_w >= upper_w - near_w:
        return "import"
    return "export" if net_w <= lower_w + near_w else ""
