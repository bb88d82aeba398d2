"""Minimal DSO: the market's operator dispatches every device as if it stood at the substation, and the DSO curtails.

In each interval the operator plans the rest of the day anew from the devices' true state, without the distribution's
limits; the DSO then takes back what its limits can't carry. It plans nothing: it reduces consumption where an import
limit is passed and generation where an export limit is, each device by the same part, from the buildings upward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.planning.model import BatteryPlan, Series, ThermalPlan, VehiclePlan
from gateway.study.accounts import stored_after_wh
from gateway.study.central import State, solve_centrally, start_of
from gateway.study.fleet import LIMIT_TOLERANCE_W, Area, Building, Fleet

MOST_PASSES: Final = 50
"""Curtailing generation in one place can raise a building's import: the DSO looks again until every limit is kept."""


@dataclass(frozen=True, slots=True)
class MinimalResult:
    """What was ordered and what was left of it, by device and interval; how many orders the DSO undid."""

    asked_w: Mapping[str, Series]
    powers_w: Mapping[str, Series]
    orders_undone: int
    solve_s: float


def run_minimal_dso(fleet: Fleet, tell: Callable[[str], None] = lambda _: None) -> MinimalResult:
    """A day of blind dispatch and curtailment; raises NoOptimumError."""
    started_s = time.process_time()
    state = start_of(fleet)
    asked: dict[str, list[float]] = {one.name: [] for each in fleet.buildings for one in each.devices}
    given: dict[str, list[float]] = {name: [] for name in asked}
    undone = 0
    for step in range(fleet.steps):
        planned = solve_centrally(fleet, state, network=False).powers_w
        orders_w = {name: powers[0] for name, powers in planned.items()}
        powers_w = curtailed(fleet, orders_w, step)
        for name, power in powers_w.items():
            asked[name].append(orders_w[name])
            given[name].append(power)
            undone += abs(power - orders_w[name]) > LIMIT_TOLERANCE_W
        state = _after(fleet, state, powers_w)
        if step % 6 == 5:
            tell(f"dispatched {step + 1} of {fleet.steps} intervals")
    return MinimalResult(
        {name: tuple(powers) for name, powers in asked.items()},
        {name: tuple(powers) for name, powers in given.items()},
        undone,
        time.process_time() - started_s,
    )


def curtailed(fleet: Fleet, orders_w: Mapping[str, float], step: int) -> dict[str, float]:
    """The orders with as much taken back as the limits need."""
    powers_w = dict(orders_w)
    places = list(reversed(list(fleet.substation.walk())))
    for _ in range(MOST_PASSES):
        changed = False
        for area in places:
            for building in area.buildings:
                changed |= _curtail(building, (building,), powers_w, step)
            changed |= _curtail(area, area.all_buildings(), powers_w, step)
        if not changed:
            break
    return powers_w


def _curtail(at: Area | Building, buildings: Sequence[Building], powers_w: dict[str, float], step: int) -> bool:
    """Bring one point inside its limits; whether it was outside."""
    names = [device.name for building in buildings for device in building.devices]
    net_w = sum(building.load_w[step] for building in buildings) + sum(powers_w[name] for name in names)
    for beyond_w, sign in ((net_w - at.import_limit_w, 1.0), (-net_w - at.export_limit_w, -1.0)):
        if beyond_w <= LIMIT_TOLERANCE_W / 2.0:
            continue
        taken = {name: sign * powers_w[name] for name in names if sign * powers_w[name] > 0.0}
        available_w = sum(taken.values())
        part = min(beyond_w / available_w, 1.0) if available_w > 0.0 else 0.0
        for name in taken:
            powers_w[name] *= 1.0 - part
        return part > 0.0
    return False


def _after(fleet: Fleet, state: State, powers_w: Mapping[str, float]) -> State:
    """What is stored and needed after an interval."""
    stored = dict(state.stored_wh)
    for building in fleet.buildings:
        for device in building.devices:
            power = powers_w[device.name]
            if isinstance(device, BatteryPlan | ThermalPlan):
                stored[device.name] = stored_after_wh(device, stored[device.name], power, state.step, fleet.hours)
            elif isinstance(device, VehiclePlan):
                stored[device.name] = max(stored[device.name] - power * fleet.hours, 0.0)
    return State(state.step + 1, stored)
