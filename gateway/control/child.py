"""A layer below as a resource: what its offer for the present interval leaves to be asked of it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import Final

from config.vocabulary import (
    AUTHORITY,
    AUTHORITY_HELD,
    OFFER_CURVE,
    OFFER_LOWER_W,
    OFFER_RESPONSE_S,
    OFFER_UPPER_W,
    Quality,
)
from gateway.control.clearing import Curve, make_curve
from gateway.control.envelope import Bound
from gateway.control.model import DeviceModel
from gateway.image import DeviceImage

OFFER_STALE_S: Final = 10.0
"""What holds of an offer is told again with each telemetry message; older than this it is not believed."""

KEPT: Final = 4096
IMPLAUSIBLE_PU: Final = 1.5


def child_refusal(model: DeviceModel, device: DeviceImage, power_w: float | None) -> str:
    """Why a layer below can't be given a share; empty: it can."""
    if power_w is None or abs(power_w) > IMPLAUSIBLE_PU * model.rating_w:
        return "no good power"
    if not model.controllable:
        return "read-only"
    if not device.present:
        return "lost"
    return "" if device.sample(AUTHORITY).value == AUTHORITY_HELD else "authority is not held"


def lost_child(model: DeviceModel, envelope_w: tuple[float, float] | None) -> DeviceModel:
    """The model of a layer that can't be asked: anything of what it last offered may come, until its own fallback."""
    return _with_envelope(model, *(envelope_w or (min(model.min_w, 0.0), max(model.max_w, 0.0))))


@lru_cache(KEPT)
def _with_envelope(model: DeviceModel, lower_w: float, upper_w: float) -> DeviceModel:
    return replace(model, reverted_w=(lower_w, upper_w), reverts_from_s=0.0)


def with_response(model: DeviceModel, device: DeviceImage, now_s: float) -> DeviceModel:
    """The model with the response that is offered, where that is slower than the site file's."""
    told_s = device.number(OFFER_RESPONSE_S, now_s, OFFER_STALE_S)
    return model if told_s is None or told_s <= model.response_s else _with_tr90(model, told_s - model.dead_time_s)


@lru_cache(KEPT)
def _with_tr90(model: DeviceModel, tr90_s: float) -> DeviceModel:
    return replace(model, tr90_s=tr90_s)


def offered_curve(device: DeviceImage, now_s: float) -> Curve | None:
    """The curve of the present interval; None where nothing is offered."""
    value, quality, measured_s = device.sample(OFFER_CURVE)
    if quality is Quality.BAD or not isinstance(value, str) or now_s - measured_s > OFFER_STALE_S:
        return None
    return _curve(value)


def child_bounds(model: DeviceModel, device: DeviceImage, now_s: float) -> tuple[Bound, Bound]:
    """The envelope that is offered, inside the site file's bounds."""
    lower_w = device.number(OFFER_LOWER_W, now_s, OFFER_STALE_S)
    upper_w = device.number(OFFER_UPPER_W, now_s, OFFER_STALE_S)
    return _bounds(
        model.min_w if lower_w is None else min(max(lower_w, model.min_w), model.max_w),
        model.max_w if upper_w is None else max(min(upper_w, model.max_w), model.min_w),
    )


@lru_cache(KEPT)
def _bounds(lower_w: float, upper_w: float) -> tuple[Bound, Bound]:
    """The same objects in every cycle."""
    return Bound(lower_w, "its offer"), Bound(upper_w, "its offer")


@lru_cache(KEPT)
def _curve(text: str) -> Curve | None:
    """None for what is no curve: the driver has checked it, a recording may hold anything."""
    try:
        return make_curve([(float(price), float(power_w)) for price, power_w in json.loads(text)])
    except (ValueError, TypeError):
        return None
