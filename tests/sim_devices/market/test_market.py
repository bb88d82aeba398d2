"""The market by messages: gates, clearing, limits of the network, shortfalls, regulation, a market above a market."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.messages import AuthorityOrder, DispatchOrder, Heartbeat, Offer, RegulationSignal
from sim_devices.dso.expectations import read
from sim_devices.market import offers, payloads
from sim_devices.market.market import Market, Round
from sim_devices.market.offers import OfferRefusedError
from sim_devices.market.settings import Interface, MarketSettings, Quantity, Supply, constant_price
from tests.sim_devices.market.children import BEGIN_S, FLEXIBLE, offer, utc

WIDE = Interface(50_000.0, 50_000.0)
TWO = MarketSettings("dso", {"north": WIDE, "south": WIDE})
START_S = BEGIN_S - 200.0
GATE_S = BEGIN_S - 60.0


def market(rules: MarketSettings = TWO, supply: Supply | None = None, start_s: float = START_S) -> Market:
    made = Market(rules, constant_price(0.25, 50_000.0, 50_000.0) if supply is None else supply, start_s)
    for child in rules.children:
        made.authority_taken(child, start_s)
    return made


def dispatched(made: Round) -> dict[str, float]:
    return {one.child: one.net_power_w for one in made.dispatches}


def run_interval(made: Market, powers_w: dict[str, float], begin_s: float) -> None:
    """A child's telemetry each second, from the interval's begin to the next one's gate."""
    for second in range(241):
        for child, power_w in powers_w.items():
            made.take_telemetry(child, power_w, begin_s + second)


# Gates and offers


def test_the_next_open_interval_is_the_first_whose_gate_has_not_closed() -> None:
    assert market(start_s=BEGIN_S - 61.0).open_s == BEGIN_S
    assert market(start_s=BEGIN_S - 59.0).open_s == BEGIN_S + 300.0


def test_children_are_cleared_at_one_price_against_the_outside() -> None:
    made = market()
    made.take_offer("north", offer(), START_S + 100.0)
    made.take_offer("south", offer(FLEXIBLE), START_S + 100.0)
    cleared = made.close_gate()
    assert cleared.lambda_per_kwh == pytest.approx(0.25)
    assert dispatched(cleared) == {"north": pytest.approx(0.0, abs=0.01), "south": 0.0}
    assert made.open_s == BEGIN_S + 300.0
    assert cleared.dispatches[0].path_per_kwh == (0.25, 0.25)


def test_a_quantity_from_above_binds() -> None:
    made = market(supply=Quantity(6_000.0))
    made.take_offer("north", offer(), START_S + 100.0)
    made.take_offer("south", offer(FLEXIBLE), START_S + 100.0)
    cleared = made.close_gate()
    assert sum(dispatched(cleared).values()) == pytest.approx(6_000.0)
    assert (cleared.net_w, cleared.unmet_w) == (pytest.approx(6_000.0), pytest.approx(0.0))
    made.supply = Quantity(90_000.0)
    assert made.close_gate().unmet_w == pytest.approx(18_000.0 - 90_000.0)


REFUSALS: dict[str, tuple[str, bytes, str]] = {
    "a stranger's": ("east", offer(), offers.UNKNOWN_CHILD),
    "rising": ("north", offer([(0.1, 0.0), (0.4, 5_000.0)]), offers.NOT_MONOTONE),
    "prices that fall": ("north", offer([(0.4, 5_000.0), (0.1, 0.0)]), offers.NOT_MONOTONE),
    "expired": ("north", offer(issued_s=START_S, expires_at=utc(BEGIN_S - 150.0)), offers.EXPIRED),
    "about what is past": ("north", offer(begin_s=BEGIN_S - 900.0, expires_at=utc(BEGIN_S + 900.0)), offers.LATE),
    "before authority": ("north", offer(issued_s=START_S - 1.0), offers.OLD_EPOCH),
    "from the future": ("north", offer(issued_s=START_S + 200.0), offers.FROM_THE_FUTURE),
    "a device in it": ("north", offer(battery_soc=0.5), offers.BROKEN),
    "off its grid": ("north", offer([(0.1, 123.0)]), offers.BROKEN),
    "intervals that overlap": ("north", offer(duration_s=600.0), offers.BROKEN),
    "no JSON": ("north", b"\xff{", offers.BROKEN),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_offer_is_refused_with_its_reason_and_counted(case: str) -> None:
    child, payload, reason = REFUSALS[case]
    made = market()
    with pytest.raises(OfferRefusedError) as refusal:
        made.take_offer(child, payload, START_S + 100.0)
    assert refusal.value.reason == reason
    assert made.book.refused == {reason: 1}
    assert made.close_gate().dispatches == ()


def test_an_offer_after_the_gate_counts_for_the_next_interval() -> None:
    made = market()
    made.take_offer("north", offer(), START_S + 100.0)
    made.close_gate()
    dear = offer([(0.80, 10_000.0), (0.90, -10_000.0)], issued_s=BEGIN_S, offer_id="o2")
    made.take_offer("north", dear, BEGIN_S + 1.0)
    assert dispatched(made.close_gate()) == {"north": 10_000.0}
    with pytest.raises(OfferRefusedError, match="late for the gate"):
        made.take_offer("north", offer(issued_s=BEGIN_S + 1.0, intervals=2), BEGIN_S + 2.0)


def test_an_older_offer_does_not_replace_a_newer_one() -> None:
    made = market()
    made.take_offer("north", offer(issued_s=START_S + 50.0), START_S + 100.0)
    with pytest.raises(OfferRefusedError, match="older"):
        made.take_offer("north", offer(issued_s=START_S + 40.0, offer_id="o0"), START_S + 101.0)


def test_a_child_that_another_parent_took_is_not_dispatched() -> None:
    made = market()
    made.take_offer("north", offer(), START_S + 100.0)
    made.authority_lost("north")
    made.take_telemetry("north", 3_000.0, GATE_S)
    cleared = made.close_gate()
    assert (cleared.dispatches, cleared.fixed_w["north"]) == ((), 3_000.0)


def test_a_child_without_an_offer_counts_with_the_power_it_has() -> None:
    made = market(supply=Quantity(5_000.0))
    made.take_offer("north", offer(), START_S + 100.0)
    made.take_telemetry("south", 2_000.0, GATE_S - 1.0)
    cleared = made.close_gate()
    assert cleared.fixed_w == {"south": 2_000.0}
    assert dispatched(cleared) == {"north": pytest.approx(3_000.0)}


# The network


def test_the_network_s_limit_binds_and_is_named() -> None:
    rules = replace(TWO, children={"north": Interface(2_000.0, 50_000.0), "south": WIDE})
    made = market(rules, constant_price(0.10, 50_000.0, 50_000.0))
    for child in TWO.children:
        made.take_offer(child, offer(), START_S + 100.0)
    cleared = made.close_gate()
    assert dispatched(cleared) == {"north": pytest.approx(2_000.0), "south": pytest.approx(10_000.0)}
    assert cleared.at_limit == ("north",)


def test_the_market_s_own_interface_binds_and_the_price_inside_rises() -> None:
    made = market(supply=constant_price(0.10, 5_000.0, 5_000.0))
    for child in TWO.children:
        made.take_offer(child, offer(), START_S + 100.0)
    cleared = made.close_gate()
    assert cleared.net_w == pytest.approx(5_000.0, abs=0.01)
    assert cleared.lambda_per_kwh == pytest.approx(0.2125)


def test_a_limit_below_what_a_child_must_take_is_kept_all_the_same() -> None:
    rules = replace(TWO, children={"north": Interface(2_000.0, 0.0)})
    made = market(rules)
    made.take_offer("north", offer([(0.1, 9_000.0), (0.2, 6_000.0)]), START_S + 100.0)
    assert dispatched(made.close_gate()) == {"north": 2_000.0}


# Delivery


def test_what_a_child_leaves_is_taken_over_by_the_others_in_the_next_interval() -> None:
    made = market(supply=Quantity(-12_000.0))
    for child in TWO.children:
        made.take_offer(child, offer(intervals=10), START_S + 100.0)
    first = made.close_gate()
    assert dispatched(first) == {"north": pytest.approx(-6_000.0), "south": pytest.approx(-6_000.0)}
    run_interval(made, {"north": -6_000.0, "south": -3_000.0}, BEGIN_S)
    second = made.close_gate()
    (shortfall,) = second.shortfalls
    assert (shortfall.child, shortfall.missed_w) == ("south", pytest.approx(3_000.0))
    assert dispatched(second) == {"north": pytest.approx(-9_000.0), "south": pytest.approx(-3_000.0)}
    for at in (1, 2):
        run_interval(made, {"north": -9_000.0, "south": -3_000.0}, BEGIN_S + 300.0 * at)
        third = made.close_gate()
        assert third.shortfalls == ()
    assert dispatched(third) == {"north": pytest.approx(-6_000.0), "south": pytest.approx(-6_000.0)}


def test_a_child_that_took_too_little_is_not_given_more() -> None:
    made = market(supply=Quantity(12_000.0))
    for child in TWO.children:
        made.take_offer(child, offer(intervals=10), START_S + 100.0)
    made.close_gate()
    run_interval(made, {"north": 6_000.0, "south": 1_000.0}, BEGIN_S)
    second = made.close_gate()
    assert second.shortfalls[0].missed_w == pytest.approx(-5_000.0)
    assert dispatched(second) == {"north": pytest.approx(10_000.0), "south": pytest.approx(1_000.0)}
    assert second.unmet_w == pytest.approx(-1_000.0)


def test_silence_says_nothing_of_a_delivery() -> None:
    made = market(supply=Quantity(-12_000.0))
    for child in TWO.children:
        made.take_offer(child, offer(intervals=10), START_S + 100.0)
    made.close_gate()
    run_interval(made, {"north": -6_000.0}, BEGIN_S)
    for second in range(100):
        made.take_telemetry("south", None if second % 2 else 0.0, BEGIN_S + second)
    assert made.close_gate().shortfalls == ()


# Regulation


def test_regulation_is_bought_where_it_is_cheapest_and_room_is_kept_for_it() -> None:
    rules = replace(TWO, regulation_up_w=5_000.0, regulation_down_w=2_000.0)
    made = market(rules, constant_price(0.90, 50_000.0, 50_000.0))
    reserve = {"regulation_up_w": 3_000.0, "regulation_down_w": 3_000.0}
    made.take_offer("north", offer(regulation_price_per_kwh=0.05, **reserve), START_S + 100.0)
    made.take_offer("south", offer(regulation_price_per_kwh=0.02, **reserve), START_S + 100.0)
    cleared = made.close_gate()
    awards = {one.child: (one.regulation_up_w, one.regulation_down_w) for one in cleared.dispatches}
    assert awards == {"north": (2_000.0, 0.0), "south": (3_000.0, 2_000.0)}
    assert cleared.regulation.price_per_kwh == 0.05
    assert dispatched(cleared) == {"north": -8_000.0, "south": -7_000.0}


def test_regulation_that_nobody_offers_is_short() -> None:
    made = market(replace(TWO, regulation_up_w=5_000.0))
    made.take_offer("north", offer(regulation_up_w=4_000.0), START_S + 100.0)
    assert made.close_gate().regulation.short_up_w == 1_000.0


def test_a_gate_leaves_half_of_an_interval_to_judge() -> None:
    with pytest.raises(ValueError, match="at most half"):
        replace(TWO, gate_s=200.0)


# A market above a market


def test_a_dso_s_children_reach_the_tso_as_one_offer_whose_dispatch_comes_back_to_them() -> None:
    tso = market(MarketSettings("tso", {"feeder": WIDE}), constant_price(0.15, 50_000.0, 50_000.0))
    dso = market()
    for child in TWO.children:
        dso.take_offer(child, offer(), START_S + 100.0)
    message = payloads.offer(dso, 20_000.0, "up-1", START_S + 101.0)
    assert message is not None
    payload = json.dumps(message).encode()
    assert read("offer", payload)
    Offer.model_validate_json(payload)
    tso.take_offer("feeder", payload, START_S + 102.0)
    (above,) = tso.close_gate().dispatches
    dso.supply = Quantity(above.net_power_w)
    below = dso.close_gate()
    assert below.net_w == pytest.approx(above.net_power_w)
    assert below.lambda_per_kwh == pytest.approx(0.15, abs=0.01)


def test_an_offer_upward_says_how_far_off_it_may_be() -> None:
    dso = market()
    dso.take_offer("north", offer([(0.22, 10_000.0), (0.22, 0.0)]), START_S + 100.0)
    message = payloads.offer(dso, 20_000.0, "up-1", START_S + 101.0)
    assert message is not None
    assert message["error_bound_w"] == pytest.approx(6_000.0)
    assert payloads.offer(market(), 20_000.0, "up-1", START_S) is None


def test_every_message_is_one_of_the_interface() -> None:
    made = market(replace(TWO, regulation_up_w=100.0))
    made.take_offer("north", offer(regulation_up_w=100.0), START_S + 100.0)
    (one,) = made.close_gate().dispatches
    messages: list[tuple[Any, dict[str, Any]]] = [
        (DispatchOrder, payloads.dispatch(one, 3, "d1", GATE_S)),
        (AuthorityOrder, payloads.authority("dso", 3, "a1", GATE_S)),
        (Heartbeat, payloads.heartbeat(5, GATE_S)),
        (RegulationSignal, payloads.signal(3, 5, -0.5, 10.0, GATE_S)),
    ]
    for schema, message in messages:
        schema.model_validate_json(json.dumps(message))


CURVES = st.lists(st.tuples(st.integers(0, 60), st.integers(-90, 90)), min_size=1, max_size=6).map(
    lambda pairs: [
        (price / 100, power * 100.0)
        for price, power in zip(sorted(p for p, _ in pairs), sorted((w for _, w in pairs), reverse=True), strict=True)
    ]
)


@given(st.lists(CURVES, min_size=1, max_size=4), st.integers(0, 9), st.floats(-20_000, 20_000), st.booleans())
@settings(deadline=None, max_examples=80)
def test_whatever_is_offered_no_interface_is_overloaded_and_the_market_balances(
    curves: list[list[tuple[float, float]]], limit_kw: int, quantity_w: float, fixed: bool
) -> None:
    children = {f"c{at}": Interface(limit_kw * 1e3, limit_kw * 1e3) for at in range(len(curves))}
    supply: Supply = Quantity(quantity_w) if fixed else constant_price(0.2, 15_000.0, 10_000.0)
    made = market(MarketSettings("dso", children), supply)
    for child, curve in zip(children, curves, strict=True):
        made.take_offer(child, offer(curve), START_S + 100.0)
    cleared = made.close_gate()
    powers = dispatched(cleared)
    assert all(abs(power_w) <= limit_kw * 1e3 + 1e-3 for power_w in powers.values())
    can = [(max(min(w for _, w in c), -limit_kw * 1e3), min(max(w for _, w in c), limit_kw * 1e3)) for c in curves]
    least_w, most_w = sum(min(a, b) for a, b in can), sum(max(a, b) for a, b in can)
    if not fixed and least_w <= 15_000.0 and most_w >= -10_000.0:
        assert -10_000.0 - 0.01 <= cleared.net_w <= 15_000.0 + 0.01
    if fixed and least_w <= quantity_w <= most_w:
        assert cleared.unmet_w == pytest.approx(0.0, abs=0.01)
    assert cleared == again(made, curves, supply, children)


def again(made: Market, curves: list[Any], supply: Supply, children: dict[str, Interface]) -> Round:
    other = market(made.settings, supply)
    for child, curve in zip(children, curves, strict=True):
        other.take_offer(child, offer(curve), START_S + 100.0)
    return other.close_gate()
