"""Clearing by layers: sums and limits of curves are exact, limits hold at every tier, one interval is the optimum."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("clarabel")

from gateway.control.clearing import Bid, make_curve
from gateway.control.interchange import InterchangeCost
from gateway.study.fleet import Area, Building, Tier
from gateway.study.one_interval import EQUAL, central_cost, layered_cost, make_interval, pieces, value_of
from gateway.study.tree_clearing import Outside, area_bid, clear_tree, limited, summed

PRICES = st.sampled_from([round(0.05 * at, 2) for at in range(11)])


@st.composite
def bids(draw: st.DrawFn) -> Bid:
    count = draw(st.integers(1, 4))
    prices = sorted(draw(PRICES) for _ in range(count))
    powers = sorted((draw(st.integers(-8, 8)) * 500.0 for _ in range(count)), reverse=True)
    lower_w, upper_w = sorted((draw(st.integers(-9, 9)) * 450.0, draw(st.integers(-9, 9)) * 450.0))
    return Bid(make_curve(list(zip(prices, powers, strict=True))), lower_w, upper_w)


def taken(bid: Bid, price: float) -> tuple[float, float]:
    sides = bid.curve.limits_at(price)
    return tuple(min(max(side, bid.lower_w), bid.upper_w) for side in sides)  # type: ignore[return-value]


@given(bids(), st.floats(-0.1, 0.7))
def test_bounds_drawn_into_a_curve_change_no_power(bid: Bid, price: float) -> None:
    assert limited(bid).limits_at(price) == pytest.approx(taken(bid, price), abs=1e-6)


@given(st.lists(bids(), min_size=1, max_size=5), st.one_of(PRICES, st.floats(-0.1, 0.7)))
def test_a_sum_of_curves_takes_what_they_take(several: list[Bid], price: float) -> None:
    whole = summed([limited(bid) for bid in several]).limits_at(price)
    each = [taken(bid, price) for bid in several]
    assert whole == pytest.approx((sum(one[0] for one in each), sum(one[1] for one in each)), abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 20))
def test_one_interval_without_storage_is_the_central_optimum_and_keeps_every_limit(seed: int) -> None:
    interval = make_interval(seed)
    best = central_cost(interval)
    cost, broken_w = layered_cost(interval)
    assert abs(cost - best) <= EQUAL * max(abs(best), 1.0)
    assert broken_w <= EQUAL


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=2, max_size=4),
    st.integers(1, 5),
    st.integers(2, 8),
    st.sampled_from([0.05, 0.25, 0.5]),
)
def test_loads_of_whole_kilowatts_are_shared_as_by_trying_every_choice(
    loads: list[tuple[int, float]], inner_kw: int, outer_kw: int, price: float
) -> None:
    """Two loads behind a microgrid's limit, the others beside it; each is worth so much a kWh up to its size."""
    names = [f"load-{at}" for at in range(len(loads))]
    places = [Building(name, 99e3, 0.0, (0.0,)) for name in names]
    inner = Area("inner", Tier.MICROGRID, inner_kw * 1e3, 0.0, (), tuple(places[:2]))
    outer = Area("outer", Tier.SUBSTATION, outer_kw * 1e3, 0.0, (inner,), tuple(places[2:]))
    by_name = {
        name: Bid(make_curve([(value, size * 1e3), (value, 0.0)]), 0.0, size * 1e3)
        for name, (size, value) in zip(names, loads, strict=True)
    }
    outcome = clear_tree(outer, by_name, Outside(price, InterchangeCost()))
    worth = sum(outcome.powers_w[name] / 1e3 * (value - price) for name, (_, value) in zip(names, loads, strict=True))
    tried = [
        sum(kw * (value - price) for kw, (_, value) in zip(choice, loads, strict=True))
        for choice in product(*(range(size + 1) for size, _ in loads))
        if sum(choice[:2]) <= inner_kw and sum(choice) <= outer_kw
    ]
    assert worth == pytest.approx(max(tried), abs=1e-9)
    assert outcome.powers_w["inner"] <= inner.import_limit_w + 1e-6
    assert outcome.powers_w["outer"] <= outer.import_limit_w + 1e-6


def test_where_a_limit_binds_the_price_inside_leaves_the_one_outside() -> None:
    building = Building("b", 5e3, 0.0, (0.0,))
    root = Area("top", Tier.SUBSTATION, 2e3, 0.0, (), (building,))
    bid = Bid(make_curve([(0.1, 4e3), (0.5, 0.0)]), 0.0, 4e3)
    outcome = clear_tree(root, {"b": bid}, Outside(0.1, InterchangeCost()))
    assert outcome.powers_w["b"] == pytest.approx(2e3)
    assert outcome.prices_per_kwh["b"] == pytest.approx(0.3)


def test_a_limit_that_binds_two_tiers_up_makes_the_price_also_where_rounding_takes_a_watt() -> None:
    """The feeder's limit binds, the microgrid's does not, and what the substation shows is rounded to the inside."""
    building = Building("b", 9e3, 0.0, (0.0,))
    microgrid = Area("m", Tier.MICROGRID, 9e3, 0.0, (), (building,))
    feeder = Area("f", Tier.FEEDER, 2e3, 0.0, (microgrid,))
    root = Area("top", Tier.SUBSTATION, 9e3, 0.0, (feeder,))
    bid = Bid(make_curve([(0.1, 4e3), (0.5, 0.0)]), 0.0, 4e3)

    def publish(area: Area, shown: Bid) -> Bid:
        return shown._replace(upper_w=shown.upper_w - 1.0) if area is root else shown

    outcome = clear_tree(root, {"b": bid}, Outside(0.1, InterchangeCost()), publish)
    assert outcome.powers_w["b"] == pytest.approx(1999.0)
    assert outcome.prices_per_kwh["top"] == pytest.approx(0.1)
    assert outcome.prices_per_kwh["b"] == pytest.approx(0.3, abs=1e-3)


def test_where_no_limit_binds_every_tier_has_the_price_outside() -> None:
    building = Building("b", 9e3, 0.0, (0.0,))
    root = Area("top", Tier.SUBSTATION, 9e3, 0.0, (Area("m", Tier.MICROGRID, 9e3, 0.0, (), (building,)),))
    bid = Bid(make_curve([(0.1, 4e3), (0.1, 2e3), (0.5, 2e3), (0.5, 0.0)]), 0.0, 4e3)
    outcome = clear_tree(root, {"b": bid}, Outside(0.2, InterchangeCost()))
    assert outcome.powers_w["b"] == pytest.approx(2e3)
    assert set(outcome.prices_per_kwh.values()) == {0.2}


def test_a_limit_that_cannot_be_kept_is_missed_by_as_little_as_possible() -> None:
    area = Area("a", Tier.MICROGRID, 1e3, 0.0)
    bid = area_bid(area, [Bid(make_curve([(0.1, 4e3), (0.5, 3e3)]), 3e3, 4e3)])
    assert (bid.lower_w, bid.upper_w) == (3e3, 3e3)


def test_the_value_of_power_is_the_area_under_its_curve() -> None:
    bid = Bid(make_curve([(0.1, 3e3), (0.3, 1e3), (0.3, 0.0)]), 0.0, 3e3)
    assert [piece.width_w for piece in pieces(bid.curve)] == [1e3, 2e3]
    assert value_of(bid, 1e3) == pytest.approx(0.3)
    assert value_of(bid, 3e3) == pytest.approx(0.3 + 2 * 0.2)
