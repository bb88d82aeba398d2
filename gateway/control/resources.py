"""Resources: what each device can be asked for in this cycle, from its samples' values, quality and age."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from config.vocabulary import (
    CHARGING_STATE,
    MAX_CHARGE_W,
    MAX_DISCHARGE_W,
    POWER_W,
    SESSION_ENERGY_WH,
    SOC,
    ChargingState,
    DeviceKind,
    Quality,
)
from gateway.control.child import child_bounds, child_refusal, lost_child, offered_curve, with_response
from gateway.control.clearing import Curve, make_curve
from gateway.control.envelope import Bound
from gateway.control.model import DeviceModel
from gateway.image import DeviceImage, Image, number_in

SLOW_POINT_STALE_S: Final = 30.0
"""State of charge and charging state are polled slowly; older than this they are not believed."""

TAKES_LITTLE: Final = "the car takes less than the least current"
DOES_NOT_FOLLOW: Final = "does not follow"

PAUSE_S: Final = 10.0
"""A charger that was paused is not offered power again for this long: contactors and cars wear out by toggling."""

STUCK_S: Final = 3.0
STUCK_HOLD_S: Final = 30.0
FAR_PU: Final = 0.1
STILL_PU: Final = 0.02
"""A device that has moved less than `STILL_PU` of its rating for `STUCK_S` and three times its response, while it was
further than `FAR_PU` from what it was asked for, does not follow; others take its share, and it is tried again after
`STUCK_HOLD_S`."""

WAKE_S: Final = 6.0
"""A car that draws nothing for this long while it may is taken to want nothing; slow cars need about 5 s."""

CEILINGS_KEPT: Final = 256

BOUNDS_KEPT: Final = 4096

SAMPLE_SLACK_S: Final = 0.2
"""A sample may be this much older than the ceilings it is compared with."""

NEED_PRICE_PER_KWH: Final = 10.0
"""What a car's power is worth up to what its departure needs: above every battery, below no limit."""

CEILING_HEADROOM_PU: Final = 0.02
"""A held ceiling stays this part of the rating above what the device shows, so that more supply shows itself."""


# Attributes of an enumeration cost as much as a call, and these are compared for every device of every cycle.
_BAD: Final = Quality.BAD
_BATTERY: Final = DeviceKind.BATTERY
_CHARGER: Final = DeviceKind.CHARGER
_INVERTER: Final = DeviceKind.INVERTER
_LAYER: Final = DeviceKind.LAYER
# A third of the time of `Resource(...)`, and there is one for every device of every cycle.
_new: Final = tuple.__new__
_WITH_A_CAR: Final = frozenset(state.value for state in (ChargingState.B, ChargingState.C, ChargingState.D))
_NO_CAR: Final = Bound(0.0, "no car")
_STATE_UNKNOWN: Final = Bound(0.0, "charging state unknown")
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


@dataclass(slots=True)
class ResourceMemory:
    """What has to be remembered between cycles: when each car came, and the ceilings of the last seconds.

    `envelopes_w`: what each layer below last offered; `unoffered_w`: the power it had when it stopped to offer.
    """

    plugged_in_s: dict[str, float] = field(default_factory=dict)
    ceilings: dict[str, deque[tuple[float, float]]] = field(default_factory=dict)
    offered_since_s: dict[str, float] = field(default_factory=dict)
    import_presses: bool = False
    asked_w: dict[str, float] = field(default_factory=dict)
    still_since: dict[str, tuple[float, float]] = field(default_factory=dict)
    held_until_s: dict[str, float] = field(default_factory=dict)
    envelopes_w: dict[str, tuple[float, float]] = field(default_factory=dict)
    unoffered_w: dict[str, float] = field(default_factory=dict)

    def stuck(self, model: DeviceModel, now_s: float, measured_s: float, power_w: float) -> bool:
        """Whether a device stands still far from what it was asked for; it is then left as it is for `STUCK_HOLD_S`.

        Only a sample tells that was measured long enough after the asking.
        """
        if now_s < self.held_until_s.get(model.name, now_s):
            return True
        asked_w = self.asked_w.get(model.name, power_w)
        since_s, stood_w = self.still_since.get(model.name, (now_s, power_w))
        if abs(power_w - asked_w) <= FAR_PU * model.rating_w or abs(power_w - stood_w) > STILL_PU * model.rating_w:
            since_s, stood_w = now_s, power_w
        self.still_since[model.name] = since_s, stood_w
        if measured_s - since_s <= STUCK_S + 3.0 * (model.tr90_s + model.dead_time_s):
            return False
        del self.still_since[model.name]
        self.held_until_s[model.name] = now_s + STUCK_HOLD_S
        return True

    def asked(self, model: DeviceModel, now_s: float, share_w: float, setpoint_w: float) -> None:
        """What a device was asked for. A charger that is paused stays paused for `PAUSE_S`."""
        before_w = self.asked_w.get(model.name, 0.0)
        self.asked_w[model.name] = setpoint_w if model.ceiling else share_w
        if setpoint_w == 0.0 and before_w > 0.0 and model.kind is _CHARGER:
            self.held_until_s[model.name] = now_s + PAUSE_S
        if model.ceiling:
            self.commanded(model.name, now_s, abs(setpoint_w))

    def takes_little(self, model: DeviceModel, now_s: float, measured_s: float, power_w: float) -> bool:
        """Whether a car draws less than the least current that can be offered, so that its own power is all to expect.

        While an import limit presses, a car that may charge keeps its room for `WAKE_S`: power is granted after the
        headroom exists, and slow cars need that long to begin.
        """
        if model.step_w is None or power_w >= model.minimum_w - model.step_w:
            self.offered_since_s.pop(model.name, None)
            return False
        ceilings = self.ceilings.get(model.name)
        if model.name not in self.offered_since_s and ceilings and ceilings[-1][1] >= model.minimum_w:
            self.offered_since_s[model.name] = now_s
        since_s = self.offered_since_s.get(model.name)
        waited = since_s is not None and measured_s - since_s > WAKE_S + model.dead_time_s + model.tr90_s
        return waited or not self.import_presses

    def commanded(self, device: str, now_s: float, ceiling_w: float) -> None:
        """A ceiling that was asked for, as a magnitude."""
        known = self.ceilings.setdefault(device, deque(maxlen=CEILINGS_KEPT))
        if not known or known[-1][1] != ceiling_w:
            known.append((now_s, ceiling_w))

    def held_back(self, model: DeviceModel, measured_s: float, magnitude_w: float) -> bool:
        """Whether a device runs at its ceiling, so that there may be more; unknown counts as held back.

        It is not when it stays below every ceiling of its response window.
        """
        since_s = measured_s - model.dead_time_s - 2.0 * model.tr90_s - SAMPLE_SLACK_S
        reached_w = magnitude_w + ceiling_headroom_w(model) / 2.0
        for at_s, ceiling_w in reversed(self.ceilings.get(model.name, ())):
            if at_s <= measured_s and reached_w >= ceiling_w:
                return True
            if at_s <= since_s:
                return False
        return True


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
    lower, upper, curve = _protected(model, device, now_s, memory)
    if not model.ceiling and memory.stuck(model, now_s, measured_s, power):
        here = Bound(power, DOES_NOT_FOLLOW)
        return Resource(model, power, measured_s, quality, True, here, here, curve)
    charger = model.kind is _CHARGER
    if charger and now_s < memory.held_until_s.get(model.name, 0.0):
        lower = upper = Bound(0.0, "paused")
    if charger and upper.value_w > 0.0 and memory.takes_little(model, now_s, measured_s, power):
        upper = Bound(max(power, 0.0), TAKES_LITTLE)
        lower = Bound(min(lower.value_w, upper.value_w), lower.source)
    elif model.ceiling:
        lower, upper = _available(model, power, measured_s, lower, upper, memory)
    return _new(Resource, (model, power, measured_s, quality, True, lower, upper, curve))


def _layer(
    model: DeviceModel, device: DeviceImage, now_s: float, stale_after_s: float, memory: ResourceMemory
) -> Resource:
    """A layer below: bounds and curve from its offer; without one, flat at the power that it had then."""
    power = device.number(POWER_W, now_s, stale_after_s)
    _, quality, measured_s = device.sample(POWER_W)
    refusal = child_refusal(model, device, power)
    if power is None or refusal:
        lost = lost_child(model, memory.envelopes_w.get(model.name))
        return _unusable(lost, power, measured_s, quality if power is not None else _BAD, refusal or "no good power")
    curve = offered_curve(device, now_s)
    if curve is None:
        held_w = memory.unoffered_w.setdefault(model.name, power)
        lower, upper = _site_bounds(model.min_w, model.max_w)
        curve = make_curve([(0.0, min(max(held_w, model.min_w), model.max_w))])
    else:
        memory.unoffered_w.pop(model.name, None)
        lower, upper = child_bounds(model, device, now_s)
        memory.envelopes_w[model.name] = lower.value_w, upper.value_w
        model = with_response(model, device, now_s)
    if memory.stuck(model, now_s, measured_s, power):
        lower = upper = Bound(power, DOES_NOT_FOLLOW)
    return _new(Resource, (model, power, measured_s, quality, True, lower, upper, curve))


def _unusable(model: DeviceModel, power_w: float | None, measured_s: float, quality: Quality, reason: str) -> Resource:
    held = Bound(power_w or 0.0, reason)
    return Resource(model, power_w, measured_s, quality, False, held, held, model.curve)


def _protected(
    model: DeviceModel, device: DeviceImage, now_s: float, memory: ResourceMemory
) -> tuple[Bound, Bound, Curve]:
    if model.kind is _CHARGER:
        return _charger_bounds(model, device, now_s, memory)
    if model.kind is _BATTERY:
        lower, upper = _battery_bounds(model, device, now_s)
    else:
        lower, upper = _site_bounds(model.min_w, model.max_w)
    return lower, upper, model.curve


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


def _charger_bounds(
    model: DeviceModel, device: DeviceImage, now_s: float, memory: ResourceMemory
) -> tuple[Bound, Bound, Curve]:
    """An idle socket is held at 0; a car gets up to the rating, and what its departure needs is worth most."""
    value, quality, measured_s = device.sample(CHARGING_STATE)
    known = quality is not _BAD and now_s - measured_s <= SLOW_POINT_STALE_S
    if not known or value not in _WITH_A_CAR:
        memory.plugged_in_s.pop(model.name, None)
        memory.offered_since_s.pop(model.name, None)
        memory.held_until_s.pop(model.name, None)
        nothing = _NO_CAR if known else _STATE_UNKNOWN
        return nothing, nothing, model.curve
    since_s = memory.plugged_in_s.setdefault(model.name, now_s)
    lower, upper = _site_bounds(max(model.min_w, 0.0), model.max_w)
    if model.needed_wh is None or model.stay_s is None:
        return lower, upper, model.curve
    charged = device.number(SESSION_ENERGY_WH, now_s, SLOW_POINT_STALE_S) or 0.0
    left_wh = max(0.0, model.needed_wh - charged)
    left_s = max(since_s + model.stay_s - now_s, 1.0)
    return lower, upper, curve_with_need(model.curve, min(left_wh * 3600.0 / left_s, model.max_w))


def curve_with_need(curve: Curve, need_w: float) -> Curve:
    """The curve with its power up to `need_w` raised to `NEED_PRICE_PER_KWH`."""
    if need_w <= 0.0:
        return curve
    points = [(price, max(power, need_w)) for price, power in zip(curve.prices_per_kwh, curve.powers_w, strict=True)]
    return make_curve([*points, (NEED_PRICE_PER_KWH, need_w), (NEED_PRICE_PER_KWH, 0.0)])


def ceiling_headroom_w(model: DeviceModel) -> float:
    """How far above what a ceiling device shows its held ceiling stays: two steps, or a part of the rating.

    Two, because one would stay within the hysteresis of a step up.
    """
    return 2.0 * model.step_w if model.step_w is not None else CEILING_HEADROOM_PU * model.rating_w


def _available(
    model: DeviceModel, power_w: float, measured_s: float, lower: Bound, upper: Bound, memory: ResourceMemory
) -> tuple[Bound, Bound]:
    """Bounds narrowed to what a ceiling device shows that it takes (charger) or gives (inverter).

    A device that its ceiling holds back is expected to take or give the headroom besides, as soon as it may.
    """
    shown_w = abs(power_w)
    if memory.held_back(model, measured_s, shown_w):
        shown_w += ceiling_headroom_w(model)
    if model.kind is _INVERTER:
        if -shown_w > lower.value_w:
            lower = _new(Bound, (-shown_w, "available power"))
    else:
        # A car that has not begun is expected to take the least current, and a little more for the hysteresis.
        most_w = max(shown_w, model.minimum_w + ceiling_headroom_w(model))
        if most_w < upper.value_w:
            upper = _new(Bound, (most_w, "what the car takes"))
    return lower, upper
