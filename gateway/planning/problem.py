"""The convex program of a site's day: built once, solved again with new numbers (disciplined parametrised, DPP).

In kW and kWh, so that the numbers are of one size. Physics is hard; limits, cars' energy, comfort, reserve and targets
are soft with prices far above any energy's, so that there is always a plan, and what was given up has a name.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import cvxpy as cp
import numpy as np
from scipy import sparse

from gateway.planning.child_plan import CHILD_BLOCKS
from gateway.planning.model import Plan, PlanInput, ResourcePlan
from gateway.planning.parameters import checked_steps, child_steps, kw, parameter_values, watts, window

LIMIT_PER_KWH: Final = 100.0
CAR_PER_KWH: Final = 10.0
COMFORT_PER_KWH: Final = 5.0
RESERVE_PER_KWH: Final = 3.0
TARGET_PER_KWH: Final = 0.5
"""What it costs to miss them: a limit before a car, a car before comfort, all before any price of energy."""

BOTH_WAYS_KW: Final = 1e-3
"""A battery that charges and discharges by more than this at once does what it can't."""

GIVEN_UP_KWH: Final = 1e-3
MOST_REPAIRS: Final = 3
TIME_LIMIT_S: Final = 10.0
POSSIBLE_KW: Final = 0.05
"""A point at which the solver stopped is a plan if it misses no equation by more."""

TOLERANCES: Final = {"tol_gap_abs": 1e-6, "tol_gap_rel": 1e-6, "tol_feas": 1e-6}
"""Of the cost and of powers in kW: a thousandth of a watt would cost a third of the time and serve nobody."""


class NoPlanError(Exception):
    """There is no plan: the input contradicts itself, or the solver found no usable point. The text says which."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a program is built for: its size, and the factors that stand before its variables.

    Everything else is a number that may change from one solution to the next.
    """

    steps: int
    step_s: float
    batteries: tuple[tuple[float, float, float], ...]
    vehicles: tuple[tuple[int, int], ...]
    solar: int
    thermal: tuple[tuple[float, float], ...]
    reserve: bool
    demand: bool
    dispatch: bool = False
    children: int = 0

    @classmethod
    def of(cls, given: PlanInput) -> Shape:
        """The shape of an input."""
        return cls(
            given.steps,
            given.step_s,
            tuple((one.charge_efficiency_pu, one.discharge_efficiency_pu, one.wear_per_kwh) for one in given.batteries),
            tuple(window(one, given.steps) for one in given.vehicles),
            len(given.solar),
            tuple((one.cop, one.loss_pu_per_h) for one in given.thermal),
            given.reserve is not None,
            given.tariff.demand_per_kw > 0.0,
            bool(given.dispatch_w),
            len(given.children),
        )


class _Slack(NamedTuple):
    variable: Any
    per_kwh: float
    hours: float

    @property
    def missed_kwh(self) -> float:
        return float(np.sum(self.variable.value)) * self.hours


class PlanProblem:
    """One program for inputs of one shape."""

    def __init__(self, shape: Shape, solver: str = cp.CLARABEL) -> None:
        self.shape = shape
        self._solver = solver
        self._parameters: dict[str, Any] = {}
        self._constraints: dict[str, Any] = {}
        self._slacks: dict[str, _Slack] = {}
        self._cost: Any = 0.0
        self._hours = shape.step_s / 3600.0
        steps = shape.steps
        self._import = cp.Variable(steps, nonneg=True)
        self._export = cp.Variable(steps, nonneg=True)
        net: Any = self._parameter("load", steps)
        if shape.batteries:
            net = net + self._add_batteries()
        if shape.vehicles:
            net = net + self._add_vehicles()
        if shape.solar:
            net = net - self._add_solar()
        if shape.thermal:
            net = net + self._add_thermal()
        if shape.children:
            net = net + self._add_children()
        self._constrain("balance", self._import - self._export == net)
        self._add_interchange()
        if shape.reserve:
            self._add_reserve()
        self._problem = cp.Problem(cp.Minimize(self._cost), list(self._constraints.values()))
        if not self._problem.is_dcp(dpp=True):
            raise AssertionError("the plan is not disciplined parametrised")

    # Assembly

    def _parameter(self, name: str, shape: Any, **attributes: Any) -> Any:
        made = self._parameters[name] = cp.Parameter(shape, name=name, **attributes)
        return made

    def _constrain(self, name: str, constraint: Any) -> None:
        self._constraints[name] = constraint

    def _give_up(self, name: str, shape: Any, per_kwh: float, hours: float = 1.0) -> Any:
        """What may be missed, in kWh, or in kW that last for `hours`."""
        slack = _Slack(cp.Variable(shape, nonneg=True), per_kwh, hours)
        self._slacks[name] = slack
        self._cost += per_kwh * hours * cp.sum(slack.variable)
        return slack.variable

    def _add_batteries(self) -> Any:
        """What a battery gives is what it takes less what it stores, so that no row has to say so; their sum flow."""
        count, steps, hours = len(self.shape.batteries), self.shape.steps, self._hours
        into, out, wear = (np.asarray(column)[:, None] for column in zip(*self.shape.batteries, strict=True))
        charge = self._charge = cp.Variable((count, steps), nonneg=True)
        stored = self._stored = cp.Variable((count, steps))
        start = self._parameter("battery_start", (count, 1))
        before = self._before = cp.hstack([start, stored[:, :-1]]) if steps > 1 else start
        gained = (stored - before) / hours
        discharge = self._discharge = cp.multiply(out, cp.multiply(into, charge) - gained)
        self._constrain("battery charge", charge <= self._parameter("battery_charge", (count, steps), nonneg=True))
        limit = self._parameter("battery_discharge", (count, steps), nonneg=True)
        self._constrain("battery discharge", discharge <= limit)
        self._constrain("battery gives", discharge >= 0.0)
        self._constrain("battery least", stored >= self._parameter("battery_least", (count, steps)))
        self._constrain("battery most", stored <= self._parameter("battery_most", (count, steps)))
        short = self._give_up("state of charge at the end", count, TARGET_PER_KWH)
        self._constrain("battery target", stored[:, -1] + short >= self._parameter("battery_target", count))
        self._cost += hours * cp.sum(cp.multiply(wear, charge + discharge))
        flow = self._flow = cp.Variable(steps)
        self._constrain("battery flow", flow == cp.sum(charge - discharge, axis=0))
        return flow

    def _add_vehicles(self) -> Any:
        """A car has a power only while it is there: two thirds of a day's steps need no variable."""
        count, steps = len(self.shape.vehicles), self.shape.steps
        whose = np.asarray([at for at, (begin, end) in enumerate(self.shape.vehicles) for _ in range(begin, end)])
        when = np.asarray([step for begin, end in self.shape.vehicles for step in range(begin, end)])
        size = len(when)
        power = self._vehicle = cp.Variable(size, nonneg=True)
        self._vehicle_steps = whose, when
        self._constrain("vehicle power", power <= self._parameter("vehicle_most", size, nonneg=True))
        ones, every = np.ones(size), np.arange(size)
        short = self._give_up("cars' energy", count, CAR_PER_KWH)
        needed = self._parameter("vehicle_needed", count, nonneg=True)
        by_car = sparse.csr_matrix((self._hours * ones, (whose, every)), shape=(count, size))
        self._constrain("vehicle energy", by_car @ power + short >= needed)
        return sparse.csr_matrix((ones, (when, every)), shape=(steps, size)) @ power

    def _add_solar(self) -> Any:
        """All inverters as one: what is free is curtailed anywhere alike."""
        share = cp.Variable(self.shape.steps, nonneg=True)
        self._constrain("solar", share <= 1.0)
        given = self._given = cp.multiply(self._parameter("solar_available", self.shape.steps, nonneg=True), share)
        return given

    def _add_thermal(self) -> Any:
        """As a battery's discharge, a heat pump's power is what its store holds more than without it."""
        count, steps, hours = len(self.shape.thermal), self.shape.steps, self._hours
        cop, loss = (np.asarray(column)[:, None] for column in zip(*self.shape.thermal, strict=True))
        held = self._held = cp.Variable((count, steps))
        start = self._parameter("thermal_start", (count, 1))
        before = cp.hstack([start, held[:, :-1]]) if steps > 1 else start
        keeps = np.maximum(1.0 - hours * loss, 0.0)
        gained = (held - cp.multiply(keeps, before)) / hours
        drawn = self._parameter("thermal_drawn", (count, steps))
        power = self._heat = cp.multiply(1.0 / cop, gained + drawn)
        self._constrain("thermal power", power <= self._parameter("thermal_most", (count, steps), nonneg=True))
        self._constrain("thermal takes", power >= 0.0)
        cold = self._give_up("comfort", (count, steps), COMFORT_PER_KWH)
        self._constrain("thermal least", held + cold >= self._parameter("thermal_least", (count, steps)))
        self._constrain("thermal most", held - cold <= self._parameter("thermal_full", (count, steps)))
        return cp.sum(power, axis=0)

    def _add_children(self) -> Any:
        """What layers below take more than they plan themselves, as blocks that are worth their prices to them."""
        count, steps, hours = self.shape.children, self.shape.steps, self._hours
        first = child_steps(steps)
        rows = count * first
        taken = self._blocks = cp.Variable((rows, CHILD_BLOCKS), nonneg=True)
        widths = self._parameter("child_widths", (rows, CHILD_BLOCKS), nonneg=True)
        self._constrain("child blocks", taken <= widths)
        more = self._more = self._parameter("child_lower", rows) + cp.sum(taken, axis=1)
        self._worth = hours * cp.sum(cp.multiply(self._parameter("child_prices", (rows, CHILD_BLOCKS)), taken))
        self._cost -= self._worth
        within = np.kron(np.eye(count), np.tril(np.ones((first, first)))) * hours
        down, up = (self._parameter(f"child_{side}_kwh", rows, nonneg=True) for side in ("down", "up"))
        self._constrain("child energy down", within @ more <= down)
        self._constrain("child energy up", within @ more >= -up)
        if first > 1:
            differs = np.kron(np.eye(count), np.eye(first, k=0) - np.eye(first, k=-1))
            differs[::first] = 0.0
            ramp, base = self._parameter("child_ramp", rows, nonneg=True), self._parameter("child_base", rows)
            self._constrain("child ramp up", differs @ (more + base) <= ramp)
            self._constrain("child ramp down", differs @ (more + base) >= -ramp)
        by_step = sparse.csr_matrix(
            (np.ones(rows), (np.tile(np.arange(first), count), np.arange(rows))), shape=(steps, rows)
        )
        return by_step @ more

    def _add_interchange(self) -> None:
        steps, hours = self.shape.steps, self._hours
        for name, power in (("import", self._import), ("export", self._export)):
            beyond = self._give_up(f"the {name} limit", steps, LIMIT_PER_KWH, hours)
            limit = self._parameter(f"{name}_limit", steps, nonneg=True)
            self._constrain(f"{name} limit", power <= limit + beyond)
        prices = self._parameter("import_price", steps), self._parameter("export_price", steps)
        self._cost += hours * (
            cp.sum(cp.multiply(prices[0], self._import)) - cp.sum(cp.multiply(prices[1], self._export))
        )
        if self.shape.dispatch:
            missed = self._give_up("the dispatch", steps, LIMIT_PER_KWH, hours)
            net = self._import - self._export
            self._constrain("dispatch least", net + missed >= self._parameter("dispatch_least", steps))
            self._constrain("dispatch most", net - missed <= self._parameter("dispatch_most", steps))
        if self.shape.demand:
            peak = cp.Variable(nonneg=True)
            self._constrain("peak", peak >= self._import)
            self._constrain("peak so far", peak >= self._parameter("peak_so_far", (), nonneg=True))
            self._cost += self._parameter("demand_price", (), nonneg=True) * peak

    def _add_reserve(self) -> None:
        """Room in power, and energy behind it: up is less net power, from what is charging or can discharge."""
        steps = self.shape.steps
        up = self._parameter("reserve_up", steps, nonneg=True)
        down = self._parameter("reserve_down", steps, nonneg=True)
        short_up = self._give_up("reserve upward", steps, RESERVE_PER_KWH, self._hours)
        short_down = self._give_up("reserve downward", steps, RESERVE_PER_KWH, self._hours)
        if self.shape.batteries:
            flow = self._flow
            most_out = self._parameter("battery_all_out", steps, nonneg=True)
            most_in = self._parameter("battery_all_in", steps, nonneg=True)
            self._constrain("reserve power up", most_out + flow + short_up >= up)
            self._constrain("reserve power down", most_in - flow + short_down >= down)
            self._add_reserve_energy(short_up, short_down)
        else:
            self._constrain("reserve power up", short_up >= up)
            self._constrain("reserve power down", short_down >= down)

    def _add_reserve_energy(self, short_up: Any, short_down: Any) -> None:
        """In each step of the first hour, then once an hour: rows over all batteries cost the most time."""
        at = checked_steps(self.shape.steps, self._hours)
        energy_up = self._parameter("reserve_up_kwh", len(at), nonneg=True)
        energy_down = self._parameter("reserve_down_kwh", len(at), nonneg=True)
        floor = self._parameter("battery_floor_kwh", len(at))
        ceiling = self._parameter("battery_ceiling_kwh", len(at))
        total = cp.Variable(len(at))
        self._constrain("battery total", total == cp.sum(self._before[:, at], axis=0))
        self._constrain("reserve energy up", total - floor + short_up[at] >= energy_up)
        self._constrain("reserve energy down", ceiling - total + short_down[at] >= energy_down)

    # Numbers

    def _set(self, given: PlanInput) -> None:
        values = parameter_values(given)
        for name, parameter in self._parameters.items():
            parameter.value = values[name]

    def solve(self, given: PlanInput, time_limit_s: float = TIME_LIMIT_S) -> Plan:
        """The plan for these numbers; raises NoPlanError, and ValueError for an input of another shape."""
        if found := given.problems():
            raise NoPlanError("; ".join(found))
        if Shape.of(given) != self.shape:
            raise ValueError("the input has another shape than the program")
        started_s = time.perf_counter()
        until_s = started_s + time_limit_s
        self._set(given)
        status, repairs = self._solve(until_s), 0
        while repairs < MOST_REPAIRS and time.perf_counter() < until_s and self._repair(given):
            repairs += 1
            status = self._solve(until_s)
        return self._plan(given, status, time.perf_counter() - started_s, repairs)

    def _solve(self, until_s: float) -> str:
        """Solve until a time; first without refining the solver's steps, which halves its time, with it at need."""
        for refines in (False, True):
            left_s = until_s - time.perf_counter()
            if refines and left_s <= 0.0:
                break
            options: dict[str, Any] = {}
            if self._solver == cp.CLARABEL:
                options = {"time_limit": max(left_s, 0.0), "iterative_refinement_enable": refines, **TOLERANCES}
            try:
                with warnings.catch_warnings(action="ignore"):
                    self._problem.solve(solver=self._solver, **options)
            except cp.SolverError:
                continue
            if self._problem.status == cp.OPTIMAL:
                return "optimal"
        status = self._problem.status
        if self._import.value is None or status not in cp.settings.SOLUTION_PRESENT or not self._is_possible():
            raise NoPlanError(f"no plan: the solver ended with {status}")
        return "incumbent"

    def _is_possible(self) -> bool:
        """Whether what the solver stopped at keeps the physics well enough to be a plan."""
        return all(np.max(one.violation()) <= POSSIBLE_KW for one in self._constraints.values())

    def _repair(self, given: PlanInput) -> bool:
        """Where a battery goes both ways at once, close the way that its net power is against; whether any did."""
        if not given.batteries:
            return False
        charge, discharge = self._charge.value, self._discharge.value
        both = np.minimum(charge, discharge) > BOTH_WAYS_KW
        if not both.any():
            return False
        charges = charge >= discharge
        for name, closed in (("battery_charge", both & ~charges), ("battery_discharge", both & charges)):
            self._parameters[name].value = np.where(closed, 0.0, self._parameters[name].value)
        return True

    def _plan(self, given: PlanInput, status: str, solve_s: float, repairs: int) -> Plan:
        lambda_per_kwh = -np.asarray(self._constraints["balance"].dual_value) / self._hours
        given_up = {name: round(slack.missed_kwh, 6) for name, slack in self._slacks.items()}
        penalties = sum(slack.missed_kwh * slack.per_kwh for slack in self._slacks.values())
        return Plan(
            given.step_s,
            watts(self._import.value - self._export.value),
            tuple(float(value) for value in lambda_per_kwh),
            tuple(self._resources(given)),
            float(self._problem.value) - penalties + (float(self._worth.value) if self.shape.children else 0.0),
            {name: kwh for name, kwh in given_up.items() if kwh > GIVEN_UP_KWH},
            status,
            solve_s,
            repairs,
        )

    def _battery_values(self) -> Any:
        """What a kWh more in each battery now is worth: the cost's derivative by what is stored before the first step.

        That changes what the first step has to discharge, and so every row that has it.
        """
        _, out, wear = (np.asarray(column) for column in zip(*self.shape.batteries, strict=True))
        duals = {name: np.asarray(one.dual_value) for name, one in self._constraints.items()}
        by_discharge = duals["battery discharge"][:, 0] - duals["battery gives"][:, 0] + duals["battery flow"][0]
        worth = -out * (wear + by_discharge / self._hours)
        if "battery total" in duals:
            worth += duals["battery total"][0]
        return worth

    def _thermal_values(self) -> Any:
        """What a kWh of heat more in each store is worth; as for batteries, by the first step's power."""
        cop, loss = (np.asarray(column) for column in zip(*self.shape.thermal, strict=True))
        duals = {name: np.asarray(one.dual_value) for name, one in self._constraints.items()}
        by_power = duals["thermal power"][:, 0] - duals["thermal takes"][:, 0] - duals["balance"][0]
        return by_power * np.maximum(1.0 - self._hours * loss, 0.0) / (cop * self._hours)

    def _resources(self, given: PlanInput) -> list[ResourcePlan]:
        found = []
        if given.batteries:
            worth = self._battery_values()
            charge, discharge = self._charge.value, self._discharge.value
            for at, battery in enumerate(given.batteries):
                power_w = watts(charge[at] - discharge[at])
                stored = (battery.soc * battery.capacity_wh, *watts(self._stored.value[at]))
                found.append(ResourcePlan(battery.name, power_w, stored, float(worth[at])))
        if given.vehicles:
            worth = np.asarray(self._constraints["vehicle energy"].dual_value)
            powers = np.zeros((len(given.vehicles), given.steps))
            powers[self._vehicle_steps] = self._vehicle.value
            for at, vehicle in enumerate(given.vehicles):
                found.append(ResourcePlan(vehicle.name, watts(powers[at]), (), float(worth[at])))
        if given.solar:
            available = np.sum(kw([one.available_w for one in given.solar]), axis=0)
            share = self._given.value / np.maximum(available, 1e-9)
            found += [ResourcePlan(one.name, watts(-share * kw(one.available_w))) for one in given.solar]
        if given.thermal:
            worth = self._thermal_values()
            for at, pump in enumerate(given.thermal):
                stored = (pump.stored_wh, *watts(self._held.value[at]))
                found.append(ResourcePlan(pump.name, watts(self._heat.value[at]), stored, float(worth[at])))
        if given.children:
            first, more = child_steps(given.steps), watts(self._more.value)
            for at, child in enumerate(given.children):
                own = more[at * first : (at + 1) * first] + (0.0,) * (given.steps - first)
                power_w = tuple(base + each for base, each in zip(child.base_w, own, strict=True))
                found.append(ResourcePlan(child.name, power_w))
        return found
