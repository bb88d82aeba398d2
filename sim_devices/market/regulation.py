"""Regulation capacity bought for an interval: the cheapest first, at the price of the last that was needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Capacity(NamedTuple):
    """What one child offers, magnitudes in watts, and the room between its bounds that both have to fit into."""

    up_w: float
    down_w: float
    price_per_kwh: float
    room_w: float


class Awards(NamedTuple):
    """Magnitudes by child, what could not be bought, and the price that all get."""

    up_w: Mapping[str, float]
    down_w: Mapping[str, float]
    short_up_w: float
    short_down_w: float
    price_per_kwh: float | None


def award(offered: Mapping[str, Capacity], need_up_w: float, need_down_w: float) -> Awards:
    """Buy capacity up, then down; equal prices in the order of names."""
    room_w = {child: one.room_w for child, one in offered.items()}
    up_w, short_up_w, up_price = _bought({name: one.up_w for name, one in offered.items()}, need_up_w, offered, room_w)
    down = {name: one.down_w for name, one in offered.items()}
    down_w, short_down_w, down_price = _bought(down, need_down_w, offered, room_w)
    paid = [price for price in (up_price, down_price) if price is not None]
    return Awards(up_w, down_w, short_up_w, short_down_w, max(paid, default=None))


def _bought(
    capacities_w: Mapping[str, float], need_w: float, offered: Mapping[str, Capacity], room_w: dict[str, float]
) -> tuple[dict[str, float], float, float | None]:
    bought: dict[str, float] = {}
    price = None
    for child in sorted(capacities_w, key=lambda name: (offered[name].price_per_kwh, name)):
        taken_w = min(capacities_w[child], room_w[child], need_w)
        if taken_w > 0.0:
            bought[child], price = taken_w, offered[child].price_per_kwh
            room_w[child] -= taken_w
            need_w -= taken_w
    return bought, need_w, price
