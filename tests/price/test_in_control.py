"""The form of the interchange cost on its way from the site file into control's clearing, and through a recording."""

from __future__ import annotations

import json

import pytest

from config.planning import InterchangePrices
from gateway.control.clearing import Bid, make_curve
from gateway.control.connection import SumBounds
from gateway.control.feedback import RestEstimate
from gateway.control.interchange import InterchangeCost
from gateway.control.orders_in_force import OrdersInForce, PlanInForce
from gateway.control.planned import planned_price
from gateway.price.interchange_cost import terms_of
from gateway.recording import _orders_in, _orders_out

RATING_W = 10_000.0
BATTERY = Bid(make_curve([(0.10, RATING_W), (0.30, -RATING_W)]), -RATING_W, RATING_W)
ROOT = terms_of(
    InterchangePrices.model_validate({"cost": {"form": "root", "tau_per_kwh_sqrt_kw": 0.02}}).cost,
)


def price(cost: InterchangeCost, rest_w: float) -> tuple[float, float]:
    plan = PlanInForce("tariff", 0.22, 0.18, cost=cost)
    rest = RestEstimate(0.0, 20_000.0, 1_000.0)
    rest.lower_w = rest.upper_w = rest_w
    found = planned_price(plan, [BATTERY], rest, SumBounds(-20_000.0, 20_000.0, None))
    assert found is not None
    return found.lambda_per_kwh, rest_w + found.total_w


def test_the_root_form_makes_a_site_keep_more_to_itself() -> None:
    plain, net_w = price(InterchangeCost(), 8_000.0)
    rooted, kept_w = price(ROOT, 8_000.0)
    assert plain == pytest.approx(0.22)
    assert 0.0 < kept_w < net_w
    assert rooted == pytest.approx(0.22 + 0.02 * (kept_w / 1e3) ** 0.5, abs=2e-3)


def test_a_recording_keeps_it() -> None:
    orders = OrdersInForce(plan=PlanInForce("tariff", 0.3, 0.1, cost=ROOT))
    assert _orders_in(json.loads(json.dumps(_orders_out(orders)))) == orders
    old = json.loads(json.dumps(_orders_out(orders)))
    del old["plan"]["cost"]
    read = _orders_in(old).plan
    assert read is not None
    assert read.cost == InterchangeCost()
