"""What a plan is made from, and what it gives: plain numbers, no solver.

Powers in watts, load convention, but for magnitudes that are named so; series have one value a step. Prices per kWh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Final

from gateway.planning.child_plan import ChildPlan

Series = tuple[float, ...]

LASTING_S: Final = 900.0
"""How long the energy behind a regulation reserve lasts, where nobody says otherwise."""


@dataclass(frozen=True, slots=True)
class BatteryPlan:
    """A battery over the horizon. `target_soc` is wished for at the end; `wear_per_kwh` for each kWh through it."""

    name: str
    capacity_wh: float
    soc: float
    charge_w: float
    discharge_w: float
    soc_min: float = 0.05
    soc_max: float = 0.95
    charge_efficiency_pu: float = 0.97
    discharge_efficiency_pu: float = 0.97
    wear_per_kwh: float = 0.01
    target_soc: float | None = None


@dataclass(frozen=True, slots=True)
class VehiclePlan:
    """A car: energy wanted between two steps (the second excluded), at most `max_w`."""

    name: str
    max_w: float
    needed_wh: float
    from_step: int
    until_step: int


@dataclass(frozen=True, slots=True)
class SolarPlan:
    """An inverter: what it could give, as magnitudes."""

    name: str
    available_w: Series


@dataclass(frozen=True, slots=True)
class ThermalPlan:
    """A heat pump on a store: `cop` units of heat a unit of power, `heat_w` drawn, `loss_pu_per_h` of what it holds.

    `stored_wh` now; it is wished to stay in `least_wh` to `most_wh`.
    """

    name: str
    max_w: float
    stored_wh: float
    least_wh: float
    most_wh: float
    heat_w: Series
    cop: float = 3.0
    loss_pu_per_h: float = 0.01


@dataclass(frozen=True, slots=True)
class Tariff:
    """Prices of the interchange. `demand_per_kw` is charged for the highest import above `peak_so_far_w`."""

    import_per_kwh: Series
    export_per_kwh: Series
    demand_per_kw: float = 0.0
    peak_so_far_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Reserve:
    """Regulation capacity kept free in each step, as magnitudes, and how long its energy has to last."""

    up_w: Series
    down_w: Series
    lasting_s: float = LASTING_S


@dataclass(frozen=True, slots=True)
class PlanInput:
    """Everything that a plan is made from. Limits are magnitudes of net power; inf: none.

    `dispatch_w`: the net power that was promised in each step, None where it is free; empty: it is free everywhere.
    """

    step_s: float
    load_w: Series
    tariff: Tariff
    import_limit_w: Series = ()
    export_limit_w: Series = ()
    batteries: tuple[BatteryPlan, ...] = ()
    vehicles: tuple[VehiclePlan, ...] = ()
    solar: tuple[SolarPlan, ...] = ()
    thermal: tuple[ThermalPlan, ...] = ()
    reserve: Reserve | None = None
    dispatch_w: tuple[float | None, ...] = ()
    children: tuple[ChildPlan, ...] = ()

    @property
    def steps(self) -> int:
        """How many steps the horizon has."""
        return len(self.load_w)

    def problems(self) -> list[str]:
        """What contradicts itself: series of another length, nothing to plan, a number that is none."""
        found = []
        if not self.load_w:
            found.append("load_w: no steps")
        series = {
            "import_per_kwh": self.tariff.import_per_kwh,
            "export_per_kwh": self.tariff.export_per_kwh,
            "import_limit_w": self.import_limit_w or (inf,) * self.steps,
            "export_limit_w": self.export_limit_w or (inf,) * self.steps,
            **{f"{one.name}.available_w": one.available_w for one in self.solar},
            **{f"{one.name}.heat_w": one.heat_w for one in self.thermal},
            **{f"{one.name}.base_w": one.base_w for one in self.children},
        }
        if self.reserve is not None:
            series |= {"reserve.up_w": self.reserve.up_w, "reserve.down_w": self.reserve.down_w}
        for name, values in series.items():
            if len(values) != self.steps:
                found.append(f"{name}: {len(values)} values for {self.steps} steps")
            if any(value != value for value in values):
                found.append(f"{name}: not a number")
        if self.dispatch_w and len(self.dispatch_w) != self.steps:
            found.append(f"dispatch_w: {len(self.dispatch_w)} values for {self.steps} steps")
        if any(value != value or abs(value) == inf for value in self.load_w):
            found.append("load_w: not a finite number")
        return found


@dataclass(frozen=True, slots=True)
class ResourcePlan:
    """One resource over the horizon. `stored_wh` has a value more than `power_w`, and is empty where nothing is stored.

    `value_per_kwh`: what a kWh more in store now (or delivered to the car) is worth; None where nothing is stored.
    """

    name: str
    power_w: Series
    stored_wh: Series = ()
    value_per_kwh: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan. `lambda_per_kwh` is the local price in each step; `given_up` names what could not be had, with amounts.

    `status` "optimal", or "incumbent" where the solver stopped at its limit with a usable point.
    """

    step_s: float
    net_w: Series
    lambda_per_kwh: Series
    resources: tuple[ResourcePlan, ...]
    cost: float
    given_up: Mapping[str, float] = field(default_factory=dict)
    status: str = "optimal"
    solve_s: float = 0.0
    repairs: int = 0
