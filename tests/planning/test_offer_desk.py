"""Offers between planner and parent: checked, final from their gate on, and answered on the curves that made them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from config.messages import MAX_PAYLOAD_BYTES, DispatchOrder, Down, Offer
from config.planning import OfferSettings, Planning
from drivers.layer.offers import OfferBook
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce
from gateway.orders.held import HeldOrder
from gateway.parent.aggregate import flexibility, offer
from gateway.planning.messages import OfferMessage, OutlookMessage, StateMessage, encode
from tests.planning.states import NOON_S
from tests.planning.test_desk import FREE, Bench

STEP_S = 900.0
GATE_S = 120.0


def bench(**settings: Any) -> Bench:
    values: dict[str, Any] = {"gate_s": GATE_S, "intervals": 2, "every_s": 240.0} | settings
    return Bench(planning=Planning(horizon_h=6, offer=OfferSettings(**values)))


def interval(begin_s: float = NOON_S + STEP_S, **changes: Any) -> OfferMessage:
    values: dict[str, Any] = {
        "id": 1,
        "begin_utc_s": begin_s,
        "length_s": STEP_S,
        "prices_per_kwh": (0.1, 0.3),
        "powers_w": (20e3, -20e3),
        "lower_w": -25e3,
        "upper_w": 25e3,
        "error_w": 500.0,
        "energy_up_wh": 1e3,
        "energy_down_wh": 1e3,
        "forecast_w": (-1e3, 0.0, 1e3),
        "price_step_per_kwh": 0.01,
        "curves": [{"device": "battery_a", "prices_per_kwh": (0.1, 0.3), "powers_w": (12e3, -28e3)}],
    }
    return OfferMessage.model_validate(values | changes)


def made(given: Bench, offer_id: str = "o-1") -> Offer:
    """What goes to the parents now."""
    decision = given.plant.decision
    assert decision is not None
    found = flexibility(given.plant.model, given.plant.image(), decision, given.desk.interchange_cost())
    assert found is not None
    message = offer(found, given.desk.utc(), offer_id, given.desk.offers.planned())
    given.desk.offers.told(message)
    return message


def answering(given: Bench, offer_id: str, net_w: float) -> OrdersInForce:
    """A dispatch in force that answers an offer."""
    issued = datetime.fromtimestamp(NOON_S, UTC)
    order = DispatchOrder(id=f"to-{offer_id}", issued_at=issued, epoch=0, net_power_w=net_w, offer_id=offer_id)
    given.held = (HeldOrder("dso", Down.DISPATCH, order, 0.0, None, 0.0),)
    in_force = DispatchInForce("dso", order.id, net_w, given.plant.now_s, None, 0.0, 0.0, None)
    return given.desk.direct(OrdersInForce(dispatch=in_force))


def at_the_interval(given: Bench, after_s: float) -> None:
    """The wall clock is so long after the begin of the first interval."""
    given.desk.utc = given.desk.offers.utc = lambda: NOON_S + STEP_S + after_s


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "rising": ({"powers_w": (-20e3, 20e3)}, "must not rise"),
    "falling prices": ({"prices_per_kwh": (0.3, 0.1)}, "ascending"),
    "a price without a power": ({"powers_w": (20e3,)}, "2 prices and 1 powers"),
    "beyond its envelope": ({"upper_w": 15e3}, "beyond its envelope"),
    "beyond the connection": ({"upper_w": 1e6}, "beyond -100000 to"),
    "begun": ({"begin_utc_s": NOON_S - 10.0}, "began"),
    "of another clock": ({"begin_utc_s": NOON_S + 1e7}, "began"),
    "an unknown device": (
        {"curves": [{"device": "x", "prices_per_kwh": (0.1,), "powers_w": (0.0,)}]},
        "nobody has asked for",
    ),
    "a device beyond its bounds": (
        {"curves": [{"device": "battery_a", "prices_per_kwh": (0.1,), "powers_w": (1e6,)}]},
        "battery_a: a curve beyond",
    ),
    "a forecast that falls": ({"forecast_w": (1e3, 0.0, 1e3)}, "forecast falls"),
    "off the grid": ({"powers_w": (20_100.0, -20e3)}, "off the published grid"),
    "a huge price": ({"prices_per_kwh": (0.1, 1e5)}, "less than or equal"),
}


@pytest.mark.parametrize(("changes", "words"), BROKEN.values(), ids=BROKEN)
def test_an_offer_that_cannot_be_made_is_refused_and_the_present_curve_is_shown(
    changes: dict[str, Any], words: str
) -> None:
    given = bench()
    given.run(1.0)
    line = json.dumps(interval().model_dump() | changes, separators=(",", ":")).encode() + b"\n"
    given.desk.take(line)
    assert words in given.desk.refusal
    assert given.desk.refused == 1
    message = made(given)
    assert [one.duration_s for one in message.intervals] == [300.0, 300.0]
    assert message.intervals[0].curve == message.intervals[1].curve


def test_from_its_gate_on_an_interval_is_final() -> None:
    given = bench()
    given.run(1.0)
    given.desk.take(encode(interval()))
    given.plant.now_s = STEP_S - GATE_S - 1.0
    given.desk.take(encode(interval(upper_w=26e3)))
    assert given.desk.offers.planned()[0].upper_w == 26e3
    given.plant.now_s = STEP_S - GATE_S + 1.0
    given.desk.take(encode(interval(upper_w=27e3)))
    assert given.desk.offers.planned()[0].upper_w == 26e3
    assert given.desk.snapshot()["offers"]["after_gate"] == 1
    # Late is better than never, where nobody was told another.
    given.desk.take(encode(interval(NOON_S + 2 * STEP_S)))
    assert [one.begin_utc_s - NOON_S for one in given.desk.offers.planned()] == [900.0, 1800.0]


def test_without_a_planner_the_intervals_run_out_one_by_one() -> None:
    given = bench()
    given.run(1.0)
    for at in (1, 2):
        given.desk.take(encode(interval(NOON_S + at * STEP_S)))
    begins = []
    for now_s in (1.0, 950.0, 1850.0):
        given.plant.now_s = now_s
        begins.append([one.start.timestamp() - NOON_S for one in made(given).intervals])
    assert begins == [[0.0, 900.0, 1800.0], [900.0, 1800.0], [1800.0, 2100.0]]


def test_what_comes_after_the_curves_is_told_as_it_is_planned() -> None:
    given = bench()
    given.run(1.0)
    band = tuple(1e3 * (at % 40) for at in range(94))
    outlook = OutlookMessage(id=1, begin_utc_s=NOON_S + 3 * STEP_S, length_s=STEP_S, p10_w=band, p50_w=band, p90_w=band)
    given.desk.take(encode(outlook))
    assert given.desk.offers.planned() == (), "not without the interval that comes next"
    for at in (1, 2):
        given.desk.take(encode(interval(NOON_S + at * STEP_S)))
    message = made(given)
    assert len(message.intervals) == 97
    assert len(message.intervals[5].curve) == 1
    assert message.intervals[5].forecast is not None
    payload = message.model_dump_json().encode()
    assert len(payload) < MAX_PAYLOAD_BYTES
    now = datetime.fromtimestamp(given.desk.utc(), UTC)
    OfferBook().take(payload, now, now)
    given.desk.take(encode(outlook.model_copy(update={"p10_w": band[:3]})))
    assert "other lengths" in given.desk.refusal


def test_a_dispatch_is_met_by_clearing_the_curves_that_made_the_offer() -> None:
    given = bench()
    given.run(2.0)
    given.desk.take(encode(interval()))
    at_the_interval(given, -3.0)
    message = made(given)
    assert answering(given, message.id, 5e3).plan == given.desk.direct(FREE).plan, "the interval has not begun"
    at_the_interval(given, 1.0)
    orders = answering(given, message.id, 5e3)
    assert orders.plan is not None
    assert (orders.plan.source, [name for name, _ in orders.plan.curves]) == ("offer o-1", ["battery_a"])
    assert answering(given, message.id, 5e3).plan is orders.plan, "the same from cycle to cycle"
    decision = given.plant.cycle(orders)
    assert decision.lambda_per_kwh is not None
    curve = dict(orders.plan.curves)["battery_a"]
    asked = {one.device: one.power_w for one in decision.setpoints}
    assert asked["battery_a"] == pytest.approx(curve.limits_at(decision.lambda_per_kwh)[0], abs=50.0)
    assert answering(given, "another", 5e3).plan == given.desk.direct(FREE).plan
    at_the_interval(given, STEP_S + 1.0)
    assert answering(given, message.id, 5e3).plan == given.desk.direct(FREE).plan, "its interval is over"


def test_every_interval_is_offered_before_its_gate() -> None:
    pytest.importorskip("cvxpy")
    from gateway.planning.planner import Planner

    given, planner = bench(every_s=600.0), Planner(None)
    given.run(1.0)
    known: set[float] = set()
    for minute in range(0, 32, 4):
        given.plant.now_s = max(given.plant.now_s, 60.0 * minute)
        state = given.request()
        assert state.offers
        given.desk.take(encode(planner.plan(StateMessage.model_validate(state.model_dump()))))
        for work in planner.offers():
            if work is not None:
                given.desk.take(encode(work))
        now_s = given.plant.now_s
        known = {one.begin_utc_s - NOON_S for one in given.desk.offers.planned()}
        next_s = (now_s // STEP_S + 1) * STEP_S
        assert next_s in known
        assert next_s + STEP_S in known, "and the one after it, long before its gate"
    assert given.desk.refused == 0
    assert given.desk.offers.taken >= 5
    message = made(given)
    assert message.price_step_per_kwh == 0.01
    assert message.error_bound_w <= 0.02 * given.plant.model.rating_w
    assert message.intervals[1].regulation_up_w > 0.0
    assert message.intervals[1].ramp_w_per_s is not None
