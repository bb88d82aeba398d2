"""The outside as a virtual bid: between import and export price the local price floats; and a plan in the cycle."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.vocabulary import DeviceKind, Quantity
from gateway.control.clearing import Bid, make_curve
from gateway.control.interchange import InterchangeCost, interchange_curve, local_price
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce, PlanInForce
from gateway.recording import Recorder, header, replay
from gateway.why import explain_decision
from tests.control.plant import Plant, device, site

SPREAD = InterchangeCost(spread_per_kwh=0.1)
STORE = Bid(make_curve([(0.15, 10e3), (0.25, -10e3)]), -10e3, 10e3)


def test_the_local_price_floats_between_export_and_import() -> None:
    """0.2 +- 0.1: the store takes the surplus until it has its fill, then the rest goes out at the export price."""
    for rest_w, price, net_w in ((0.0, 0.2, 0.0), (-5e3, 0.175, 0.0), (5e3, 0.225, 0.0), (-30e3, 0.1, -20e3)):
        found = local_price([STORE], 0.2, SPREAD, rest_w, -100e3, 100e3)
        assert rest_w + found.total_w == pytest.approx(net_w, abs=1e-6)
        assert found.lambda_per_kwh == pytest.approx(price)


def test_a_store_that_is_worth_more_than_the_import_price_is_filled_from_outside() -> None:
    store = Bid(make_curve([(0.40, 10e3), (0.41, 0.0), (0.60, 0.0), (0.61, -10e3)]), -10e3, 10e3)
    found = local_price([store], 0.2, SPREAD, 3e3, -100e3, 100e3)
    assert (found.lambda_per_kwh, found.total_w) == (pytest.approx(0.3), pytest.approx(10e3))


def test_the_devices_stay_within_their_bounds_whatever_the_price_says() -> None:
    greedy = Bid(make_curve([(0.9, 10e3), (1.0, 0.0)]), 0.0, 10e3)
    assert local_price([greedy], 0.2, SPREAD, 3e3, -100e3, 4e3).total_w == pytest.approx(4e3)


@given(
    price=st.floats(-1.0, 1.0),
    terms=st.tuples(*[st.floats(0.0, 0.3)] * 2, st.floats(0.0, 1e-5), st.floats(0.0, 1e-3)),
    lower_w=st.floats(-1e5, 1e5),
    upper_w=st.floats(-1e5, 1e5),
)
def test_whatever_the_cost_the_outside_is_a_curve(
    price: float, terms: tuple[float, float, float, float], lower_w: float, upper_w: float
) -> None:
    curve = interchange_curve(price, InterchangeCost(*terms), lower_w, upper_w)
    assert all(a <= b for a, b in pairwise(curve.prices_per_kwh))
    assert all(a >= b for a, b in pairwise(curve.powers_w))
    assert {-curve.powers_w[0], -curve.powers_w[-1]} <= {lower_w, upper_w}


def test_the_parents_price_reaches_the_local_one_by_the_term() -> None:
    """d lambda / d w at balance: all of it with an added charge, none with a spread or the 3/2 term."""

    def effect(cost: InterchangeCost) -> float:
        prices = [local_price([STORE], w, cost, 0.0, -50e3, 50e3).lambda_per_kwh for w in (0.199, 0.201)]
        return (prices[1] - prices[0]) / 0.002

    assert effect(InterchangeCost(added_per_kwh=0.0)) == pytest.approx(1.0)
    assert effect(SPREAD) == pytest.approx(0.0, abs=1e-9)
    assert effect(InterchangeCost(root_per_kwh=0.01)) < 0.05


# In the cycle


def orders(import_per_kwh: float, export_per_kwh: float, **more: object) -> OrdersInForce:
    curves = (("b", make_curve([(0.19, 20e3), (0.195, 0.0), (0.205, 0.0), (0.21, -20e3)])),)
    plan = PlanInForce("plan 7", import_per_kwh, export_per_kwh, curves)
    return OrdersInForce(plan=plan, **more)  # type: ignore[arg-type]


def plant(**changes: object) -> Plant:
    model = site(device("b", DeviceKind.BATTERY, 20e3), device("pv", DeviceKind.INVERTER, 30e3))
    return Plant(model, available_w={"pv": 25e3}, **changes)  # type: ignore[arg-type]


def test_self_consumption_comes_of_the_prices_alone() -> None:
    at_noon = plant(rest_w=10e3)
    at_noon.run(5.0, orders(0.30, 0.08))
    assert at_noon.net_w == pytest.approx(0.0, abs=300.0)
    assert at_noon.decision is not None
    assert 0.19 <= (at_noon.decision.lambda_per_kwh or 0.0) <= 0.195
    at_noon.rest_w = 38e3
    at_noon.run(5.0, orders(0.30, 0.08))
    assert at_noon.net_w == pytest.approx(0.0, abs=300.0)


def test_a_plan_says_why_and_stands_last_in_the_walk() -> None:
    told = plant(rest_w=10e3)
    told.run(1.0, orders(0.30, 0.08))
    assert told.decision is not None
    why = explain_decision(told.decision, orders(0.30, 0.08))
    assert why["functions"][-1]["function"] == "plan"
    assert {one["cause"] for one in why["devices"]} <= {"plan 7", "available power"}


def test_limits_and_dispatch_come_before_the_plan() -> None:
    limited, dear = plant(rest_w=10e3), orders(0.9, 0.8)
    limited.run(4.0, dear)
    assert limited.net_w < -30e3, "a dear hour is sold into"
    limits = (LimitInForce("dso", "l", Quantity.NET_EXPORT_W, 5e3),)
    limited.run(6.0, orders(0.9, 0.8, limits=limits))
    assert limited.net_w == pytest.approx(-5e3, abs=600.0)
    dispatch = DispatchInForce("dso", "d", 3e3, 0.0, None, 0.0, 0.0, None)
    limited.run(4.0, orders(0.9, 0.8, limits=limits, dispatch=dispatch))
    assert limited.net_w == pytest.approx(3e3, abs=300.0)


def test_what_was_decided_by_a_plan_is_decided_again_from_the_record() -> None:
    told, recorder = plant(rest_w=10e3), Recorder()
    lines = [json.dumps(header(told.model))]
    for prices in ((0.30, 0.08), (0.9, 0.8), (0.1, 0.05)):
        for _ in range(10):
            given_ = orders(*prices)
            image = told.image()
            decision = told.cycle(given_)
            lines.append(json.dumps(recorder.take(image, given_, decision)))
    again = list(replay(told.model, lines))
    assert len(again) == 30
    assert [one.differs for one in again] == [""] * 30
    assert again[-1].orders == orders(0.1, 0.05)
