"""Layers below in their parent's plan: their offers are resources of it, and count for what they deliver."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("cvxpy")

from hypothesis import given as given_any
from hypothesis import strategies as st

from config.messages import Offer
from config.planning import InterchangePrices, OfferSettings, PriceBand
from gateway.planning.child_plan import CHILD_BLOCKS, CHILD_STEPS, ChildPlan, child_step
from gateway.planning.children import DeliveryRecord, child_states
from gateway.planning.messages import ChildState, OfferMessage
from gateway.planning.model import PlanInput, Tariff
from gateway.planning.planner import Planner
from gateway.planning.problem import PlanProblem, Shape
from tests.layers.messages import interval, offer
from tests.layers.test_child_resource import FREE, Tier, asks_for, tier
from tests.planning.states import NOON_S, connection, planning, state

NOW = datetime.fromtimestamp(NOON_S, UTC)
STEP_S = 900.0
POINTS = ((0.1, 20e3), (0.2, 5e3), (0.3, 5e3), (0.3, -10e3))


def parent(child: ChildPlan, prices: tuple[float, ...], **limits: Any) -> PlanInput:
    """A parent with nothing but a load of 2 kW and a child."""
    return PlanInput(STEP_S, (2e3,) * len(prices), Tariff(prices, prices), children=(child,), **limits)


def planned(given: PlanInput) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Net power, and the child's."""
    plan = PlanProblem(Shape.of(given)).solve(given)
    (child,) = plan.resources
    return plan.net_w, child.power_w


def test_a_child_takes_what_its_curve_says_of_the_price() -> None:
    step = child_step(POINTS, -15e3, 25e3, 5e3)
    child = ChildPlan("child", (5e3,) * 6, (step,) * 5, 50e3, 50e3)
    prices = (0.05, 0.25, 0.35, -2.0, 2.0, 0.25)
    net_w, power_w = planned(parent(child, prices))
    assert power_w == pytest.approx((20e3, 5e3, -10e3, 25e3, -15e3, 5e3), abs=5.0)
    assert net_w == pytest.approx([2e3 + power for power in power_w], abs=5.0)


def test_its_energy_is_counted_over_the_steps_and_its_ramp_between_them() -> None:
    step = child_step(POINTS, -15e3, 25e3, 5e3)
    dear = (0.35,) * 4
    child = ChildPlan("child", (5e3,) * 4, (step,) * 4, energy_up_wh=6e3, energy_down_wh=0.0)
    _, power_w = planned(parent(child, dear))
    assert sum(5e3 - power for power in power_w) * 0.25 == pytest.approx(6e3, abs=5.0), "not 15 kW for an hour"
    slow = replace(child, energy_up_wh=50e3, ramp_w_per_s=2e3 / STEP_S)
    _, power_w = planned(parent(slow, (0.25, 0.35, 0.35, 0.35)))
    assert all(abs(b - a) <= 2e3 + 5.0 for a, b in pairwise(power_w))


def test_a_limit_of_the_parents_is_kept_by_the_child() -> None:
    step = child_step(POINTS, -15e3, 25e3, 5e3)
    child = ChildPlan("child", (5e3,) * 4, (step,) * 4, 50e3, 50e3)
    net_w, power_w = planned(parent(child, (0.05,) * 4, import_limit_w=(12e3,) * 4))
    assert max(net_w) <= 12e3 + 5.0
    assert power_w == pytest.approx((10e3,) * 4, abs=5.0)


def test_a_child_that_delivers_half_is_counted_on_for_half() -> None:
    half = child_step(POINTS, -15e3, 25e3, 5e3, delivered_pu=0.5)
    assert (half.lower_w, half.upper_w) == (-5e3, 15e3)
    child = ChildPlan("child", (5e3,) * 2, (half,) * 2, 50e3, 50e3)
    _, power_w = planned(parent(child, (0.05, 0.35)))
    assert power_w == pytest.approx((12.5e3, -2.5e3), abs=5.0)


curves = st.lists(st.tuples(st.integers(-20, 80), st.integers(-40, 60)), min_size=1, max_size=20)


@given_any(curves, st.integers(0, 10), st.integers(0, 10), st.floats(0.0, 1.0))
def test_blocks_make_up_the_curve_and_its_envelope(
    numbers: list[tuple[int, int]], below: int, above: int, delivered_pu: float
) -> None:
    prices = sorted(price / 100.0 for price, _ in numbers)
    powers = sorted((1e3 * power for _, power in numbers), reverse=True)
    lower_w, upper_w = powers[-1] - 1e3 * below, powers[0] + 1e3 * above
    base_w = (lower_w + upper_w) / 2.0
    step = child_step(tuple(zip(prices, powers, strict=True)), lower_w, upper_w, base_w, delivered_pu)
    assert len(step.blocks) <= CHILD_BLOCKS
    assert all(a.price_per_kwh >= b.price_per_kwh for a, b in pairwise(step.blocks))
    assert all(block.width_w >= 0.0 for block in step.blocks)
    assert step.lower_w == pytest.approx(base_w + delivered_pu * (lower_w - base_w))
    assert step.upper_w == pytest.approx(base_w + delivered_pu * (upper_w - base_w), abs=1e-6)


def states(plant: Tier, *offers: Offer, delivery: DeliveryRecord | None = None) -> tuple[ChildState, ...]:
    assert plant.decision is not None
    known = dict(zip(("child",), offers, strict=False))
    return child_states(plant.decision.resources, known, delivery or DeliveryRecord(), NOON_S + 300.0, STEP_S, 16)


def test_offered_intervals_come_to_lie_on_the_clocks_steps() -> None:
    plant = tier()
    plant.run(2.0, FREE)
    band = {"p10_w": -3e3, "p50_w": -2e3, "p90_w": 0.0}
    made = offer(
        NOW,
        interval(NOW, duration_s=900.0),
        interval(NOW + timedelta(seconds=900), duration_s=900.0, forecast=band, energy_up_wh=1.0),
    )
    (child,) = states(plant, made)
    here_w = plant.powers_w["child"]
    assert child.begin_utc_s == NOON_S
    assert child.base_w[:3] == pytest.approx((here_w, -2e3, -2e3), abs=20.0)
    assert [one is not None for one in child.intervals[:4]] == [True, True, False, False]
    assert child.energy_up_wh == 4000.0
    (silent,) = states(plant)
    assert set(silent.base_w) == {silent.base_w[0]}
    assert set(silent.intervals) == {None}


def test_what_a_child_does_not_deliver_is_measured_discounted_and_told() -> None:
    plant, record = tier(), DeliveryRecord()
    observe(plant, record, FREE, 5.0)
    observe(plant, record, asks_for(25e3), 10.0)
    assert record.delivered_pu("child") > 0.95
    assert record.discounted() == {}
    plant.deaf.add("child")
    observe(plant, record, asks_for(8e3), 30.0)
    assert plant.net_w == pytest.approx(8e3, abs=500.0), "the others have taken its share"
    assert record.delivered_pu("child") < 0.6
    assert record.discounted() == {"child": pytest.approx(record.delivered_pu("child"), abs=0.01)}
    (child,) = states(plant, offer(NOW, interval(NOW, duration_s=900.0)), delivery=record)
    assert child.delivered_pu == record.delivered_pu("child")


def observe(plant: Tier, record: DeliveryRecord, orders: Any, seconds: float) -> None:
    for _ in range(round(seconds / plant.period_s)):
        decision = plant.cycle(orders)
        asked = {one.device: one.power_w for one in decision.setpoints}
        record.observe(plant.now_s, decision.resources, asked)


EVENING = InterchangePrices(
    import_per_kwh=0.15,
    export_per_kwh=0.15,
    bands=(PriceBand(from_h=13, until_h=24, import_per_kwh=0.4, export_per_kwh=0.4),),
)


def test_the_parents_plan_and_offer_count_the_child() -> None:
    """The parent has nothing of its own: whatever it offers is its child's."""
    base = (5e3,) * 17
    told = {"prices_per_kwh": [0.1, 0.2, 0.3], "powers_w": [20e3, 5e3, -10e3], "lower_w": -10e3, "upper_w": 20e3}
    child = {
        "name": "child", "begin_utc_s": NOON_S, "base_w": base, "intervals": [told] * (CHILD_STEPS + 1),
        "energy_up_wh": 20e3, "energy_down_wh": 20e3,
    }  # fmt: skip
    given = state(
        sun_rating_w=0.0, rest_w=2e3, offers=True, children=(ChildState.model_validate(child),),
        connection=connection(rating_w=50e3),
        planning=planning(interchange=EVENING, offer=OfferSettings(intervals=1)),
    )  # fmt: skip
    planner = Planner(None)
    plan = planner.plan(given)
    assert plan.status == "optimal"
    assert plan.curves == (), "control has the child's own curve"
    assert plan.series.net_w[0] > 12e3 > 0.0 > plan.series.net_w[5]
    made = next(work for work in planner.offers() if isinstance(work, OfferMessage))
    assert (made.lower_w, made.upper_w) == (-8e3, 22e3)
    assert made.powers_w[0] >= 21e3
    assert made.powers_w[-1] <= -7e3
    assert [one.device for one in made.curves] == ["child"]
