"""The study's programs: the central one and the building's agree with the planner's own, with accounts, with hands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("clarabel")
pytest.importorskip("cvxpy")

from gateway.planning.model import BatteryPlan, PlanInput, SolarPlan, Tariff, ThermalPlan, VehiclePlan
from gateway.planning.problem import PlanProblem, Shape
from gateway.study.accounts import cost_of, impossible, net_w, violations
from gateway.study.central import State, solve_centrally, start_of
from gateway.study.fleet import Area, Building, Fleet, Tier
from gateway.study.made_fleet import make_fleet
from gateway.study.minimal_dso import curtailed, run_minimal_dso
from gateway.study.no_control import uncontrolled_w
from gateway.study.site_program import SiteProgram

STEPS = 12


def fleet_of(*buildings: Building, import_w: float = 1e6, imports: tuple[float, ...] = (0.1, 0.3)) -> Fleet:
    exports = tuple(price - 0.02 for price in imports)
    microgrid = Area("m", Tier.MICROGRID, import_w, 1e6, (), buildings)
    return Fleet(0, "2016-06-08", 3600.0, imports, exports, Area("top", Tier.SUBSTATION, 1e6, 1e6, (microgrid,)))


def battery(name: str = "b", **more: float) -> BatteryPlan:
    lossless = {"charge_efficiency_pu": 1.0, "discharge_efficiency_pu": 1.0, "wear_per_kwh": 0.0}
    return BatteryPlan(name, 10e3, 0.5, 4e3, 4e3, **{"soc_min": 0.0, "soc_max": 1.0, **lossless, **more})  # type: ignore[arg-type]


def test_the_central_program_buys_cheap_and_sells_dear() -> None:
    fleet = fleet_of(Building("h", 20e3, 20e3, (1e3, 1e3), (battery(),)))
    result = solve_centrally(fleet)
    assert result.powers_w["b"] == pytest.approx((4e3, -4e3), abs=1e-3)
    assert result.cost == pytest.approx(0.1 * 5 - 0.28 * 3)


def test_a_network_limit_is_kept_by_the_program_that_knows_it_and_broken_by_the_one_that_does_not() -> None:
    fleet = fleet_of(Building("h", 20e3, 20e3, (1e3, 1e3), (battery(),)), import_w=3e3)
    knows, blind = solve_centrally(fleet), solve_centrally(fleet, network=False)
    assert violations(fleet, knows.powers_w) == []
    assert [(one.at, one.step, one.beyond_wh) for one in violations(fleet, blind.powers_w)] == [
        ("m", 0, pytest.approx(2e3, abs=1e-3))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_central_programs_word_for_its_cost_is_what_the_accounts_find(seed: int) -> None:
    fleet = make_fleet(15, seed, steps=STEPS)
    result = solve_centrally(fleet)
    assert cost_of(fleet, result.powers_w).total == pytest.approx(result.cost, rel=1e-7)
    assert violations(fleet, result.powers_w) == []
    assert impossible(fleet, result.powers_w) == []


@pytest.mark.parametrize("seed", range(4))
def test_nobody_is_cheaper_than_the_central_program(seed: int) -> None:
    fleet = make_fleet(10, seed, steps=STEPS)
    best = solve_centrally(fleet).cost
    blind = run_minimal_dso(fleet)
    assert violations(fleet, blind.powers_w) == []
    assert impossible(fleet, blind.powers_w, 5.0) == []
    assert cost_of(fleet, blind.powers_w).total >= best - 1e-6


def test_planner_central_and_building_find_the_same_day() -> None:
    """Three programs in three forms by three codes; a heat pump's end of day is the study's own and left out."""
    made = next(one for one in make_fleet(20, 3).buildings if one.batteries and one.vehicles and one.solar)
    building = replace(made, thermal=())
    fleet = make_fleet(20, 3)
    alone = replace(fleet, substation=Area("top", Tier.SUBSTATION, 1e6, 1e6, (), (building,)))
    central = solve_centrally(alone)
    given = PlanInput(
        fleet.step_s,
        building.load_w,
        Tariff(fleet.import_per_kwh, fleet.export_per_kwh),
        (building.import_limit_w,) * fleet.steps,
        (building.export_limit_w,) * fleet.steps,
        tuple(replace(one, target_soc=one.soc) for one in building.batteries),
        building.vehicles,
        building.solar,
    )
    plan = PlanProblem(Shape.of(given)).solve(given)
    assert plan.given_up == {}
    assert central.cost == pytest.approx(plan.cost, abs=2e-3)
    # Against the planner's own prices the building's program, not held to anything, does no worse.
    program = SiteProgram(building, start_of(alone), fleet.hours, 1e-9)
    answer = program.plan(np.asarray(plan.lambda_per_kwh), np.asarray(plan.net_w))
    value = np.asarray(plan.lambda_per_kwh) * fleet.hours / 1e3
    wear = sum(one.wear_per_kwh * float(np.abs(answer.powers_w[one.name]).sum()) / 1e3 for one in building.batteries)
    planned = {one.name: np.asarray(one.power_w) for one in plan.resources}
    planned_wear = sum(one.wear_per_kwh * float(np.abs(planned[one.name]).sum()) / 1e3 for one in building.batteries)
    mine, theirs = value @ answer.net_w + wear, value @ np.asarray(plan.net_w) + planned_wear
    assert mine == pytest.approx(theirs, abs=5e-3)


def test_what_lies_between_two_plans_is_possible() -> None:
    fleet = make_fleet(12, 5, steps=STEPS)
    powers = {}
    for building in fleet.buildings:
        program = SiteProgram(building, start_of(fleet), fleet.hours, 1e-6)
        cheap = program.plan(np.linspace(0.1, 0.4, STEPS), np.zeros(STEPS))
        dear = program.plan(np.linspace(0.4, 0.1, STEPS), np.zeros(STEPS))
        plan = cheap.towards(dear, 0.37)
        powers |= {name: tuple(power) for name, power in plan.powers_w.items()}
        assert net_w((building,), powers) == pytest.approx(tuple(plan.net_w), abs=1e-2)
    assert impossible(fleet, powers) == []


def test_states_that_are_off_by_rounding_leave_a_plan() -> None:
    """A car that was given a trifle too much, a battery and a store a trifle too full."""
    fleet = make_fleet(12, 5, steps=STEPS)
    stored = dict(start_of(fleet).stored_wh)
    for building in fleet.buildings:
        stored |= {one.name: -1e-7 for one in building.vehicles}
        stored |= {one.name: one.soc_max * one.capacity_wh + 1e-7 for one in building.batteries}
        stored |= {one.name: one.most_wh + 1e-7 for one in building.thermal}
    state = State(0, stored)
    assert solve_centrally(fleet, state).cost > 0.0
    for building in fleet.buildings:
        program = SiteProgram(building, state, fleet.hours, 1e-6)
        plan = program.plan(np.linspace(0.1, 0.4, STEPS), np.zeros(STEPS))
        assert float(np.max(np.abs(plan.net_w))) < 1e6


def test_the_dso_takes_back_what_a_limit_cannot_carry_each_device_by_the_same_part() -> None:
    car, pump = VehiclePlan("car", 8e3, 5e3, 0, 2), ThermalPlan("pump", 4e3, 0.0, 0.0, 9e3, (0.0, 0.0))
    fleet = fleet_of(Building("h", 7e3, 1e6, (1e3, 1e3), (), (car,), (), (pump,)))
    assert curtailed(fleet, {"car": 8e3, "pump": 4e3}, 0) == {"car": pytest.approx(4e3), "pump": pytest.approx(2e3)}


def test_the_dso_leaves_alone_what_its_limits_carry() -> None:
    fleet = fleet_of(Building("h", 20e3, 20e3, (1e3, 1e3), (battery(),)))
    assert curtailed(fleet, {"b": 3e3}, 0) == {"b": 3e3}


def test_the_dso_curtails_generation_where_export_is_too_much() -> None:
    sun = SolarPlan("sun", (9e3, 9e3))
    fleet = fleet_of(Building("h", 20e3, 2e3, (1e3, 1e3), (), (), (sun,)))
    assert curtailed(fleet, {"sun": -9e3}, 1) == {"sun": pytest.approx(-3e3)}


def test_without_control_a_car_is_charged_at_once_and_a_battery_rests() -> None:
    assert uncontrolled_w(VehiclePlan("c", 4e3, 6e3, 1, 4), 4, 3600.0) == (0.0, 4e3, 2e3, 0.0)
    assert uncontrolled_w(battery(), 2, 3600.0) == (0.0, 0.0)


def test_accounts_price_what_is_missing() -> None:
    car = VehiclePlan("c", 4e3, 6e3, 0, 2)
    fleet = fleet_of(Building("h", 20e3, 20e3, (0.0, 0.0), (battery(wear_per_kwh=0.01),), (car,)))
    cost = cost_of(fleet, {"c": (4e3, 0.0), "b": (0.0, -3e3)})
    assert (cost.cars, cost.end) == (pytest.approx(2.0 * 2), pytest.approx(1.0 * 3))
    assert cost.wear == pytest.approx(0.03)
    assert cost.energy == pytest.approx(0.1 * 4 - 0.28 * 3)


def test_accounts_name_what_a_device_cannot_do() -> None:
    fleet = fleet_of(Building("h", 20e3, 20e3, (0.0, 0.0), (battery(),)))
    assert impossible(fleet, {"b": (5e3, 0.0)}) == ["b: 5000.0 W in interval 0; -4000.0 to 4000.0 W is possible"]
    assert impossible(fleet, {"b": (4e3, 4e3)}) == ["b: holds 13000.0 Wh at interval 2; 0.0 to 10000.0 Wh is possible"]
