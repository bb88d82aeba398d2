"""What others say of prices and forecasts may be anything that the interface allows: there is a plan all the same."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("cvxpy")

from config.planning import InterchangePrices, OfferSettings
from gateway.planning.children import DeliveryRecord, child_states
from gateway.planning.messages import ChildState, DispatchState, MeasuredStep, OfferMessage
from gateway.planning.planner import Planner
from gateway.planning.site_input import BELIEVED_PER_KWH
from tests.layers.messages import interval, offer
from tests.layers.test_child_resource import FREE, tier
from tests.planning.states import NOON_S, battery, car, planning, state

FLAT = planning(interchange=InterchangePrices(import_per_kwh=0.3, export_per_kwh=0.1), offer=OfferSettings(intervals=1))


def dispatch(price: float | None, *path: float) -> DispatchState:
    return DispatchState(
        net_power_w=0.0, regulation_up_w=0.0, regulation_down_w=0.0, from_utc_s=NOON_S, until_utc_s=None,
        lambda_per_kwh=price, path_per_kwh=path, until_replaced=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("price", "path", "imports"),
    [
        (-0.5, (-0.4,), (-0.4, -0.3, 0.3)),
        (1e6, (-1e6,), (BELIEVED_PER_KWH + 0.1, -BELIEVED_PER_KWH + 0.1, 0.3)),
        (None, (0.2,), (0.3, 0.3, 0.3)),
        (0.2, (), (0.3, 0.3, 0.3)),
    ],
    ids=["negative", "huge", "missing", "without a path"],
)
def test_a_parents_price_may_be_anything(
    price: float | None, path: tuple[float, ...], imports: tuple[float, ...]
) -> None:
    planner = Planner(None)
    given = state(
        batteries=(battery(),), cars=(car(),), dispatches=(dispatch(price, *path),), planning=FLAT, offers=True
    )
    plan = planner.plan(given)
    assert (plan.status, plan.given_up.get("cars' energy", 0.0)) == ("optimal", 0.0)
    assert plan.series.import_per_kwh[:3] == pytest.approx(imports)
    offers = [work for work in planner.offers() if isinstance(work, OfferMessage)]
    assert list(offers[0].powers_w) == sorted(offers[0].powers_w, reverse=True)


@pytest.mark.parametrize("prices", [(-1e6, 1e6), (0.0, 0.0), (-0.3, -0.1)], ids=["huge", "none", "negative"])
def test_a_childs_prices_may_be_anything(prices: tuple[float, ...]) -> None:
    told = {"prices_per_kwh": prices, "powers_w": (20e3, -10e3), "lower_w": -10e3, "upper_w": 20e3}
    child = {
        "name": "child", "begin_utc_s": NOON_S, "base_w": (5e3,), "intervals": [told] * 4,
        "energy_up_wh": 5e3, "energy_down_wh": 5e3,
    }  # fmt: skip
    plan = Planner(None).plan(
        state(batteries=(battery(),), children=(ChildState.model_validate(child),), planning=FLAT)
    )
    assert (plan.status, dict(plan.given_up)) == ("optimal", {})


def test_an_offer_with_gaps_is_used_where_it_says_something() -> None:
    plant, now = tier(), datetime.fromtimestamp(NOON_S, UTC)
    plant.run(2.0, FREE)
    starts = (now, now + timedelta(seconds=1800))
    made = offer(now, *(interval(start, duration_s=900.0) for start in starts))
    assert plant.decision is not None
    (child,) = child_states(plant.decision.resources, {"child": made}, DeliveryRecord(), NOON_S, 900.0, 16)
    assert [one is not None for one in child.intervals[:4]] == [True, False, True, False]
    plan = Planner(None).plan(state(children=(child,), planning=FLAT))
    assert plan.status == "optimal"


def test_a_history_full_of_gaps_and_none_at_all_are_said_and_planned_with() -> None:
    rng = random.Random(5)
    gaps = tuple(
        MeasuredStep(
            begin_utc_s=NOON_S - at * 900.0,
            rest_w=rng.uniform(0.0, 5e3) if rng.random() < 0.3 else None,
            sun_pu=rng.random() if rng.random() < 0.3 else None,
        )
        for at in range(1, 4 * 96)
    )
    for measured in (gaps, ()):
        planner = Planner(None)
        plan = planner.plan(state(measured=measured, batteries=(battery(),), offers=True, planning=FLAT))
        assert plan.status == "optimal"
        assert bool(plan.assumptions) is not bool(measured)
        made = next(work for work in planner.offers() if isinstance(work, OfferMessage))
        assert made.forecast_w[0] <= made.forecast_w[1] <= made.forecast_w[2]
