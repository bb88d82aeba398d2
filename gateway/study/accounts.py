"""What a day's schedule costs and which limits it breaks: from powers alone, the same for every vision.

All physics is done again here from the devices' powers, so that no program's own word for its cost counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from gateway.planning.model import BatteryPlan, Series, SolarPlan, ThermalPlan, VehiclePlan
from gateway.study.fleet import (
    CAR_PER_KWH,
    COLD_PER_KWH,
    END_PER_KWH,
    LIMIT_TOLERANCE_W,
    Area,
    Building,
    Device,
    Fleet,
)

Powers: TypeAlias = Mapping[str, Series]
"""Each device's power by interval, watts in load convention."""


@dataclass(frozen=True, slots=True)
class Cost:
    """A day's cost by cause: energy at the substation, wear, and what cars, heat and storages lack."""

    energy: float
    wear: float
    cars: float
    cold: float
    end: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.energy + self.wear + self.cars + self.cold + self.end


@dataclass(frozen=True, slots=True)
class Violation:
    """A limit that is broken in one interval: by how much energy, and which way."""

    at: str
    step: int
    beyond_wh: float
    imports: bool


def net_w(buildings: Sequence[Building], powers_w: Powers) -> Series:
    """What buildings take together, by interval."""
    parts = [building.load_w for building in buildings]
    parts += [powers_w[device.name] for building in buildings for device in building.devices]
    return tuple(map(sum, zip(*parts, strict=True)))


def cost_of(fleet: Fleet, powers_w: Powers) -> Cost:
    """The cost of a schedule."""
    net = net_w(fleet.buildings, powers_w)
    energy = sum(
        (power * bought if power > 0.0 else power * sold) * fleet.hours / 1e3
        for power, bought, sold in zip(net, fleet.import_per_kwh, fleet.export_per_kwh, strict=True)
    )
    wear = cars = cold = end = 0.0
    for building in fleet.buildings:
        for device in building.devices:
            powers = powers_w[device.name]
            match device:
                case BatteryPlan():
                    wear += device.wear_per_kwh * sum(map(abs, powers)) * fleet.hours / 1e3
                    end += _missing_at_end(stored_wh(device, powers, fleet.hours))
                case VehiclePlan():
                    here = powers[device.from_step : device.until_step]
                    cars += CAR_PER_KWH * max(device.needed_wh - sum(here) * fleet.hours, 0.0) / 1e3
                case SolarPlan():
                    pass
                case ThermalPlan():
                    held = stored_wh(device, powers, fleet.hours)
                    lacking = sum(max(device.least_wh - each, 0.0) for each in held[1:])
                    cold += COLD_PER_KWH * fleet.hours * lacking / 1e3
                    end += _missing_at_end(held)
    return Cost(energy, wear, cars, cold, end)


def stored_wh(device: BatteryPlan | ThermalPlan, powers_w: Series, hours: float) -> Series:
    """What a storage holds at the beginning and after each interval."""
    held = [device.soc * device.capacity_wh if isinstance(device, BatteryPlan) else device.stored_wh]
    for step, power in enumerate(powers_w):
        held.append(stored_after_wh(device, held[-1], power, step, hours))
    return tuple(held)


def stored_after_wh(
    device: BatteryPlan | ThermalPlan, held_wh: float, power_w: float, step: int, hours: float
) -> float:
    """What a storage holds after an interval at a power."""
    if isinstance(device, ThermalPlan):
        keeps = 1.0 - hours * device.loss_pu_per_h
        return keeps * held_wh + (device.cop * power_w - device.heat_w[step]) * hours
    if power_w > 0.0:
        return held_wh + power_w * hours * device.charge_efficiency_pu
    return held_wh + power_w * hours / device.discharge_efficiency_pu


def violations(fleet: Fleet, powers_w: Powers) -> list[Violation]:
    """Every limit that a schedule breaks, at any building, microgrid, feeder or the substation, by interval."""
    found: list[Violation] = []
    for area in fleet.substation.walk():
        found += _broken(area, net_w(area.all_buildings(), powers_w), fleet.hours)
        for building in area.buildings:
            found += _broken(building, net_w((building,), powers_w), fleet.hours)
    return found


def impossible(fleet: Fleet, powers_w: Powers, tolerance_w: float = LIMIT_TOLERANCE_W) -> list[str]:
    """Where a schedule asks of a device what it can't do; empty: nowhere."""
    return [
        f"{device.name}: {words}"
        for building in fleet.buildings
        for device in building.devices
        for words in _impossible(device, powers_w[device.name], fleet.hours, tolerance_w)
    ]


def power_bounds_w(device: Device, step: int) -> tuple[float, float]:
    """What a device's power may be in an interval, whatever it holds."""
    match device:
        case BatteryPlan():
            return -device.discharge_w, device.charge_w
        case VehiclePlan():
            return 0.0, device.max_w if device.from_step <= step < device.until_step else 0.0
        case SolarPlan():
            return -device.available_w[step], 0.0
        case ThermalPlan():
            return 0.0, device.max_w


def _impossible(device: Device, powers_w: Series, hours: float, tolerance_w: float) -> Iterator[str]:
    for step, power in enumerate(powers_w):
        lower_w, upper_w = power_bounds_w(device, step)
        if not lower_w - tolerance_w <= power <= upper_w + tolerance_w:
            yield f"{power:.1f} W in interval {step}; {lower_w:.1f} to {upper_w:.1f} W is possible"
    if isinstance(device, BatteryPlan | ThermalPlan):
        is_battery = isinstance(device, BatteryPlan)
        most_wh = device.soc_max * device.capacity_wh if isinstance(device, BatteryPlan) else device.most_wh
        least_wh = device.soc_min * device.capacity_wh if isinstance(device, BatteryPlan) else float("-inf")
        slack_wh = tolerance_w * hours * (len(powers_w) if is_battery else len(powers_w) * device.cop)  # type: ignore[union-attr]
        for step, held in enumerate(stored_wh(device, powers_w, hours)):
            if not least_wh - slack_wh <= held <= most_wh + slack_wh:
                yield f"holds {held:.1f} Wh at interval {step}; {least_wh:.1f} to {most_wh:.1f} Wh is possible"


def _missing_at_end(held_wh: Series) -> float:
    return END_PER_KWH * max(held_wh[0] - held_wh[-1], 0.0) / 1e3


def _broken(at: Area | Building, powers_w: Series, hours: float) -> Iterator[Violation]:
    for step, power in enumerate(powers_w):
        beyond_w = max(power - at.import_limit_w, -power - at.export_limit_w)
        if beyond_w > LIMIT_TOLERANCE_W:
            yield Violation(at.name, step, beyond_w * hours, power > 0.0)
