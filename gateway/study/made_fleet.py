"""Fleets by seed: sizes, devices and limits are drawn, load and sun are a real day's.

Limits are set from what the fleet would do without control, so that they bind: a part of its peaks, and never less than
what the inflexible load needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import cos, pi
from random import Random
from typing import Final

from gateway.planning.model import BatteryPlan, Series, SolarPlan, ThermalPlan, VehiclePlan
from gateway.study.day_series import DEFAULT_DAY, LOADS, SUNS, day_series
from gateway.study.fleet import Area, Building, Fleet, Tier
from gateway.study.no_control import uncontrolled_net_w

STEPS: Final = 24
BUILDINGS_A_MICROGRID: Final = 8
MICROGRIDS_A_FEEDER: Final = 4
SPREAD_PER_KWH: Final = 0.04
"""The interchange cost: importing costs this more than the market's price, exporting earns this less."""

_ROOM_PU: Final = 1.08
"""A limit leaves at least this times the load that nobody controls."""

_LEAST_EXPORT_W: Final = 500.0


def make_fleet(devices: int, seed: int, day: str = DEFAULT_DAY, steps: int = STEPS) -> Fleet:
    """A fleet of exactly so many devices; raises NoSuchDayError."""
    random = Random(f"{seed}/{devices}")
    series = day_series(day, steps)
    buildings: list[Building] = []
    left = devices
    while left > 0:
        made = _building(f"building-{len(buildings) + 1}", random, series, steps, left)
        left -= len(made.devices)
        buildings.append(made)
    step_s = 86_400.0 / steps
    import_price, export_price = _prices(random, steps)
    return Fleet(seed, day, step_s, import_price, export_price, _network(buildings, random, step_s))


def _prices(random: Random, steps: int) -> tuple[Series, Series]:
    """A market's day: two peaks and a valley at noon, each interval a little off; with the spread on both sides."""
    market = []
    for step in range(steps):
        hour = (step + 0.5) * 24.0 / steps
        shape = 0.17 + 0.05 * cos((hour - 19.0) / 12.0 * 2.0 * pi) + 0.03 * cos((hour - 20.0) / 24.0 * 2.0 * pi)
        market.append(max(shape * random.uniform(0.85, 1.15), SPREAD_PER_KWH + 0.01))
    return (
        tuple(round(price + SPREAD_PER_KWH, 4) for price in market),
        tuple(round(price - SPREAD_PER_KWH, 4) for price in market),
    )


def _building(name: str, random: Random, series: Mapping[str, Series], steps: int, most: int) -> Building:
    """One to five devices, drawn; at most `most`."""
    rating_w = random.uniform(6e3, 25e3)
    of_day = series[random.choice(LOADS)]
    load_w = tuple(round(rating_w * max(value, 0.03), 1) for value in of_day)
    kinds = [kind for kind, chance in (("battery", 0.75), ("car", 0.8), ("sun", 0.75), ("pump", 0.5), ("car", 0.3))
             if random.random() < chance]  # fmt: skip
    kinds = (kinds or ["battery"])[:most]
    batteries, vehicles, solar, thermal = [], [], [], []
    for at, kind in enumerate(kinds, start=1):
        device = f"{name}-{kind}-{at}"
        if kind == "battery":
            batteries.append(_battery(device, random))
        elif kind == "car":
            vehicles.append(_vehicle(device, random, steps))
        elif kind == "sun":
            sun = series[random.choice(SUNS)]
            peak_w = rating_w * random.uniform(0.6, 1.6)
            solar.append(SolarPlan(device, tuple(round(peak_w * value, 1) for value in sun)))
        else:
            thermal.append(_pump(device, random, steps))
    free = Building(name, 0.0, 0.0, load_w, tuple(batteries), tuple(vehicles), tuple(solar), tuple(thermal))
    return _limited_building(free, random, 86_400.0 / steps)


def _battery(name: str, random: Random) -> BatteryPlan:
    capacity_wh = round(random.uniform(8e3, 40e3), -2)
    power_w = round(capacity_wh * random.uniform(0.3, 0.6), -2)
    return BatteryPlan(
        name,
        capacity_wh,
        round(random.uniform(0.3, 0.6), 3),
        power_w,
        power_w,
        charge_efficiency_pu=0.96,
        discharge_efficiency_pu=0.96,
        wear_per_kwh=round(random.uniform(0.005, 0.015), 4),
    )


def _vehicle(name: str, random: Random, steps: int) -> VehiclePlan:
    """Charged over night, at work, or in the evening; what it needs fits into its stay."""
    begin_h, end_h = random.choice(((0.0, 7.0), (8.0, 16.0), (16.0, 24.0)))
    a_step_h = 24.0 / steps
    begin = round((begin_h + random.uniform(0.0, 1.5)) / a_step_h)
    end = min(round((end_h - random.uniform(0.0, 1.0)) / a_step_h), steps)
    end = max(end, begin + 1)
    max_w = random.choice((7.4e3, 11e3, 22e3))
    share = random.uniform(0.2, 0.6)
    return VehiclePlan(name, max_w, round(min(max_w * (end - begin) * a_step_h * share, 45e3), 1), begin, end)


def _pump(name: str, random: Random, steps: int) -> ThermalPlan:
    """A store of a few hours; the heat drawn peaks in the morning and in the evening."""
    max_w, cop = round(random.uniform(2e3, 6e3), -1), 3.0
    full_wh = max_w * cop * random.uniform(2.0, 4.0)
    level = random.uniform(0.25, 0.4)
    heat_w = []
    for step in range(steps):
        hour = (step + 0.5) * 24.0 / steps
        heat_w.append(round(max_w * cop * level * (1.0 + 0.5 * cos((hour - 7.0) / 12.0 * 2.0 * pi)), 1))
    return ThermalPlan(
        name, max_w, round(full_wh * 0.5, 1), round(full_wh * 0.1, 1), round(full_wh, 1), tuple(heat_w), cop
    )


def _limited_building(free: Building, random: Random, step_s: float) -> Building:
    net_w = _net_w([free], step_s)
    return Building(
        free.name,
        *_limits([free], net_w, random, (0.75, 1.0), (0.7, 1.0)),
        free.load_w,
        free.batteries,
        free.vehicles,
        free.solar,
        free.thermal,
    )


def _network(buildings: Sequence[Building], random: Random, step_s: float) -> Area:
    """Buildings by eight to microgrids, these by four to feeders, all behind one substation."""

    def area(
        name: str, tier: Tier, below: Sequence[Building], **inner: tuple[Area, ...] | tuple[Building, ...]
    ) -> Area:
        tight = {Tier.MICROGRID: (0.6, 0.85), Tier.FEEDER: (0.55, 0.8), Tier.SUBSTATION: (0.6, 0.85)}[tier]
        limits = _limits(below, _net_w(below, step_s), random, tight, tight)
        return Area(name, tier, *limits, **inner)  # type: ignore[arg-type]

    count = max(round(len(buildings) / BUILDINGS_A_MICROGRID), min(2, len(buildings)))
    parts = [tuple(buildings[at::count]) for at in range(count)]
    microgrids = [
        area(f"microgrid-{at}", Tier.MICROGRID, part, buildings=part) for at, part in enumerate(parts, start=1)
    ]
    feeders_count = max(round(count / MICROGRIDS_A_FEEDER), min(2, count))
    feeders = []
    for at in range(feeders_count):
        below = tuple(microgrids[at::feeders_count])
        inside = [building for each in below for building in each.buildings]
        feeders.append(area(f"feeder-{at + 1}", Tier.FEEDER, inside, areas=below))
    return area("substation", Tier.SUBSTATION, buildings, areas=tuple(feeders))


def _net_w(buildings: Sequence[Building], step_s: float) -> list[float]:
    """What they take together without control."""
    return [sum(each) for each in zip(*(uncontrolled_net_w(one, step_s) for one in buildings), strict=True)]


def _limits(
    buildings: Sequence[Building],
    net_w: Sequence[float],
    random: Random,
    import_pu: tuple[float, float],
    export_pu: tuple[float, float],
) -> tuple[float, float]:
    """Parts of the uncontrolled peaks, with room for the load that nobody controls."""
    load_w = max(sum(each) for each in zip(*(building.load_w for building in buildings), strict=True))
    import_w = max(max(net_w) * random.uniform(*import_pu), load_w * _ROOM_PU)
    export_w = max(-min(net_w) * random.uniform(*export_pu), _LEAST_EXPORT_W)
    return round(import_w, 1), round(export_w, 1)
