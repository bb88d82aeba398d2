"""A building's own program: its cheapest day against a path of prices, held near what it planned before.

The planner's physics and the study's prices for what is missing; the tests hold it against the planner's program. It is
solved some hundreds of times a day and building, so it speaks to the solver itself. In kW and kWh inside.

The holding is a quadratic cost on leaving the net power planned before, `steadying_per_kwh_w`. Without it all storages
of an area would jump at the same cheap hour, and no path of prices would ever come to rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import clarabel
import numpy as np
from scipy import sparse

from gateway.planning.model import BatteryPlan, SolarPlan, ThermalPlan, VehiclePlan
from gateway.study.central import State
from gateway.study.fleet import CAR_PER_KWH, COLD_PER_KWH, END_PER_KWH, Building, Device

TOLERANCE: Final = 1e-9
MOST_KW: Final = 1e7
"""Beyond any building's power, and what it may lack."""

USABLE: Final = ("Solved", "AlmostSolved")


class NoSitePlanError(Exception):
    """The building's program was not solved; the text says why."""


@dataclass(frozen=True, slots=True)
class SitePlan:
    """What a building would do: net power and each device's, watts, from the program's first interval on."""

    net_w: Any
    powers_w: Mapping[str, Any]

    def towards(self, other: SitePlan, share: float) -> SitePlan:
        """The plan that far from this one to another: as both are possible, so is what lies between them."""
        return SitePlan(
            self.net_w + share * (other.net_w - self.net_w),
            {name: power + share * (other.powers_w[name] - power) for name, power in self.powers_w.items()},
        )

    def later(self, steps: int = 1) -> SitePlan:
        """What is left of it after some intervals."""
        return SitePlan(self.net_w[steps:], {name: power[steps:] for name, power in self.powers_w.items()})


class SiteProgram:
    """One building from a state on to the end of its day."""

    def __init__(self, building: Building, state: State, hours: float, steadying_per_kwh_w: float) -> None:
        self.steps = len(building.load_w) - state.step
        self._building, self._state, self._hours = building, state, hours
        self._steadying = steadying_per_kwh_w * 1e3
        self._lower: list[Any] = []
        self._upper: list[Any] = []
        self._linear: list[Any] = []
        self._columns = 0
        self._rows: list[tuple[Any, Any, Any]] = []
        self._right: list[Any] = []
        self._height = 0
        self._power_of: dict[str, list[tuple[int, float]]] = {}
        self._net = self._add(0.0, -building.export_limit_w / 1e3, building.import_limit_w / 1e3)
        for device in building.devices:
            self._add_device(device)
        self._balance()
        self._cost = np.concatenate(self._linear)
        self._solver = self._made()

    # Assembly

    def _add(self, cost: float, lower: Any, upper: Any, count: int | None = None) -> int:
        count = self.steps if count is None else count
        first = self._columns
        self._linear.append(np.full(count, cost))
        self._lower.append(np.broadcast_to(np.asarray(lower, dtype=float), count))
        self._upper.append(np.broadcast_to(np.asarray(upper, dtype=float), count))
        self._columns += count
        return first

    def _equal(self, blocks: Sequence[tuple[int, Any]], right: Any) -> None:
        for first, matrix in blocks:
            block = sparse.coo_matrix(matrix)
            self._rows.append((block.row + self._height, block.col + first, block.data))
        self._right.append(np.asarray(right, dtype=float))
        self._height += len(self._right[-1])

    def _add_device(self, device: Device) -> None:
        match device:
            case BatteryPlan():
                self._add_battery(device)
            case VehiclePlan():
                self._add_vehicle(device)
            case SolarPlan():
                given = self._add(0.0, 0.0, np.asarray(device.available_w[self._state.step :]) / 1e3)
                self._power_of[device.name] = [(given, -1.0)]
            case ThermalPlan():
                self._add_thermal(device)

    def _add_battery(self, one: BatteryPlan) -> None:
        hours, eye = self._hours, sparse.eye(self.steps)
        capacity = one.capacity_wh / 1e3
        into = self._add(one.wear_per_kwh * hours, 0.0, one.charge_w / 1e3)
        out = self._add(one.wear_per_kwh * hours, 0.0, one.discharge_w / 1e3)
        held = self._add(0.0, one.soc_min * capacity, one.soc_max * capacity)
        self._power_of[one.name] = [(into, 1.0), (out, -1.0)]
        change = eye - sparse.eye(self.steps, k=-1)
        flows = [(into, -hours * one.charge_efficiency_pu * eye), (out, hours / one.discharge_efficiency_pu * eye)]
        stored = min(max(self._state.stored_wh[one.name] / 1e3, one.soc_min * capacity), one.soc_max * capacity)
        self._equal([(held, change), *flows], self._first(stored))
        self._end(held, one.soc * capacity)

    def _add_vehicle(self, one: VehiclePlan) -> None:
        begin, end = (max(at - self._state.step, 0) for at in (one.from_step, one.until_step))
        # A rounding error below nothing would leave no plan at all.
        needed = max(self._state.stored_wh[one.name] / 1e3, 0.0)
        if end <= begin:
            self._power_of[one.name] = []
            return
        power = self._add(0.0, 0.0, one.max_w / 1e3, end - begin)
        short = self._add(CAR_PER_KWH, 0.0, np.inf, 1)
        self._power_of[one.name] = [(power - begin, 1.0)]
        self._equal([(power, np.full((1, end - begin), self._hours)), (short, [[1.0]])], [needed])

    def _add_thermal(self, one: ThermalPlan) -> None:
        hours, eye = self._hours, sparse.eye(self.steps)
        power = self._add(0.0, 0.0, one.max_w / 1e3)
        held = self._add(0.0, -np.inf, one.most_wh / 1e3)
        cold = self._add(COLD_PER_KWH * hours, 0.0, np.inf)
        over = self._add(0.0, 0.0, np.inf)
        self._power_of[one.name] = [(power, 1.0)]
        keeps = 1.0 - hours * one.loss_pu_per_h
        change = eye - keeps * sparse.eye(self.steps, k=-1)
        drawn = -np.asarray(one.heat_w[self._state.step :]) / 1e3 * hours
        stored = min(self._state.stored_wh[one.name], one.most_wh) / 1e3
        begins = self._first(keeps * stored)
        self._equal([(held, change), (power, -hours * one.cop * eye)], drawn + begins)
        self._equal([(held, eye), (cold, eye), (over, -eye)], np.full(self.steps, one.least_wh / 1e3))
        self._end(held, one.stored_wh / 1e3)

    def _first(self, value: float) -> Any:
        right = np.zeros(self.steps)
        right[0] = value
        return right

    def _end(self, held: int, wished: float) -> None:
        """What is held at the end, and what it lacks, is at least what it was at the beginning of the day."""
        short = self._add(END_PER_KWH, 0.0, np.inf, 1)
        more = self._add(0.0, 0.0, np.inf, 1)
        self._equal([(held + self.steps - 1, [[1.0]]), (short, [[1.0]]), (more, [[-1.0]])], [wished])

    def _balance(self) -> None:
        """The net power is the load and all devices' powers."""
        load = np.asarray(self._building.load_w[self._state.step :]) / 1e3
        blocks: list[tuple[int, Any]] = [(self._net, sparse.eye(self.steps))]
        for device in self._building.devices:
            present = self._present(device)
            blocks += [
                (first + present[0], -sign * _window(self.steps, present))
                for first, sign in self._power_of[device.name]
            ]
        self._equal(blocks, load)

    def _present(self, device: Device) -> tuple[int, int]:
        """From which interval to which a device has columns, counted from the program's first."""
        if isinstance(device, VehiclePlan):
            return max(device.from_step - self._state.step, 0), max(device.until_step - self._state.step, 0)
        return 0, self.steps

    def _made(self) -> Any:
        rows, columns, values = (np.concatenate(each) for each in zip(*self._rows, strict=True))
        equal = sparse.csc_matrix((values, (rows, columns)), shape=(self._height, self._columns))
        lower, upper = np.concatenate(self._lower), np.concatenate(self._upper)
        eye = sparse.eye(self._columns, format="csr")
        has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
        whole = sparse.vstack([equal, -eye[has_lower], eye[has_upper]], format="csc")
        right = np.concatenate([*self._right, -lower[has_lower], upper[has_upper]])
        cones = [clarabel.ZeroConeT(self._height), clarabel.NonnegativeConeT(len(right) - self._height)]
        weight = np.zeros(self._columns)
        weight[self._net : self._net + self.steps] = self._steadying * self._hours
        quadratic = sparse.diags(weight, format="csc")
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        settings.presolve_enable = False
        settings.max_threads = 1
        settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = TOLERANCE
        return clarabel.DefaultSolver(quadratic, self._cost, whole, right, cones, settings)

    # Answers

    def plan(self, path_per_kwh: Any, held_w: Any) -> SitePlan:
        """The cheapest plan against the path, held near `held_w`; both by interval. Raises NoSitePlanError."""
        linear = self._cost.copy()
        price = np.asarray(path_per_kwh) - self._steadying * np.asarray(held_w) / 1e3
        linear[self._net : self._net + self.steps] += self._hours * price
        self._solver.update(q=linear)
        found = self._solver.solve()
        if str(found.status) not in USABLE:
            raise NoSitePlanError(f"{self._building.name}: the solver ended with {found.status}")
        at = np.asarray(found.x)
        if np.max(np.abs(at)) > MOST_KW:
            raise NoSitePlanError(f"{self._building.name}: the solver ended with a point that is no plan")
        return SitePlan(
            at[self._net : self._net + self.steps] * 1e3,
            {device.name: self._power(device, at) for device in self._building.devices},
        )

    def _power(self, device: Device, at: Any) -> Any:
        begin, end = self._present(device)
        power = np.zeros(self.steps)
        for first, sign in self._power_of[device.name]:
            power[begin:end] += sign * at[first + begin : first + end] * 1e3
        return power


def _window(steps: int, present: tuple[int, int]) -> Any:
    begin, end = present
    return sparse.eye(steps, max(end - begin, 0), k=-begin)
