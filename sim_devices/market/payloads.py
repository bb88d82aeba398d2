"""The market's own writing of the interface's messages, field by field, as docs/layer_interface.md describes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, floor
from typing import Any, Final

from sim_devices.dso.log import utc_text
from sim_devices.market.clearing import Bid
from sim_devices.market.market import Dispatch, Market

GRID_PRICES: Final = tuple(round(-0.05 + 0.05 * step, 2) for step in range(14))
PRICE_STEP_PER_KWH: Final = 0.05
POWER_STEP_PU: Final = 0.01
MOST_POINTS: Final = 200


def authority(source: str, epoch: int, order_id: str, now_s: float) -> dict[str, Any]:
    """Who dispatches from now on."""
    return {"id": order_id, "issued_at": utc_text(now_s), "parent": source, "epoch": epoch}


def heartbeat(sequence: int, now_s: float) -> dict[str, Any]:
    """A life sign."""
    return {"sequence": sequence, "issued_at": utc_text(now_s)}


def dispatch(one: Dispatch, epoch: int, order_id: str, now_s: float) -> dict[str, Any]:
    """What one child is told of an interval."""
    return {
        "id": order_id,
        "issued_at": utc_text(now_s),
        "start": utc_text(one.begin_s),
        "duration_s": one.duration_s,
        "epoch": epoch,
        "offer_id": one.offer_id,
        "net_power_w": one.net_power_w,
        "lambda_per_kwh": one.lambda_per_kwh,
        "lambda_path_per_kwh": list(one.path_per_kwh),
        "regulation_up_w": one.regulation_up_w,
        "regulation_down_w": one.regulation_down_w,
    }


def signal(epoch: int, sequence: int, value: float, lost_after_s: float, now_s: float) -> dict[str, Any]:
    """A regulation signal in [-1, 1]."""
    issued_at = utc_text(now_s)
    return {
        "epoch": epoch,
        "sequence": sequence,
        "issued_at": issued_at,
        "signal": value,
        "lost_after_s": lost_after_s,
    }


def offer(market: Market, rating_w: float, order_id: str, now_s: float) -> dict[str, Any] | None:
    """What this market's children could do together, for a market above it; None while none of them offers anything."""
    settings = market.settings
    begin_s, intervals, bound_w = market.open_s, list[dict[str, Any]](), 0.0
    for _ in range(max(settings.path_intervals, 1)):
        bids = market.bids(begin_s)
        if not bids:
            break
        fixed_w = sum(market.fixed_w(begin_s).values())
        interval, error_w = _interval(market, list(bids.values()), fixed_w, POWER_STEP_PU * rating_w, begin_s)
        intervals.append(interval)
        bound_w = max(bound_w, error_w)
        begin_s += settings.interval_s
    if not intervals:
        return None
    return {
        "id": order_id,
        "issued_at": utc_text(now_s),
        "expires_at": utc_text(begin_s),
        "intervals": intervals,
        "response_s": 5.0,
        "power_step_w": POWER_STEP_PU * rating_w,
        "price_step_per_kwh": PRICE_STEP_PER_KWH,
        "error_bound_w": bound_w,
    }


def _interval(
    market: Market, bids: Sequence[Bid], fixed_w: float, step_w: float, begin_s: float
) -> tuple[dict[str, Any], float]:
    """One interval, and how far its curve is from the children's at most."""
    lower_w = ceil((fixed_w + sum(bid.lower_w for bid in bids)) / step_w - 1e-9) * step_w
    upper_w = max(floor((fixed_w + sum(bid.upper_w for bid in bids)) / step_w + 1e-9) * step_w, lower_w)
    up_wh, down_wh = market.energies_wh(begin_s)
    points = _points(bids, fixed_w, step_w, lower_w, upper_w)
    interval = {
        "start": utc_text(begin_s),
        "duration_s": market.settings.interval_s,
        "curve": [{"price_per_kwh": price, "power_w": power_w} for price, power_w in points],
        "lower_w": lower_w,
        "upper_w": upper_w,
        "energy_up_wh": up_wh,
        "energy_down_wh": down_wh,
    }
    return interval, _error_w(bids, fixed_w, Bid(tuple(points), lower_w, upper_w))


def _error_w(bids: Sequence[Bid], fixed_w: float, offered: Bid) -> float:
    """Both are straight between the prices at which one of them bends."""
    prices = offered.bends().union(*(bid.bends() for bid in bids))
    return max(
        abs(fixed_w + sum(side(bid, price) for bid in bids) - side(offered, price))
        for price in prices
        for side in (Bid.below, Bid.above)
    )


def _points(
    bids: Sequence[Bid], fixed_w: float, step_w: float, lower_w: float, upper_w: float
) -> list[tuple[float, float]]:
    """Both sides of a jump at a price of the grid, and once where there is none."""
    found: list[tuple[float, float]] = []
    for price in GRID_PRICES:
        for sum_w in (sum(bid.below(price) for bid in bids), sum(bid.above(price) for bid in bids)):
            power_w = min(max(round((fixed_w + sum_w) / step_w) * step_w, lower_w), upper_w)
            if not found or found[-1] != (price, power_w):
                found.append((price, power_w))
    assert all(after[1] <= before[1] for before, after in pairwise(found))
    return found
