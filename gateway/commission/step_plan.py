"""Which step a device may be given now: within its own limits, the site's, and its state of charge."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from config.vocabulary import ChargingState, DeviceKind
from gateway.control.model import DeviceModel, SiteModel

SOC_ROOM: Final = 0.02
"""Kept from the limits of the state of charge."""

_WITH_A_CAR: Final = (ChargingState.B, ChargingState.C, ChargingState.D)
_MORE_THAN_THE_STEP: Final = 1.1
"""An inverter is curtailed only where it generates so much more than the step."""


class Bounds(NamedTuple):
    """Net power at the connection that the site allows, load convention."""

    lower_w: float
    upper_w: float


class StepPlan(NamedTuple):
    """The setpoint before and at the step, and the change of power that should follow."""

    base_w: float
    target_w: float
    change_w: float


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known before the step, load convention; None where it isn't."""

    power_w: float
    net_w: float | None
    soc: float | None = None
    charging_state: str | None = None
    max_charge_w: float | None = None
    max_discharge_w: float | None = None


def bounds_of(model: SiteModel, *, has_parents: bool) -> Bounds:
    """The installer's limits, and the fallback where parents exist: none is spoken to while a site is commissioned."""
    upper_w, lower_w = model.max_import_w, -model.max_export_w
    if has_parents and model.fallback_import_w is not None:
        upper_w = min(upper_w, model.fallback_import_w)
    if has_parents and model.fallback_export_w is not None:
        lower_w = max(lower_w, -model.fallback_export_w)
    return Bounds(lower_w, upper_w)


def plan_step(device: DeviceModel, now: Situation, bounds: Bounds, step_w: float) -> StepPlan | str:
    """The step to make, or in words why there is none."""
    match device.kind:
        case DeviceKind.BATTERY:
            return _battery(device, now, bounds, step_w)
        case DeviceKind.CHARGER:
            return _charger(device, now, bounds, step_w)
        case DeviceKind.INVERTER:
            return _inverter(device, now, bounds, step_w)
    return f"a {device.kind} takes no setpoint in watts"


def _battery(device: DeviceModel, now: Situation, bounds: Bounds, step_w: float) -> StepPlan | str:
    if now.soc is None:
        return "its state of charge is not known"
    reasons = []
    sides = (1.0, -1.0) if now.soc < 0.5 else (-1.0, 1.0)
    for side in sides:
        reason = _battery_side(device, now, side * step_w) or _site_refuses(now, bounds, -now.power_w, side * step_w)
        if not reason:
            return StepPlan(0.0, side * step_w, side * step_w)
        reasons.append(f"{'charging' if side > 0 else 'discharging'}: {reason}")
    return "; ".join(reasons)


def _battery_side(device: DeviceModel, now: Situation, target_w: float) -> str:
    assert now.soc is not None  # checked by the caller
    if target_w > 0:
        most_w = device.max_w if now.max_charge_w is None else min(device.max_w, now.max_charge_w)
        full = now.soc > device.soc_max - SOC_ROOM
    else:
        most_w = -device.min_w if now.max_discharge_w is None else min(-device.min_w, now.max_discharge_w)
        full = now.soc < device.soc_min + SOC_ROOM
    if full:
        return f"its state of charge is {now.soc:.2f}"
    return f"it takes {max(most_w, 0.0):.0f} W at most" if abs(target_w) > most_w else ""


def _charger(device: DeviceModel, now: Situation, bounds: Bounds, step_w: float) -> StepPlan | str:
    if now.charging_state not in _WITH_A_CAR:
        return "no car is plugged in"
    target_w = max(step_w, device.minimum_w)
    if device.step_w:
        target_w = math.ceil(target_w / device.step_w - 1e-9) * device.step_w
    if target_w > device.max_w:
        return f"its least step is {target_w:.0f} W, and it takes {device.max_w:.0f} W at most"
    reason = _site_refuses(now, bounds, -now.power_w, target_w)
    return reason or StepPlan(0.0, target_w, target_w)


def _inverter(device: DeviceModel, now: Situation, bounds: Bounds, step_w: float) -> StepPlan | str:
    generated_w = -now.power_w
    if generated_w < _MORE_THAN_THE_STEP * step_w:
        return f"it generates {max(generated_w, 0.0):.0f} W, too little to curtail it by {step_w:.0f} W"
    reason = _site_refuses(now, bounds, 0.0, step_w)
    return reason or StepPlan(device.min_w, -(generated_w - step_w), step_w)


def _site_refuses(now: Situation, bounds: Bounds, to_base_w: float, change_w: float) -> str:
    """Outside the bounds only a step that leads back towards them is made."""
    if now.net_w is None:
        return ""
    before_w = now.net_w + to_base_w
    after_w = before_w + change_w
    inside = bounds.lower_w <= after_w <= bounds.upper_w
    relieves = (after_w > bounds.upper_w and change_w < 0) or (after_w < bounds.lower_w and change_w > 0)
    if inside or relieves:
        return ""
    return (
        f"the connection would go from {before_w:.0f} to {after_w:.0f} W, "
        f"and {bounds.lower_w:.0f} to {bounds.upper_w:.0f} W is allowed"
    )
