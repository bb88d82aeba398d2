"""Total DSO: what crosses the interfaces, and how near the layers come to the central optimum."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("clarabel")

from drivers.layer.offers import OfferBook
from gateway.control.clearing import Bid, make_curve
from gateway.study.accounts import cost_of, impossible, net_w, violations
from gateway.study.building_layer import STEADYING_PER_KWH, BuildingLayer
from gateway.study.central import start_of
from gateway.study.layered import COST_REACH, SAVINGS_REACH, WITH_PATH, WITHOUT_PATH, run_layered, run_trials
from gateway.study.made_fleet import make_fleet
from gateway.study.offers import (
    FAR_PER_KWH,
    MOST_POINTS,
    Grid,
    Wire,
    fewer_points,
    instant,
    make_offer,
    nearest_points,
    offer_prices,
    offered,
)
from gateway.study.total_dso import run_total_dso
from gateway.study.tree_clearing import limited

STEPS = 12


@st.composite
def falling_bids(draw: st.DrawFn, most: int = 60) -> Bid:
    count = draw(st.integers(1, most))
    prices = sorted(draw(st.floats(-0.05, 0.6)) for _ in range(count))
    powers = sorted((draw(st.floats(-9e3, 9e3)) for _ in range(count)), reverse=True)
    return Bid(make_curve(list(zip(prices, powers, strict=True))), powers[-1], powers[0])


@given(falling_bids(8), st.floats(10.0, 500.0))
def test_a_bid_on_the_grid_is_off_by_half_a_step_and_inside_its_bounds(bid: Bid, step_w: float) -> None:
    found = Grid(step_w).snapped(bid)
    exact = limited(bid).powers_w
    assert found.lower_w <= found.upper_w
    if found.lower_w < found.upper_w:
        assert bid.lower_w - 1e-6 <= found.lower_w
        assert found.upper_w <= bid.upper_w + 1e-6
    for power, was in zip(found.curve.powers_w, exact, strict=True):
        assert abs(power / step_w - round(power / step_w)) < 1e-6
        assert abs(power - was) <= step_w * (0.5 if found.lower_w < was < found.upper_w else 1.0) + 1e-6


@given(falling_bids(), st.floats(0.0, 0.5))
def test_fewer_points_keep_the_ends_and_lie_on_the_curve(bid: Bid, about: float) -> None:
    found, whole = fewer_points(bid, about), limited(bid)
    points = set(zip(whole.prices_per_kwh, whole.powers_w, strict=True))
    kept = list(zip(found.curve.prices_per_kwh, found.curve.powers_w, strict=True))
    assert set(kept) <= points
    assert len(kept) <= max(MOST_POINTS, 2)
    assert (kept[0][1], kept[-1][1]) == (whole.powers_w[0], whole.powers_w[-1])


@given(falling_bids(40), st.integers(0, 79), st.integers(3, 12))
def test_a_curve_too_long_for_a_message_keeps_its_ends_and_the_price_it_is_about(bid: Bid, at: int, most: int) -> None:
    whole = limited(bid)
    about = whole.prices_per_kwh[at % len(whole.prices_per_kwh)]
    found = limited(nearest_points(bid, about, most))
    assert len(found.prices_per_kwh) == min(len(whole.prices_per_kwh), most)
    assert (found.powers_w[0], found.powers_w[-1]) == (whole.powers_w[0], whole.powers_w[-1])
    assert about in found.prices_per_kwh


@given(st.floats(-0.05, 0.6))
def test_an_offer_is_made_at_some_twenty_prices_about_the_announced_one(price: float) -> None:
    prices = offer_prices(price)
    assert list(prices) == sorted(set(prices))
    assert 12 <= len(prices) <= 22
    assert set(FAR_PER_KWH) <= set(prices)
    assert min(abs(each - price) for each in prices) <= 0.5e-4 + 1e-9


def test_a_buildings_offer_is_taken_by_the_driver_of_a_child_and_any_dispatch_inside_it_is_met() -> None:
    fleet = make_fleet(12, 2, steps=STEPS)
    state = start_of(fleet)
    for building in fleet.buildings:
        layer = BuildingLayer(building, state, fleet.hours, fleet.import_per_kwh, STEADYING_PER_KWH)
        bid = layer.offer(offer_prices(fleet.import_per_kwh[0]))
        grid = Grid.of(building)
        message = make_offer(fleet, 0, [grid.snapped(bid)], grid, layer.energy_wh(), grid.error_w)
        begin = instant(fleet, 0)
        OfferBook().take(message.model_dump_json().encode(), begin + timedelta(seconds=1), begin)
        shown = offered(message)[0]
        asked_w = shown.lower_w + 0.4 * (shown.upper_w - shown.lower_w)
        powers_w = layer.take(asked_w)
        off_w = abs(building.load_w[0] + sum(powers_w.values()) - asked_w)
        assert off_w < (grid.error_w if shown.lower_w == shown.upper_w else 1e-2)


def test_points_count_once_and_messages_every_time() -> None:
    fleet = make_fleet(10, 1, steps=STEPS)
    wire, building = Wire(), fleet.buildings[0]
    for _ in range(3):
        wire.declare(building.devices[0])
    assert wire.messages == 3
    assert len({point for _, point in wire.points}) == len(wire.points)
    assert {owner for owner, _ in wire.points} == {building.devices[0].name}


def test_nothing_that_crosses_an_interface_names_a_device() -> None:
    fleet = make_fleet(10, 1, steps=STEPS)
    wire = run_total_dso(fleet).wire
    layers = {one.name for one in fleet.buildings} | {one.name for one in fleet.substation.walk()}
    assert {owner for owner, _ in wire.points} <= layers
    assert {point for _, point in wire.points} == {
        "curve", "lower_w", "upper_w", "energy_up_wh", "energy_down_wh", "response_s", "power_step_w",
        "price_step_per_kwh", "error_bound_w",
    }  # fmt: skip


@pytest.mark.parametrize("seed", [1, 4])
def test_layers_with_the_path_reach_the_optimum_and_without_it_they_do_not(seed: int) -> None:
    trials = run_trials(make_fleet(10, seed, steps=STEPS), (WITH_PATH, WITHOUT_PATH))
    found, negative = trials[WITH_PATH], trials[WITHOUT_PATH]
    assert (found.violations, found.impossible) == (0, 0)
    assert 0.0 <= found.cost_gap + 1e-9 <= COST_REACH
    assert found.attained >= SAVINGS_REACH
    assert negative.attained < found.attained
    assert negative.cost_gap > COST_REACH


def test_a_day_of_layers_is_the_same_twice() -> None:
    fleet = make_fleet(6, 9, steps=8)
    first, second = run_total_dso(fleet), run_total_dso(fleet)
    assert first.powers_w == second.powers_w
    assert first.wire.messages == second.wire.messages
    assert violations(fleet, first.powers_w) == []
    assert impossible(fleet, first.powers_w) == []
    assert len(net_w(fleet.buildings, first.powers_w)) == 8
    assert cost_of(fleet, first.powers_w).total > 0.0


def test_the_layered_figures_have_the_reach_and_its_negative_case() -> None:
    figures = run_layered(1, 7, steps=6)
    assert set(figures) >= {WITH_PATH, WITHOUT_PATH, "one_interval", "reached", "fleets", "seed"}
    assert figures["one_interval"]["largest_cost_gap"] <= 1e-6
    assert figures[WITH_PATH]["attained_median"] > figures[WITHOUT_PATH]["attained_median"]
