"""An input's numbers as the parameters of the program, in kW and kWh."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, Final

import numpy as np

from gateway.planning.child_plan import CHILD_BLOCKS, CHILD_STEPS
from gateway.planning.model import PlanInput, VehiclePlan

UNLIMITED_KW: Final = 1e6


def parameter_values(given: PlanInput) -> dict[str, Any]:
    """Every parameter's value by name."""
    fixed = [child.base_w for child in given.children]
    values = {"load": kw(given.load_w) + np.sum(kw(fixed), axis=0), **_interchange_values(given)}
    if given.batteries:
        values |= _battery_values(given)
    if given.vehicles:
        values |= _vehicle_values(given)
    if given.solar:
        values["solar_available"] = np.sum(kw([one.available_w for one in given.solar]), axis=0)
    if given.thermal:
        values |= _thermal_values(given)
    if given.children:
        values |= _child_values(given)
    if given.reserve is not None:
        values |= _reserve_values(given)
    return values


def kw(values_w: Any) -> Any:
    """Watts as an array of kilowatts."""
    return np.asarray(values_w, dtype=float) / 1e3


def watts(values_kw: Any) -> tuple[float, ...]:
    """The other way."""
    return tuple((np.asarray(values_kw) * 1e3).tolist())


def _each_step(values: Sequence[float], steps: int) -> Any:
    return np.repeat(np.asarray(values, dtype=float)[:, None], steps, axis=1)


def _interchange_values(given: PlanInput) -> dict[str, Any]:
    values: dict[str, Any] = {
        "import_price": np.asarray(given.tariff.import_per_kwh),
        # An export price above the import's would be earned by turning power round at the meter.
        "export_price": np.minimum(given.tariff.export_per_kwh, given.tariff.import_per_kwh),
        "peak_so_far": given.tariff.peak_so_far_w / 1e3,
        "demand_price": given.tariff.demand_per_kw,
    }
    for name, limit_w in (("import_limit", given.import_limit_w), ("export_limit", given.export_limit_w)):
        values[name] = np.minimum(kw(limit_w or (inf,) * given.steps), UNLIMITED_KW)
    if given.dispatch_w:
        asked = [(None, None) if power is None else (power / 1e3, power / 1e3) for power in given.dispatch_w]
        values["dispatch_least"] = np.asarray([-UNLIMITED_KW if low is None else low for low, _ in asked])
        values["dispatch_most"] = np.asarray([UNLIMITED_KW if high is None else high for _, high in asked])
    return values


def _battery_values(given: PlanInput) -> dict[str, Any]:
    every, steps = given.batteries, given.steps
    full = [one.capacity_wh / 1e3 for one in every]
    least = [min(one.soc_min, one.soc) * kwh for one, kwh in zip(every, full, strict=True)]
    most = [max(one.soc_max, one.soc) * kwh for one, kwh in zip(every, full, strict=True)]
    target = [(one.soc if one.target_soc is None else one.target_soc) for one in every]
    return {
        "battery_start": np.asarray([[one.soc * kwh] for one, kwh in zip(every, full, strict=True)]),
        "battery_charge": _each_step([one.charge_w / 1e3 for one in every], steps),
        "battery_discharge": _each_step([one.discharge_w / 1e3 for one in every], steps),
        "battery_least": _each_step(least, steps),
        "battery_most": _each_step(most, steps),
        "battery_target": np.asarray([soc * kwh for soc, kwh in zip(target, full, strict=True)]),
    }


def window(vehicle: VehiclePlan, steps: int) -> tuple[int, int]:
    """The steps in which a car can charge; one at the least, so that a car which is gone has a place in the program."""
    begin = min(max(vehicle.from_step, 0), steps - 1)
    return begin, min(max(vehicle.until_step, begin + 1), steps)


def _vehicle_values(given: PlanInput) -> dict[str, Any]:
    most = [
        one.max_w / 1e3 if one.from_step <= step < one.until_step else 0.0
        for one in given.vehicles
        for step in range(*window(one, given.steps))
    ]
    return {"vehicle_most": np.asarray(most), "vehicle_needed": kw([one.needed_wh for one in given.vehicles])}


def _thermal_values(given: PlanInput) -> dict[str, Any]:
    every, steps = given.thermal, given.steps
    return {
        "thermal_most": _each_step([one.max_w / 1e3 for one in every], steps),
        "thermal_start": kw([[one.stored_wh] for one in every]),
        "thermal_drawn": kw([one.heat_w for one in every]),
        "thermal_least": _each_step([one.least_wh / 1e3 for one in every], steps),
        "thermal_full": _each_step([one.most_wh / 1e3 for one in every], steps),
    }


def child_steps(steps: int) -> int:
    """In how many steps children may be asked for another power than they plan."""
    return min(steps, CHILD_STEPS)


def _child_values(given: PlanInput) -> dict[str, Any]:
    """By child and step, one row each: what it takes more than its base is a variable."""
    count, first = len(given.children), child_steps(given.steps)
    prices, widths = np.zeros((count * first, CHILD_BLOCKS)), np.zeros((count * first, CHILD_BLOCKS))
    lower, ramp = np.zeros(count * first), np.zeros(count * first)
    for at, child in enumerate(given.children):
        for step in range(first):
            row, offered = at * first + step, child.steps[step] if step < len(child.steps) else None
            base_kw = child.base_w[step] / 1e3
            before_kw = child.base_w[max(step - 1, 0)] / 1e3
            reach_kw = UNLIMITED_KW if child.ramp_w_per_s is None else child.ramp_w_per_s * given.step_s / 1e3
            # What the child plans itself it can do, whatever it says of its ramp.
            ramp[row] = max(reach_kw, 2.0 * abs(base_kw - before_kw))
            if offered is None:
                continue
            lower[row] = offered.lower_w / 1e3 - base_kw
            for block, (price, width_w) in enumerate(offered.blocks):
                prices[row, block], widths[row, block] = price, width_w / 1e3
    return {
        "child_prices": prices,
        "child_widths": widths,
        "child_lower": lower,
        "child_ramp": ramp,
        "child_base": np.concatenate([kw(child.base_w[:first]) for child in given.children]),
        **_child_energy(given, first),
    }


def _child_energy(given: PlanInput, first: int) -> dict[str, Any]:
    """What it offers in any one step a child can do; in several together as far as its energy goes."""
    up_wh, down_wh, hours = [], [], given.step_s / 3600.0
    for child in given.children:
        offered = [(step, base) for step, base in zip(child.steps, child.base_w, strict=False) if step is not None]
        up_wh.append(max(child.energy_up_wh, *((base - step.lower_w) * hours for step, base in offered), 0.0))
        down_wh.append(max(child.energy_down_wh, *((step.upper_w - base) * hours for step, base in offered), 0.0))
    return {"child_up_kwh": np.repeat(kw(up_wh), first), "child_down_kwh": np.repeat(kw(down_wh), first)}


def checked_steps(steps: int, hours: float) -> list[int]:
    """The steps, `hours` long, at whose begin the energy behind a reserve is looked at."""
    each = max(round(1.0 / hours), 1)
    return [step for step in range(steps) if step < each or step % each == 0]


def _reserve_values(given: PlanInput) -> dict[str, Any]:
    assert given.reserve is not None
    steps, hours = given.steps, given.reserve.lasting_s / 3600.0
    up, down = kw(given.reserve.up_w), kw(given.reserve.down_w)
    every, at = given.batteries, checked_steps(steps, given.step_s / 3600.0)
    return {
        "reserve_up": up,
        "reserve_down": down,
        "reserve_up_kwh": up[at] * hours,
        "reserve_down_kwh": down[at] * hours,
        "battery_all_out": np.full(steps, sum(one.discharge_w for one in every) / 1e3),
        "battery_all_in": np.full(steps, sum(one.charge_w for one in every) / 1e3),
        "battery_floor_kwh": np.full(len(at), sum(one.soc_min * one.capacity_wh for one in every) / 1e3),
        "battery_ceiling_kwh": np.full(len(at), sum(one.soc_max * one.capacity_wh for one in every) / 1e3),
    }
