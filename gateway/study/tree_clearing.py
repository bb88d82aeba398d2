"""Clearing by layers: curves go up as sums inside limits, quantities and local prices come down by `clear`.

A layer knows its children's curves alone. What it shows above is their sum, held inside its own limits; what it is
given from above it shares by `clear`, and the price at which that comes out is its local price.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from gateway.control.clearing import Bid, Clearing, Curve, clear, make_curve
from gateway.control.interchange import InterchangeCost, interchange_curve
from gateway.study.fleet import Area

NEAR_PU: Final = 1e-3
"""Of the width of what can be shared: powers that differ by less are the same."""


class Outside(NamedTuple):
    """What the market charges for net power at the substation: its price, and the interchange cost on top."""

    price_per_kwh: float
    cost: InterchangeCost


class Outcome(NamedTuple):
    """What each area and each building was given by name: net power and local price."""

    powers_w: Mapping[str, float]
    prices_per_kwh: Mapping[str, float]


Publish: TypeAlias = Callable[[Area, Bid], Bid]
"""What an area above sees of the one below."""


def limited(bid: Bid) -> Curve:
    """The bid's curve with its bounds drawn in."""
    curve, lower_w, upper_w = bid
    prices, powers = curve.prices_per_kwh, curve.powers_w
    points: list[tuple[float, float]] = []
    for at, (price, power) in enumerate(zip(prices, powers, strict=True)):
        if at:
            before = prices[at - 1], powers[at - 1]
            points += [
                _crossing(before, (price, power), bound) for bound in (upper_w, lower_w) if power < bound < before[1]
            ]
        points.append((price, min(max(power, lower_w), upper_w)))
    return make_curve(points)


def _crossing(start: tuple[float, float], end: tuple[float, float], power_w: float) -> tuple[float, float]:
    """Where the line between two breakpoints passes a power."""
    share = (start[1] - power_w) / (start[1] - end[1])
    return min(max(start[0] + share * (end[0] - start[0]), start[0]), end[0]), power_w


def summed(curves: Sequence[Curve]) -> Curve:
    """The curve of all together: exact, jumps included."""
    if not curves:
        return make_curve([(0.0, 0.0)])
    points: list[tuple[float, float]] = []
    for price in sorted({price for curve in curves for price in curve.prices_per_kwh}):
        sides = [curve.limits_at(price) for curve in curves]
        above_w, below_w = sum(side[0] for side in sides), sum(side[1] for side in sides)
        # What falls by rounding alone is no fall.
        above_w = min(above_w, points[-1][1]) if points else above_w
        points += [(price, above_w)] if below_w >= above_w else [(price, above_w), (price, below_w)]
    return make_curve(points)


def clear_tree(root: Area, bids: Mapping[str, Bid], outside: Outside, publish: Publish | None = None) -> Outcome:
    """Clear a radial network: each area with what it was shown from below and given from above, and nothing else.

    `bids` has each building's. Limits that can't be kept are missed by as little as the bids allow.
    """
    shown: dict[str, Bid] = {}
    inner: dict[str, list[tuple[str, Bid]]] = {}
    for area in reversed(list(root.walk())):
        below = [(each.name, shown[each.name]) for each in area.areas]
        below += [(building.name, bids[building.name]) for building in area.buildings]
        inner[area.name] = below
        bid = area_bid(area, [bid for _, bid in below])
        shown[area.name] = bid if publish is None else publish(area, bid)
    powers_w, prices = _at_the_top(root, shown[root.name], outside)
    for area in root.walk():
        children = inner[area.name]
        inside = [bid for _, bid in children]
        found = clear(inside, powers_w[area.name])
        local = _local_price(inside, found, prices[area.name])
        for (name, _), share_w in zip(children, found.shares_w, strict=True):
            powers_w[name], prices[name] = share_w, local
    return Outcome(powers_w, prices)


def area_bid(area: Area, below: Sequence[Bid]) -> Bid:
    """What an area shows: the sum of what it was shown, inside its limits as far as the sum can be."""
    curve = summed([limited(bid) for bid in below])
    least_w, most_w = sum(bid.lower_w for bid in below), sum(bid.upper_w for bid in below)
    lower_w = min(max(least_w, -area.export_limit_w), most_w)
    upper_w = max(min(most_w, area.import_limit_w), least_w)
    return Bid(curve, min(lower_w, upper_w), max(lower_w, upper_w))


def _at_the_top(root: Area, bid: Bid, outside: Outside) -> tuple[dict[str, float], dict[str, float]]:
    """The substation and the market together: what one takes, the other gives."""
    market = Bid(
        interchange_curve(outside.price_per_kwh, outside.cost, bid.lower_w, bid.upper_w), -bid.upper_w, -bid.lower_w
    )
    found = clear([bid, market], 0.0)
    return {root.name: found.shares_w[0]}, {root.name: found.lambda_per_kwh}


def _local_price(bids: Sequence[Bid], found: Clearing, above_per_kwh: float) -> float:
    """The price above where the children take at it what they were given, else the one at which they do.

    Only a limit can part the two; what the grid's rounding leaves between them is none.
    """
    sides = [bid.curve.limits_at(above_per_kwh) for bid in bids]
    most_w = sum(min(max(side[0], bid.lower_w), bid.upper_w) for side, bid in zip(sides, bids, strict=True))
    least_w = sum(min(max(side[1], bid.lower_w), bid.upper_w) for side, bid in zip(sides, bids, strict=True))
    near_w = NEAR_PU * sum(bid.upper_w - bid.lower_w for bid in bids)
    return above_per_kwh if least_w - near_w <= found.total_w <= most_w + near_w else found.lambda_per_kwh
