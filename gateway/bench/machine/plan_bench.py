"""`gateway bench plan`: the planner's program for a synthetic microgrid, solved the first time, again, and rebuilt."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from math import pi, sin
from time import perf_counter, process_time
from typing import Any, Final

from gateway.cycle import Figures
from gateway.planning.model import (
    BatteryPlan,
    PlanInput,
    Reserve,
    Series,
    SolarPlan,
    Tariff,
    ThermalPlan,
    VehiclePlan,
)
from gateway.planning.process import ONE_THREAD

STEP_S: Final = 900.0
SHARES: Final = (0.28, 0.43, 0.22)
"""Of batteries, cars and inverters; what is left are heat pumps."""

REBUILT: Final = 5
MOVES_H: Final = 1.0 / 60.0
"""From one solution to the next a minute passes."""

SPREAD_PER_KWH: Final = 0.08
ROUNDS: Final = 1e-3
"""Relative: a plan's powers add up to its net power so closely, or the bench says that they do not."""


@dataclass(frozen=True, slots=True)
class PlanBenchRequest:
    """What the command line asked for."""

    steps: int
    resources: int
    solves: int
    time_limit_s: float


class SyntheticMicrogrid:
    """Inputs for a plan at any hour: every resource of its own size, everything but their number may differ."""

    def __init__(self, steps: int, resources: int, seed: int = 1) -> None:
        rng = random.Random(seed)
        self._steps, self._resources, self._seed = steps, resources, seed
        batteries, cars, inverters = (max(round(share * resources), 1) for share in SHARES)
        self._batteries = [_battery(f"battery_{at}", rng) for at in range(batteries)]
        self._windows = [_window(steps, rng) for _ in range(cars)]
        self._needed_wh = [rng.uniform(5e3, 30e3) for _ in range(cars)]
        self._suns_w = [rng.uniform(5e3, 40e3) for _ in range(inverters)]
        self._pumps = max(resources - batteries - cars - inverters, 0)

    def at(self, hour: float, shift: int = 0) -> PlanInput:
        """From an hour of the day on; `shift` moves the cars' windows, which makes another program."""
        rng = random.Random(f"{self._seed} {round(hour * 60.0)}")
        hours = [(hour + step * STEP_S / 3600.0) % 24.0 for step in range(self._steps)]
        noise = [1.0 + 0.05 * rng.uniform(-1.0, 1.0) for _ in hours]
        prices = tuple(0.25 + 0.1 * sin((at - 13.0) / 6.0 * pi) + 0.01 * rng.random() for at in hours)
        load = tuple(1e3 * self._resources * (1.0 + 0.5 * sin((at - 8.0) / 12.0 * pi)) for at in hours)
        sun = [max(0.0, sin((at - 6.0) / 12.0 * pi)) for at in hours]
        limit = (3e3 * self._resources,) * self._steps
        return PlanInput(
            STEP_S,
            tuple(power * part for power, part in zip(load, noise, strict=True)),
            Tariff(prices, tuple(price - SPREAD_PER_KWH for price in prices)),
            limit,
            limit,
            tuple(_at_soc(one, rng.uniform(0.2, 0.8)) for one in self._batteries),
            tuple(self._cars(shift)),
            tuple(SolarPlan(f"pv_{at}", _scaled(power_w, sun, noise)) for at, power_w in enumerate(self._suns_w)),
            tuple(ThermalPlan(f"pump_{at}", 5e3, 15e3, 8e3, 25e3, (4e3,) * self._steps) for at in range(self._pumps)),
            Reserve((20e3,) * self._steps, (20e3,) * self._steps),
        )

    def _cars(self, shift: int) -> list[VehiclePlan]:
        return [
            VehiclePlan(f"car_{at}", 11e3, needed_wh, max(begin - shift, 0), max(end - shift, 1))
            for at, ((begin, end), needed_wh) in enumerate(zip(self._windows, self._needed_wh, strict=True))
        ]


def _battery(name: str, rng: random.Random) -> BatteryPlan:
    power_w = rng.uniform(5e3, 30e3)
    efficiency = rng.uniform(0.94, 0.98), rng.uniform(0.94, 0.98)
    return BatteryPlan(
        name,
        rng.uniform(10e3, 100e3),
        0.5,
        power_w,
        power_w,
        charge_efficiency_pu=efficiency[0],
        discharge_efficiency_pu=efficiency[1],
    )


def _at_soc(one: BatteryPlan, soc: float) -> BatteryPlan:
    return BatteryPlan(
        one.name,
        one.capacity_wh,
        soc,
        one.charge_w,
        one.discharge_w,
        charge_efficiency_pu=one.charge_efficiency_pu,
        discharge_efficiency_pu=one.discharge_efficiency_pu,
    )


def _window(steps: int, rng: random.Random) -> tuple[int, int]:
    begin = rng.randrange(max(steps * 2 // 3, 1))
    return begin, min(begin + rng.randrange(max(steps // 8, 1), max(steps // 2, 2)), steps)


def _scaled(power_w: float, sun: list[float], noise: list[float]) -> Series:
    return tuple(power_w * part * more for part, more in zip(sun, noise, strict=True))


def run_plan_bench(request: PlanBenchRequest, progress: Callable[[str], None]) -> dict[str, Any]:
    """The figures as the command prints them, milliseconds: one thread, the solver's import not counted.

    Each solution has other prices, loads, suns and states of charge. `resolve_cpu_ms` is the processor's time alone,
    for a machine that others use, too. `rebuilt_ms`: with cars that come and go at other steps, for which the program
    is made anew. `worst_balance` is the largest relative gap between net power and its parts.
    """
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    progress("loading the solver")
    from gateway.planning.problem import PlanProblem, Shape

    grid = SyntheticMicrogrid(request.steps, request.resources)
    progress(f"{request.solves} plans of {request.steps} steps and {request.resources} resources")
    given = grid.at(0.0)
    started_s = perf_counter()
    problem = PlanProblem(Shape.of(given))
    problem.solve(given, request.time_limit_s)
    first_ms = (perf_counter() - started_s) * 1e3
    again, busy, rebuilt, worst = Figures(), Figures(), Figures(), 0.0
    for number in range(1, request.solves + 1):
        given = grid.at(number * MOVES_H)
        started_s, begun_s = perf_counter(), process_time()
        plan = problem.solve(given, request.time_limit_s)
        again.add((perf_counter() - started_s) * 1e3)
        busy.add((process_time() - begun_s) * 1e3)
        total_w = [
            load + sum(each) for load, *each in zip(given.load_w, *(r.power_w for r in plan.resources), strict=True)
        ]
        scale_w = max(map(abs, given.load_w))
        worst = max(worst, *(abs(a - b) / scale_w for a, b in zip(total_w, plan.net_w, strict=True)))
    for number in range(1, REBUILT + 1):
        given = grid.at(number * STEP_S / 3600.0, shift=number)
        started_s = perf_counter()
        PlanProblem(Shape.of(given)).solve(given, request.time_limit_s)
        rebuilt.add((perf_counter() - started_s) * 1e3)
    return {
        "steps": request.steps,
        "resources": request.resources,
        "first_solve_ms": round(first_ms, 3),
        "resolve_ms": again.summary(),
        "resolve_cpu_ms": busy.summary(),
        "rebuilt_ms": rebuilt.summary(),
        "worst_balance": round(worst, 9),
        "balanced": worst <= ROUNDS,
    }
