"""`clear` in the plainest way, as an oracle: halve the sorted prices at which anything bends, adding everything up."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.control.clearing import Bid, Clearing

FLOOR, CEILING = -1e30, 1e30
LEFT, RIGHT = 0, 1


def simple_clear(bids: Sequence[Bid], target_w: float) -> Clearing:
    kinks = sorted(set().union(*map(_kinks, bids)))
    first, last = 0, len(kinks)
    while first < last:
        middle = (first + last) // 2
        if total_at(bids, kinks[middle], RIGHT) <= target_w:
            last = middle
        else:
            first = middle + 1
    below = kinks[first - 1] if first > 0 else FLOOR
    above = kinks[first] if first < len(kinks) else CEILING
    if above != CEILING and total_at(bids, above, LEFT) >= target_w:
        below = above
    high = [power_at(bid, below, LEFT if below == above else RIGHT) for bid in bids]
    low = [power_at(bid, above, RIGHT if below == above else LEFT) for bid in bids]
    fraction = 1.0 if target_w >= sum(high) else 0.0
    if sum(low) < target_w < sum(high):
        fraction = (target_w - sum(low)) / (sum(high) - sum(low))
    shares = tuple(b + fraction * (a - b) for a, b in zip(high, low, strict=True))
    if below == FLOOR:
        return Clearing(above, shares, sum(shares))
    return Clearing(below if above == CEILING else above + fraction * (below - above), shares, sum(shares))


def total_at(bids: Sequence[Bid], price: float, side: int) -> float:
    return sum(power_at(bid, price, side) for bid in bids)


def power_at(bid: Bid, price: float, side: int) -> float:
    if price in (FLOOR, CEILING):
        return bid.upper_w if price == FLOOR else bid.lower_w
    return min(max(_curve_at(bid, price, side), bid.lower_w), bid.upper_w)


def _curve_at(bid: Bid, price: float, side: int) -> float:
    prices, powers = bid.curve.prices_per_kwh, bid.curve.powers_w
    inside = [index for index, one in enumerate(prices) if one == price]
    if inside:
        return powers[inside[0] if side == LEFT else inside[-1]]
    after = sum(one < price for one in prices)
    if after in (0, len(prices)):
        return powers[0 if after == 0 else -1]
    share = (price - prices[after - 1]) / (prices[after] - prices[after - 1])
    return powers[after - 1] + share * (powers[after] - powers[after - 1])


def _kinks(bid: Bid) -> set[float]:
    """Prices between which a bounded curve is straight."""
    prices, powers = bid.curve.prices_per_kwh, bid.curve.powers_w
    kinks = set(prices)
    for index in range(1, len(prices)):
        high, low, wide = powers[index - 1], powers[index], prices[index] - prices[index - 1]
        for bound in (bid.lower_w, bid.upper_w):
            if low < bound < high and wide > 0:
                kinks.add(prices[index - 1] + (high - bound) / (high - low) * wide)
    return kinks
