"""Regulation without a planner: room for what was promised, and storage that lasts for it.

The base stays so far inside what the devices and the limits allow that the promised reserve fits on both sides.
Storage that has less energy than its part of the reserve needs values it higher, one that has less room values it
lower, so that other devices, and other storage, carry more of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from config.vocabulary import SOC, DeviceKind
from gateway.control.clearing import Bid, Curve
from gateway.control.connection import SumBounds
from gateway.control.envelope import regulation_signal
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce
from gateway.control.resources import SLOW_POINT_STALE_S, Resource
from gateway.image import Image

LASTING_S: Final = 900.0
"""So long can a storage give its part of the reserve, or take it."""

WORTH_PER_KWH: Final = 1.0
"""What the last of the energy that a reserve needs is worth beside its curve: more than any car waits for by itself."""

WORTH_STEPS: Final = 32
CURVES_KEPT: Final = 4096

MOVED_PU: Final = 0.01
"""Of the connection's rating: a base that is moved by more is reported."""

_BATTERY: Final = DeviceKind.BATTERY


def promised(orders: OrdersInForce) -> DispatchInForce | None:
    """The dispatch whose reserve control keeps by itself; None without one, and where a plan does it."""
    dispatch = orders.dispatch
    if dispatch is None or orders.plan is not None:
        return None
    return dispatch if max(dispatch.regulation_up_w, dispatch.regulation_down_w) > 0.0 else None


def with_lasting_storage(resources: list[Resource], orders: OrdersInForce, image: Image) -> list[Resource]:
    """The resources, with the curves of storage moved by what its state of charge means for the reserve."""
    dispatch = promised(orders)
    if dispatch is None:
        return resources
    storage_w = sum([one.model.rating_w for one in resources if one.usable and one.model.kind is _BATTERY])
    result = []
    for one in resources:
        model = one.model
        if one.usable and model.kind is _BATTERY and model.capacity_wh:
            soc = image.devices[model.name].number(SOC, image.now_s, SLOW_POINT_STALE_S)
            if soc is not None:
                part = model.rating_w / storage_w
                worth = reserve_worth(model, soc, part * dispatch.regulation_up_w, part * dispatch.regulation_down_w)
                one = one._replace(curve=_dearer(one.curve, round(worth * WORTH_STEPS))) if worth else one
        result.append(one)
    return result


def reserve_worth(model: DeviceModel, soc: float, up_w: float, down_w: float) -> float:
    """From 1 (nothing left of what the reserve up needs) to -1 (no room for the reserve down); 0 where both last.

    Where the capacity is too small for both, it is 0 where they last equally long.
    """
    held_wh = (soc - model.soc_min) * (model.capacity_wh or 0.0)
    room_wh = (model.soc_max - soc) * (model.capacity_wh or 0.0)
    up_wh, down_wh = up_w * LASTING_S / 3600.0, down_w * LASTING_S / 3600.0
    short = 1.0 - min(max(held_wh / up_wh, 0.0), 1.0) if up_wh > 0.0 else 0.0
    tight = 1.0 - min(max(room_wh / down_wh, 0.0), 1.0) if down_wh > 0.0 else 0.0
    return short - tight


@lru_cache(CURVES_KEPT)
def _dearer(curve: Curve, steps: int) -> Curve:
    by_per_kwh = WORTH_PER_KWH * steps / WORTH_STEPS
    return Curve(tuple([price + by_per_kwh for price in curve.prices_per_kwh]), curve.powers_w)


def with_room_kept(
    bounds: SumBounds, bids: Sequence[Bid], orders: OrdersInForce, now_s: float, rating_w: float
) -> tuple[SumBounds, str]:
    """The bounds with their target moved so that the reserve fits around its base; and that, if it is worth a word.

    Where not all of it fits, each side gets its part of the room.
    """
    dispatch = promised(orders)
    if dispatch is None or bounds.target_w is None:
        return bounds, ""
    signal = regulation_signal(orders, now_s)
    asked_w = signal * (dispatch.regulation_up_w if signal > 0.0 else dispatch.regulation_down_w)
    lower_w = max(bounds.lower_w, sum([bid.lower_w for bid in bids]))
    upper_w = min(bounds.upper_w, sum([bid.upper_w for bid in bids]))
    base_w = bounds.target_w + asked_w
    kept_w = base_with_room(base_w, lower_w, upper_w, dispatch.regulation_up_w, dispatch.regulation_down_w)
    target_w = min(max(kept_w - asked_w, bounds.lower_w), bounds.upper_w)
    told = ""
    if abs(kept_w - base_w) > MOVED_PU * rating_w:
        source = f"{dispatch.source} {dispatch.order_id}"
        told = f"{source}: base moved by {kept_w - base_w:+.0f} W, so that the regulation promised fits"
    return bounds._replace(target_w=target_w), told


def base_with_room(base_w: float, lower_w: float, upper_w: float, up_w: float, down_w: float) -> float:
    """The base nearest to `base_w` with `up_w` below it and `down_w` above it inside the bounds."""
    room_w = upper_w - lower_w
    if room_w <= 0.0:
        return base_w
    fits = min(room_w / (up_w + down_w), 1.0)
    return min(max(base_w, lower_w + fits * up_w), upper_w - fits * down_w)
