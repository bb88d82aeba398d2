"""What devices do when nobody controls them: the cost against which savings are measured."""

from __future__ import annotations

from gateway.planning.model import BatteryPlan, Series, SolarPlan, ThermalPlan, VehiclePlan
from gateway.study.fleet import Building, Device


def uncontrolled_w(device: Device, steps: int, step_s: float) -> Series:
    """A battery rests, a car charges when it comes, an inverter gives all, a heat pump keeps its store as it is."""
    match device:
        case BatteryPlan():
            return (0.0,) * steps
        case VehiclePlan():
            return _at_once(device, steps, step_s)
        case SolarPlan():
            return tuple(-power for power in device.available_w)
        case ThermalPlan():
            lost_w = device.loss_pu_per_h * device.stored_wh
            return tuple(min((heat + lost_w) / device.cop, device.max_w) for heat in device.heat_w)


def uncontrolled_net_w(building: Building, step_s: float) -> Series:
    """The building's net power when nobody controls it."""
    steps = len(building.load_w)
    powers = [uncontrolled_w(device, steps, step_s) for device in building.devices]
    return tuple(sum(each) for each in zip(building.load_w, *powers, strict=True))


def _at_once(car: VehiclePlan, steps: int, step_s: float) -> Series:
    powers, left_wh = [0.0] * steps, car.needed_wh
    for step in range(car.from_step, car.until_step):
        powers[step] = min(car.max_w, left_wh * 3600.0 / step_s)
        left_wh -= powers[step] * step_s / 3600.0
    return tuple(powers)
