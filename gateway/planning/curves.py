"""From a plan to curves: what each resource takes at each price until the next plan comes.

A storage takes power while a kWh costs less than it is worth in store, and gives power while it earns more.
"""

from __future__ import annotations

from typing import Final

from gateway.planning.model import BatteryPlan, Plan, PlanInput

CurvePoints = tuple[tuple[float, float], ...]
"""(price per kWh, power in watts in load convention): prices ascend, powers do not rise."""

Planned = tuple[float, float]
"""The plan's price in its first step, and its power there."""

SLOPE_PER_KWH: Final = 0.005
"""Over this width of price a storage goes from nothing to everything, so that equal ones share and none chatters."""


def curves(given: PlanInput, plan: Plan) -> dict[str, CurvePoints]:
    """The curve of every resource that the plan has a value for, or a power of."""
    by_name = {resource.name: resource for resource in plan.resources}
    price = plan.lambda_per_kwh[0]
    found: dict[str, CurvePoints] = {}
    for battery in given.batteries:
        resource = by_name[battery.name]
        if resource.value_per_kwh is not None:
            found[battery.name] = battery_curve(battery, resource.value_per_kwh, (price, resource.power_w[0]))
    for vehicle in given.vehicles:
        resource = by_name[vehicle.name]
        if resource.value_per_kwh is not None and vehicle.from_step <= 0 < vehicle.until_step:
            found[vehicle.name] = taker_curve(vehicle.max_w, resource.value_per_kwh, (price, resource.power_w[0]))
    for inverter in given.solar:
        found[inverter.name] = ((0.0, 0.0), (0.0, -max(inverter.available_w)))
    for pump in given.thermal:
        resource = by_name[pump.name]
        if resource.value_per_kwh is not None:
            worth = resource.value_per_kwh * pump.cop
            found[pump.name] = taker_curve(pump.max_w, worth, (price, resource.power_w[0]))
    return found


def battery_curve(battery: BatteryPlan, value_per_kwh: float, planned: Planned | None = None) -> CurvePoints:
    """Charge below what a kWh in store is worth after losses and wear, discharge above what it costs to give one."""
    buys = value_per_kwh * battery.charge_efficiency_pu - battery.wear_per_kwh
    sells = max(value_per_kwh / battery.discharge_efficiency_pu + battery.wear_per_kwh, buys)
    charging = _fall(buys, battery.charge_w, 0.0, planned)
    discharging = _fall(sells, 0.0, -battery.discharge_w, planned)
    return _joined(charging, discharging)


def taker_curve(max_w: float, value_per_kwh: float, planned: Planned | None = None) -> CurvePoints:
    """Takes everything while a kWh costs less than it is worth."""
    return _fall(value_per_kwh, max_w, 0.0, planned)


def _fall(at: float, high_w: float, low_w: float, planned: Planned | None) -> CurvePoints:
    """From one power to a lower one about a price.

    Where the plan's price is at the edge, what the plan takes in part decides: by the price alone it would be all or
    nothing.
    """
    half = SLOPE_PER_KWH / 2.0
    if planned is not None and abs(planned[0] - at) <= SLOPE_PER_KWH:
        price, power_w = planned
        return (price - half, high_w), (price, min(max(power_w, low_w), high_w)), (price + half, low_w)
    return (at - half, high_w), (at + half, low_w)


def _joined(upper: CurvePoints, lower: CurvePoints) -> CurvePoints:
    """One fall after the other; where they would overlap, the lower one begins at the upper one's end."""
    end = upper[-1][0]
    shift = max(end - lower[0][0], 0.0)
    return *upper, *((max(price + shift, end), power_w) for price, power_w in lower)
