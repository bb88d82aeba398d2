"""The planner's program on days that can be worked out by hand, and properties of every plan."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("cvxpy")

from gateway.planning.curves import curves
from gateway.planning.model import (
    BatteryPlan,
    Plan,
    PlanInput,
    Reserve,
    SolarPlan,
    Tariff,
    ThermalPlan,
    VehiclePlan,
)
from gateway.planning.problem import NoPlanError, PlanProblem, Shape

HOUR_S = 3600.0
LOSSLESS = {"charge_efficiency_pu": 1.0, "discharge_efficiency_pu": 1.0, "wear_per_kwh": 0.0}


def battery(soc: float = 0.5, power_w: float = 5e3, capacity_wh: float = 10e3, **more: float) -> BatteryPlan:
    return BatteryPlan("b", capacity_wh, soc, power_w, power_w, **{"soc_min": 0.0, "soc_max": 1.0, **more})  # type: ignore[arg-type]


def tariff(*prices: float, spread: float = 0.0, **more: float) -> Tariff:
    return Tariff(prices, tuple(price - spread for price in prices), **more)


def planned(given_: PlanInput) -> Plan:
    return PlanProblem(Shape.of(given_)).solve(given_)


def power(plan: Plan, name: str) -> list[float]:
    return [round(value) for value in next(one.power_w for one in plan.resources if one.name == name)]


def test_a_battery_buys_cheap_and_sells_dear() -> None:
    plan = planned(PlanInput(HOUR_S, (1e3, 1e3), tariff(0.10, 0.30), batteries=(battery(**LOSSLESS),)))
    assert power(plan, "b") == [5000, -5000]
    assert plan.cost == pytest.approx(0.10 * 6 - 0.30 * 4, abs=1e-3)
    assert plan.lambda_per_kwh == pytest.approx((0.10, 0.30), abs=1e-3)
    assert plan.given_up == {}


def test_losses_and_wear_that_cost_more_than_the_spread_leave_it_still() -> None:
    plan = planned(PlanInput(HOUR_S, (1e3, 1e3), tariff(0.28, 0.30), batteries=(battery(wear_per_kwh=0.01),)))
    assert power(plan, "b") == [0, 0]


def test_an_import_limit_is_kept_by_what_was_stored_before() -> None:
    given_ = PlanInput(HOUR_S, (1e3, 8e3), tariff(0.2, 0.2, spread=0.1), (5e3, 5e3), (5e3, 5e3), (battery(0.0),))
    plan = planned(given_)
    assert max(plan.net_w) == pytest.approx(5e3, abs=1.0)
    assert "the import limit" not in plan.given_up


def test_a_limit_that_cannot_be_kept_is_named_with_the_least_energy() -> None:
    plan = planned(PlanInput(HOUR_S, (8e3,), tariff(0.2, spread=0.1), (5e3,), (5e3,), (battery(0.0),)))
    assert plan.given_up["the import limit"] == pytest.approx(3.0, abs=1e-3)


def test_a_car_gets_its_energy_in_its_cheapest_hours_and_a_car_that_cannot_is_named() -> None:
    cars = VehiclePlan("soon", 10e3, 10e3, 0, 3), VehiclePlan("late", 10e3, 25e3, 1, 3)
    plan = planned(PlanInput(HOUR_S, (0.0,) * 4, tariff(0.3, 0.1, 0.2, 0.0), vehicles=cars))
    assert power(plan, "soon") == [0, 10000, 0, 0]
    assert power(plan, "late") == [0, 10000, 10000, 0]
    assert plan.given_up == {"cars' energy": pytest.approx(5.0, abs=1e-3)}


def test_sun_is_curtailed_only_where_export_is_forbidden_and_all_inverters_alike() -> None:
    sun = SolarPlan("p", (4e3, 4e3)), SolarPlan("q", (2e3, 2e3))
    plan = planned(PlanInput(HOUR_S, (3e3, 3e3), tariff(0.3, 0.3, spread=0.2), (), (0.0, 9e9), solar=sun))
    assert power(plan, "p") == [-2000, -4000]
    assert power(plan, "q") == [-1000, -2000]


def test_a_battery_does_not_burn_energy_under_negative_prices() -> None:
    given_ = PlanInput(HOUR_S, (0.0,) * 3, tariff(-0.5, -0.5, 0.1), batteries=(battery(1.0, wear_per_kwh=0.0),))
    plan = planned(given_)
    stored = next(one.stored_wh for one in plan.resources)
    flows = power(plan, "b")
    for at, flow in enumerate(flows):
        gained = flow * 0.97 if flow > 0 else flow / 0.97
        assert stored[at + 1] - stored[at] == pytest.approx(gained, abs=5.0)


def test_a_demand_charge_shaves_the_peak() -> None:
    load = (2e3, 10e3, 2e3)
    dear = planned(PlanInput(HOUR_S, load, tariff(0.2, 0.2, 0.2, demand_per_kw=10.0), batteries=(battery(**LOSSLESS),)))
    assert max(dear.net_w) < 7e3
    paid = tariff(0.2, 0.2, 0.2, demand_per_kw=10.0, peak_so_far_w=10e3)
    assert planned(PlanInput(HOUR_S, load, paid)).net_w[1] == pytest.approx(10e3, abs=1.0)


def test_reserve_keeps_power_and_energy_free() -> None:
    reserve = Reserve((3e3, 3e3), (3e3, 3e3), lasting_s=HOUR_S)
    plan = planned(PlanInput(HOUR_S, (0.0, 0.0), tariff(0.0, 0.5), batteries=(battery(**LOSSLESS),), reserve=reserve))
    stored = plan.resources[0].stored_wh
    assert all(3e3 - 5 <= wh <= 7e3 + 5 for wh in stored[:-1])
    assert "reserve upward" not in plan.given_up


def test_a_heat_pump_runs_when_it_is_cheap_and_keeps_it_warm() -> None:
    pump = ThermalPlan("h", 4e3, 5e3, 2e3, 20e3, (3e3,) * 4, cop=3.0, loss_pu_per_h=0.0)
    plan = planned(PlanInput(HOUR_S, (0.0,) * 4, tariff(0.1, 0.5, 0.5, 0.5), thermal=(pump,)))
    flows = power(plan, "h")
    assert flows[0] == pytest.approx(3000, abs=10)
    assert flows[1:] == pytest.approx([0, 0, 0], abs=10)
    assert plan.given_up == {}


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (PlanInput(HOUR_S, (), tariff()), "no steps"),
        (PlanInput(HOUR_S, (1.0,), tariff(0.1, 0.2)), "2 values for 1 steps"),
        (PlanInput(HOUR_S, (float("nan"),), tariff(0.1)), "not a finite number"),
        (PlanInput(HOUR_S, (1.0,), tariff(float("nan"))), "not a number"),
    ],
)
def test_an_input_that_contradicts_itself_is_refused(given_: PlanInput, words: str) -> None:
    problem = PlanProblem(Shape.of(PlanInput(HOUR_S, (1.0,), tariff(0.1))))
    with pytest.raises(NoPlanError, match=words):
        problem.solve(given_)


prices = st.floats(-0.5, 1.0).map(lambda value: round(value, 3))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    load=st.tuples(*[st.floats(0, 2e4)] * 6),
    dear=st.tuples(*[prices] * 6),
    soc=st.floats(0, 1),
    limit_w=st.floats(0, 3e4),
    sun_w=st.floats(0, 2e4),
)
def test_every_plan_obeys_physics_and_gives_curves(
    load: tuple[float, ...], dear: tuple[float, ...], soc: float, limit_w: float, sun_w: float
) -> None:
    one = battery(soc, soc_min=0.1, soc_max=0.9)
    given_ = PlanInput(
        900.0,
        load,
        tariff(*dear, spread=0.05),
        (limit_w,) * 6,
        (limit_w,) * 6,
        (one,),
        (VehiclePlan("v", 11e3, 5e3, 0, 4),),
        (SolarPlan("s", (sun_w,) * 6),),
    )
    plan = planned(given_)
    by_name = {each.name: each for each in plan.resources}
    for at in range(6):
        total_w = load[at] + sum(each.power_w[at] for each in plan.resources)
        assert plan.net_w[at] == pytest.approx(total_w, abs=2.0)
        assert -1.0 - sun_w <= by_name["s"].power_w[at] <= 1.0
        assert abs(by_name["b"].power_w[at]) <= 5e3 + 1.0
    if "the import limit" not in plan.given_up and "the export limit" not in plan.given_up:
        assert max(map(abs, plan.net_w)) <= limit_w + 5.0
    for wh in by_name["b"].stored_wh:
        assert min(0.1, soc) * 10e3 - 5.0 <= wh <= max(0.9, soc) * 10e3 + 5.0
    for points in curves(given_, plan).values():
        for (price, watts), (next_price, next_watts) in pairwise(points):
            assert price <= next_price
            assert watts >= next_watts
