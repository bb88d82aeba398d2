"""From a plan to curves: what each resource takes at each price until the next plan comes.

A storage takes power while a kWh costs less than it is worth in store, and gives power while it earns more.
"""

from __future__ import annotations

from typing import Final

from gateway.planning.model import BatteryPlan, Plan, PlanInput

CurvePoints = tuple[tuple[float, float], ...]
"""(price per kWh, power in watts in load convention): prices ascend, powers do not rise."""

SLOPE_PER_KWH: Final = 0.005
"""Over this width of price a storage goes from nothing to everything, so that equal ones share and none chatters."""


def curves(given: PlanInput, plan: Plan) -> dict[str, CurvePoints]:
    """The curve of every resource that the plan has a value for, or a power of."""
    by_name = {resource.name: resource for resource in plan.resources}
    found: dict[str, CurvePoints] = {}
    for battery in given.batteries:
        resource = by_name[battery.name]
        if resource.value_per_kwh is not None:
            found[battery.name] = battery_curve(battery, resource.value_per_kwh)
    for vehicle in given.vehicles:
        resource = by_name[vehicle.name]
        if resource.value_per_kwh is not None and vehicle.from_step <= 0 < vehicle.until_step:
            found[vehicle.name] = taker_curve(vehicle.max_w, resource.value_per_kwh)
    for inverter in given.solar:
        found[inverter.name] = ((0.0, 0.0), (0.0, -max(inverter.available_w)))
    for pump in given.thermal:
        resource = by_name[pump.name]
        if resource.value_per_kwh is not None:
            found[pump.name] = taker_curve(pump.max_w, resource.value_per_kwh * pump.cop)
    return found


def battery_curve(battery: BatteryPlan, value_per_kwh: float) -> CurvePoints:
    """Charge below what a kWh in store is worth after losses and wear, discharge above what it costs to give one."""
    buys = value_per_kwh * battery.charge_efficiency_pu - battery.wear_per_kwh
    sells = max(value_per_kwh / battery.discharge_efficiency_pu + battery.wear_per_kwh, buys)
    return (
        (buys - SLOPE_PER_KWH, battery.charge_w),
        (buys, 0.0),
        (sells, 0.0),
        (sells + SLOPE_PER_KWH, -battery.discharge_w),
    )


def taker_curve(max_w: float, value_per_kwh: float) -> CurvePoints:
    """Takes everything while a kWh costs less than it is worth."""
    return ((value_per_kwh - SLOPE_PER_KWH / 2.0, max_w), (value_per_kwh + SLOPE_PER_KWH / 2.0, 0.0))
