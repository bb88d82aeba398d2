"""The grand central program: one linear program that sees every device and, where it is let, the network.

Its own program in its own form and by another solver than the layers': it knows storage by sums over time, has no net
power of buildings as variables, and is solved by HiGHS.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from gateway.planning.model import BatteryPlan, SolarPlan, ThermalPlan, VehiclePlan
from gateway.study.fleet import CAR_PER_KWH, COLD_PER_KWH, END_PER_KWH, Area, Building, Device, Fleet

TIME_LIMIT_S: Final = 600.0


class NoOptimumError(Exception):
    """The central program was not solved; the text says why."""


@dataclass(frozen=True, slots=True)
class State:
    """What each storage holds at the beginning of `step` (Wh), and what each car still needs then."""

    step: int = 0
    stored_wh: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CentralResult:
    """Each device's power from `State.step` on, the program's own cost from there, processor time of solving."""

    powers_w: Mapping[str, tuple[float, ...]]
    cost: float
    solve_s: float


def start_of(fleet: Fleet) -> State:
    """The state at the beginning of the day."""
    found: dict[str, float] = {}
    for building in fleet.buildings:
        found |= {one.name: one.soc * one.capacity_wh for one in building.batteries}
        found |= {one.name: one.stored_wh for one in building.thermal}
        found |= {one.name: one.needed_wh for one in building.vehicles}
    return State(0, found)


def solve_centrally(fleet: Fleet, state: State | None = None, *, network: bool = True) -> CentralResult:
    """The cheapest day from a state on; without `network` nothing but the substation's own limits is known.

    Raises NoOptimumError.
    """
    started_s = time.process_time()
    program = _Program(fleet, state or start_of(fleet))
    for building in fleet.buildings:
        program.add_building(building)
    program.close(network=network)
    powers_w, cost = program.solve()
    return CentralResult(powers_w, cost, time.process_time() - started_s)


class _Program:
    """Columns and rows, gathered until solved. In kW and kWh."""

    def __init__(self, fleet: Fleet, state: State) -> None:
        self._fleet, self._state = fleet, state
        self._steps, self._hours = fleet.steps - state.step, fleet.hours
        self._costs: list[Any] = []
        self._upper: list[Any] = []
        self._columns = 0
        self._rows: list[tuple[Any, Any, Any]] = []
        self._most: list[Any] = []
        self._height = 0
        # Of each device the columns that are its power, with their signs: power = sum of sign x column.
        self._power_of: dict[str, list[tuple[int, float]]] = {}
        self._where: dict[str, tuple[int, int]] = {}

    def _add(self, count: int, cost: Any, upper: Any) -> int:
        first = self._columns
        self._costs.append(np.broadcast_to(np.asarray(cost, dtype=float), count))
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=float), count))
        self._columns += count
        return first

    def _at_most(self, blocks: Sequence[tuple[int, Any]], most: Any) -> None:
        """Rows: the sum of each block's matrix times the columns from its first on is at most `most`."""
        for first, matrix in blocks:
            block = sparse.coo_matrix(matrix)
            self._rows.append((block.row + self._height, block.col + first, block.data))
        self._most.append(np.asarray(most, dtype=float))
        self._height += len(self._most[-1])

    def add_building(self, building: Building) -> None:
        for device in building.devices:
            match device:
                case BatteryPlan():
                    self._add_battery(device)
                case VehiclePlan():
                    self._add_vehicle(device)
                case SolarPlan():
                    self._add_solar(device)
                case ThermalPlan():
                    self._add_thermal(device)

    def _add_battery(self, one: BatteryPlan) -> None:
        steps, hours = self._steps, self._hours
        wear = one.wear_per_kwh * hours
        into = self._add(steps, wear, one.charge_w / 1e3)
        out = self._add(steps, wear, one.discharge_w / 1e3)
        short = self._add(1, END_PER_KWH, np.inf)
        self._power_of[one.name] = [(into, 1.0), (out, -1.0)]
        gains = np.tril(np.full((steps, steps), hours * one.charge_efficiency_pu))
        losses = np.tril(np.full((steps, steps), hours / one.discharge_efficiency_pu))
        capacity, held = one.capacity_wh / 1e3, self._state.stored_wh[one.name] / 1e3
        self._at_most([(into, gains), (out, -losses)], np.full(steps, one.soc_max * capacity - held))
        self._at_most([(into, -gains), (out, losses)], np.full(steps, held - one.soc_min * capacity))
        missing = [(into, -gains[-1:]), (out, losses[-1:]), (short, [[-1.0]])]
        self._at_most(missing, [held - one.soc * capacity])

    def _add_vehicle(self, one: VehiclePlan) -> None:
        begin, end = (max(at - self._state.step, 0) for at in (one.from_step, one.until_step))
        most = np.zeros(self._steps)
        most[begin:end] = one.max_w / 1e3
        power = self._add(self._steps, 0.0, most)
        short = self._add(1, CAR_PER_KWH, np.inf)
        self._power_of[one.name] = [(power, 1.0)]
        needed = max(self._state.stored_wh[one.name] / 1e3, 0.0)
        taken = np.full((1, self._steps), self._hours)
        self._at_most([(power, -taken), (short, [[-1.0]])], [-needed])
        self._at_most([(power, taken)], [needed])

    def _add_solar(self, one: SolarPlan) -> None:
        given = self._add(self._steps, 0.0, np.asarray(one.available_w[self._state.step :]) / 1e3)
        self._power_of[one.name] = [(given, -1.0)]

    def _add_thermal(self, one: ThermalPlan) -> None:
        steps, hours = self._steps, self._hours
        power = self._add(steps, 0.0, one.max_w / 1e3)
        cold = self._add(steps, COLD_PER_KWH * hours, np.inf)
        short = self._add(1, END_PER_KWH, np.inf)
        self._power_of[one.name] = [(power, 1.0)]
        keeps = 1.0 - hours * one.loss_pu_per_h
        ages = np.subtract.outer(np.arange(steps), np.arange(steps))
        fades = np.where(ages >= 0, keeps ** np.maximum(ages, 0), 0.0)
        drawn = np.asarray(one.heat_w[self._state.step :]) / 1e3 * hours
        left = self._state.stored_wh[one.name] / 1e3 * keeps ** np.arange(1, steps + 1) - fades @ drawn
        self._at_most([(power, hours * one.cop * fades)], one.most_wh / 1e3 - left)
        self._at_most([(power, -hours * one.cop * fades), (cold, -np.eye(steps))], left - one.least_wh / 1e3)
        missing = [(power, -hours * one.cop * fades[-1:]), (short, [[-1.0]])]
        self._at_most(missing, [left[-1] - one.stored_wh / 1e3])

    def close(self, *, network: bool) -> None:
        """Interchange, and the limits of whatever of the network is known."""
        prices = self._fleet.import_per_kwh, self._fleet.export_per_kwh
        bought, sold = (np.asarray(each[self._state.step :]) * self._hours for each in prices)
        top = self._fleet.substation
        taken = self._add(self._steps, bought, top.import_limit_w / 1e3)
        given = self._add(self._steps, -sold, top.export_limit_w / 1e3)
        eye = np.eye(self._steps)
        load, blocks = self._net_of(top.all_buildings())
        # Import less export is at least the net power; as importing costs more than exporting earns, it is no more.
        self._at_most([*blocks, (taken, -eye), (given, eye)], -load)
        if network:
            for area in top.walk():
                if area is not top:
                    self._limit(area, area.all_buildings())
            for building in top.all_buildings():
                self._limit(building, (building,))

    def _limit(self, at: Area | Building, buildings: Sequence[Building]) -> None:
        load, blocks = self._net_of(buildings)
        self._at_most(blocks, at.import_limit_w / 1e3 - load)
        self._at_most([(first, -matrix) for first, matrix in blocks], at.export_limit_w / 1e3 + load)

    def _net_of(self, buildings: Sequence[Building]) -> tuple[Any, list[tuple[int, Any]]]:
        loads = np.asarray([building.load_w[self._state.step :] for building in buildings])
        eye = sparse.eye(self._steps)
        devices: list[Device] = [device for building in buildings for device in building.devices]
        columns = [each for device in devices for each in self._power_of[device.name]]
        return loads.sum(axis=0) / 1e3, [(first, sign * eye) for first, sign in columns]

    def solve(self) -> tuple[dict[str, tuple[float, ...]], float]:
        row, column, value = (np.concatenate(each) for each in zip(*self._rows, strict=True))
        rows = sparse.csr_matrix((value, (row, column)), shape=(self._height, self._columns))
        bounds = np.column_stack([np.zeros(self._columns), np.concatenate(self._upper)])
        found = linprog(
            np.concatenate(self._costs),
            A_ub=rows,
            b_ub=np.concatenate(self._most),
            bounds=bounds,
            method="highs",
            options={"time_limit": TIME_LIMIT_S},
        )
        if found.x is None or found.status != 0:
            raise NoOptimumError(f"the central program ended with: {found.message}")
        powers = {
            name: tuple(
                float(power) for power in sum(sign * found.x[at : at + self._steps] for at, sign in columns) * 1e3
            )
            for name, columns in self._power_of.items()
        }
        return powers, float(found.fun)
