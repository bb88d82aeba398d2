"""`clear`: shares within bounds, sum at the target or the nearest feasible, price monotone in the target."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.control.clearing import Bid, Clearing, clear, make_curve, taken_at
from tests.control.simple_clearing import LEFT, RIGHT, simple_clear, total_at

BATTERY = ((0.05, 1.0), (0.15, 0.0), (0.35, 0.0), (0.45, -1.0))
INVERTER = ((0.0, 0.0), (0.0, -1.0))


def bid(points: tuple[tuple[float, float], ...], rating_w: float, lower_w: float, upper_w: float) -> Bid:
    return Bid(make_curve([(price, power * rating_w) for price, power in points]), lower_w, upper_w)


@st.composite
def bids(draw: st.DrawFn) -> Bid:
    powers = sorted(draw(st.lists(st.integers(-50, 50), min_size=1, max_size=6)), reverse=True)
    prices = sorted(draw(st.lists(st.integers(-9, 9), min_size=len(powers), max_size=len(powers))))
    lower, upper = sorted((draw(st.integers(-60, 60)), draw(st.integers(-60, 60))))
    curve = make_curve([(price / 10, power * 1000.0) for price, power in zip(prices, powers, strict=True)])
    return Bid(curve, lower * 1000.0, upper * 1000.0)


@given(st.lists(bids(), min_size=1, max_size=8), st.floats(-5e5, 5e5))
def test_shares_stay_in_bounds_and_sum_to_the_nearest_feasible(all_bids: list[Bid], target_w: float) -> None:
    clearing = clear(all_bids, target_w)
    for share, one in zip(clearing.shares_w, all_bids, strict=True):
        assert one.lower_w - 1e-6 <= share <= one.upper_w + 1e-6
    feasible = min(max(target_w, sum(one.lower_w for one in all_bids)), sum(one.upper_w for one in all_bids))
    assert clearing.total_w == pytest.approx(feasible, abs=1e-3)


@given(st.lists(bids(), min_size=1, max_size=6), st.floats(-4e5, 4e5), st.floats(-4e5, 4e5))
def test_price_and_shares_are_monotone_in_the_target(all_bids: list[Bid], a_w: float, b_w: float) -> None:
    less, more = (clear(all_bids, target) for target in sorted((a_w, b_w)))
    assert less.lambda_per_kwh >= more.lambda_per_kwh - 1e-9
    assert all(x <= y + 1e-3 for x, y in zip(less.shares_w, more.shares_w, strict=True))


@given(st.lists(bids(), min_size=1, max_size=6), st.floats(-4e5, 4e5))
@example([Bid(make_curve([(-0.4, 1e3), (-0.1, 0.0), (-0.1, -1e3), (0.0, -1e3)]), -1e3, 1e3)], 0.0)
def test_shares_are_what_the_curves_take_at_lambda(all_bids: list[Bid], target_w: float) -> None:
    clearing = clear(all_bids, target_w)
    for share, one in zip(clearing.shares_w, all_bids, strict=True):
        prices = one.curve.prices_per_kwh
        if not prices[0] < clearing.lambda_per_kwh < prices[-1]:
            continue
        left, right = one.curve.limits_at(clearing.lambda_per_kwh)
        low, high = (min(max(power, one.lower_w), one.upper_w) for power in (right, left))
        slack = 1e-3 + 1e-9 * abs(share) + 1e-6 * (one.upper_w - one.lower_w)
        assert low - slack <= share <= high + slack


@given(st.lists(bids(), min_size=1, max_size=6), st.floats(-2, 2))
def test_clearing_what_is_taken_at_a_price_gives_it_back(all_bids: list[Bid], price: float) -> None:
    taken = taken_at(all_bids, price)
    again = clear(all_bids, taken.total_w)
    assert again.total_w == pytest.approx(taken.total_w, abs=1e-3)


def assert_equals_the_oracle(all_bids: list[Bid], target_w: float, clearing: Clearing) -> None:
    simple = simple_clear(all_bids, target_w)
    assert clearing.shares_w == pytest.approx(simple.shares_w, rel=1e-9, abs=1e-3)
    if clearing.lambda_per_kwh != pytest.approx(simple.lambda_per_kwh, abs=1e-9):
        # Where the sum stays the same over a range of prices, a rounding error decides which of them it is.
        low, high = sorted((clearing.lambda_per_kwh, simple.lambda_per_kwh))
        assert total_at(all_bids, low, RIGHT) == pytest.approx(total_at(all_bids, high, LEFT), abs=1e-3)


@given(
    st.lists(bids(), min_size=1, max_size=8),
    st.one_of(st.floats(-5e5, 5e5), st.integers(-400, 400).map(lambda n: n * 1e3)),
)
def test_it_equals_the_simple_way(all_bids: list[Bid], target_w: float) -> None:
    assert_equals_the_oracle(all_bids, target_w, clear(all_bids, target_w))


@pytest.mark.parametrize("seed", range(6))
def test_many_bids_of_few_shapes_equal_the_simple_way(seed: int) -> None:
    rng = random.Random(seed)
    site = [
        bid(rng.choice((BATTERY, INVERTER)), rating, -rating * rng.random(), rating * rng.random())
        for rating in [rng.uniform(3e3, 60e3) for _ in range(300)]
    ]
    least, most = sum(one.lower_w for one in site), sum(one.upper_w for one in site)
    for share in (-0.1, 0.0, 0.2, 0.45, 0.5, 0.6, 0.8, 0.97, 1.0, 1.1):
        target_w = least + share * (most - least)
        assert_equals_the_oracle(site, target_w, clear(site, target_w))


def test_an_export_surplus_charges_batteries_before_it_curtails_the_sun() -> None:
    site = [bid(INVERTER, 60e3, -40e3, 0), bid(BATTERY, 50e3, -50e3, 50e3), bid(BATTERY, 30e3, -30e3, 30e3)]
    assert clear(site, -40e3).shares_w == pytest.approx((-40e3, 0, 0))
    assert clear(site, 0.0).shares_w == pytest.approx((-40e3, 25e3, 15e3)), "equal curves share by rating"
    assert clear(site, 60e3).shares_w == pytest.approx((-20e3, 50e3, 30e3))


def test_equal_inverters_are_curtailed_alike() -> None:
    site = [bid(INVERTER, 10e3, -10e3, 0), bid(INVERTER, 30e3, -30e3, 0)]
    clearing = clear(site, -20e3)
    assert clearing.lambda_per_kwh == 0.0
    assert clearing.shares_w == pytest.approx((-5e3, -15e3))


def test_nothing_to_share() -> None:
    assert clear([], 5e3).total_w == 0.0


@pytest.mark.parametrize("points", [(), ((1.0, 0.0), (0.0, 0.0)), ((0.0, 0.0), (1.0, 1.0))])
def test_a_curve_that_rises_or_runs_backwards_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="curve"):
        make_curve(points)
