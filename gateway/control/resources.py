"""Resources: what each device can be asked for in this cycle, from its samples' values, quality and age."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from config.vocabulary import MAX_CHARGE_W, MAX_DISCHARGE_W, POWER_W, SOC, DeviceKind, Quality
from gateway.control.ceilings import available_w
from gateway.control.ceilings import ceiling_headroom_w as ceiling_headroom_w
from gateway.control.chargers import SLOW_POINT_STALE_S as SLOW_POINT_STALE_S
from gateway.control.chargers import Cycle, charger_bounds
from gateway.control.child import child_bounds, child_refusal, lost_child, offered_curve, with_response
from gateway.control.clearing import Curve, make_curve
from gateway.control.envelope import Bound
from gateway.control.model import DeviceModel
from gateway.control.resource_memory import ResourceMemory
from gateway.image import DeviceImage, Image, number_in

DOES_NOT_FOLLOW: Final = "does not follow"

BOUNDS_KEPT: Final = 4096

# Attributes of an enumeration cost as much as a call, and these are compared for every device of every cycle.
_BAD: Final = Quality.BAD
_BATTERY: Final = DeviceKind.BATTERY
_CHARGER: Final = DeviceKind.CHARGER
_INVERTER: Final = DeviceKind.INVERTER
_LAYER: Final = DeviceKind.LAYER
# A third of the time of `Resource(...)`, and there is one for every device of every cycle.
_new: Final = tuple.__new__
_SOC_UNKNOWN: Final = Bound(0.0, "state of charge unknown")
_FULL: Final = Bound(0.0, "full")
_EMPTY: Final = Bound(0.0, "empty")


class Resource(NamedTuple):
    """One device as control sees it now. `usable`: it may be given a share; otherwise its power is part of the rest.

    `power_w` is None where no good sample exists. Bounds carry who set them.
    """

    model: DeviceModel
    power_w: float | None
    measured_s: float
    quality: Quality
    usable: bool
    lower: Bound
    upper: Bound
    curve: Curve


def build_resources(
    models: tuple[DeviceModel, ...], image: Image, stale_after_s: float, memory: ResourceMemory
) -> list[Resource]:
    """Every device's resource, in the order of `models`."""
    return [_resource(model, image, stale_after_s, memory) for model in models]


def _resource(model: DeviceModel, image: Image, stale_after_s: float, memory: ResourceMemory) -> Resource:
    now_s = image.now_s
    device = image.devices.get(model.name)
    if device is None:
        return _unusable(model, None, 0.0, _BAD, "never heard")
    if model.kind is _LAYER:
        return _layer(model, device, now_s, model.stale_after_s or stale_after_s, memory)
    sample = device.sample(POWER_W)
    power = number_in(sample, now_s, model.stale_after_s or stale_after_s)
    _, quality, measured_s = sample
    if power is None or not abs(power) <= 1.5 * model.rating_w:
        return _unusable(model, None, measured_s, _BAD, "no good power")
    if not model.controllable or not device.present:
        reason = "read-only" if not model.controllable else "lost"
        return _unusable(model, power, measured_s, quality, reason)
    known = memory.devices.get(model.name) or memory.of(model)
    if model.kind is _CHARGER:
        known.sampled(measured_s)
        cycle = _new(Cycle, (now_s, measured_s, power))
        lower, upper, curve = charger_bounds(model, device, cycle, known, memory)
        return _new(Resource, (model, power, measured_s, quality, True, lower, upper, curve))
    if model.kind is _BATTERY:
        lower, upper = _battery_bounds(model, device, now_s)
    else:
        lower, upper = _site_bounds(model.min_w, model.max_w)
    if not model.ceiling:
        if known.stuck(model, now_s, measured_s, power):
            lower = upper = Bound(power, DOES_NOT_FOLLOW)
    elif model.kind is _INVERTER:
        known.sampled(measured_s)
        has_w = available_w(known, model, now_s, measured_s, power)
        if -has_w > lower.value_w:
            lower = _new(Bound, (-has_w, "available power"))
    return _new(Resource, (model, power, measured_s, quality, True, lower, upper, model.curve))


def _layer(
    model: DeviceModel, device: DeviceImage, now_s: float, stale_after_s: float, memory: ResourceMemory
) -> Resource:
    """A layer below: bounds and curve from its offer; without one, flat at the power that it had then."""
    power = device.number(POWER_W, now_s, stale_after_s)
    _, quality, measured_s = device.sample(POWER_W)
    refusal = child_refusal(model, device, power)
    if power is None or refusal:
        lost = lost_child(model, memory.of(model).envelope_w)
        return _unusable(lost, power, measured_s, quality if power is not None else _BAD, refusal or "no good power")
    curve, known = offered_curve(device, now_s), memory.of(model)
    if curve is None:
        held_w = known.unoffered_w = power if known.unoffered_w is None else known.unoffered_w
        lower, upper = _site_bounds(model.min_w, model.max_w)
        curve = make_curve([(0.0, min(max(held_w, model.min_w), model.max_w))])
    else:
        known.unoffered_w = None
        lower, upper = child_bounds(model, device, now_s)
        known.envelope_w = lower.value_w, upper.value_w
        model = with_response(model, device, now_s)
    if known.stuck(model, now_s, measured_s, power):
        lower = upper = Bound(power, DOES_NOT_FOLLOW)
    return _new(Resource, (model, power, measured_s, quality, True, lower, upper, curve))


def _unusable(model: DeviceModel, power_w: float | None, measured_s: float, quality: Quality, reason: str) -> Resource:
    held = Bound(power_w or 0.0, reason)
    return Resource(model, power_w, measured_s, quality, False, held, held, model.curve)


@lru_cache(BOUNDS_KEPT)
def _site_bounds(lower_w: float, upper_w: float) -> tuple[Bound, Bound]:
    """The same objects in every cycle."""
    return Bound(lower_w, "site file"), Bound(upper_w, "site file")


def _battery_bounds(model: DeviceModel, device: DeviceImage, now_s: float) -> tuple[Bound, Bound]:
    """The site file's limits, what the battery says it can do, and the state of charge; unknown charge means 0 W."""
    lower, upper = _site_bounds(model.min_w, model.max_w)
    soc = device.number(SOC, now_s, SLOW_POINT_STALE_S)
    if soc is None or not 0.0 <= soc <= 1.0:
        return _SOC_UNKNOWN, _SOC_UNKNOWN
    most = device.number(MAX_CHARGE_W, now_s, SLOW_POINT_STALE_S)
    least = device.number(MAX_DISCHARGE_W, now_s, SLOW_POINT_STALE_S)
    if most is not None and most < upper.value_w:
        upper = Bound(max(most, 0.0), "battery's charge limit")
    if least is not None and -least > lower.value_w:
        lower = Bound(min(-least, 0.0), "battery's discharge limit")
    if soc >= model.soc_max:
        upper = _FULL
    if soc <= model.soc_min:
        lower = _EMPTY
    return lower, upper
