"""The market's clearing beside the gateway's: two ways to the same result."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control import clearing as of_the_gateway
from sim_devices.market.clearing import Bid, clear

PRICES = st.integers(-20, 80).map(lambda cents: cents / 100)
POWERS = st.integers(-100, 100).map(lambda kw: kw * 1e3)


@st.composite
def bids(draw: st.DrawFn) -> Bid:
    size = draw(st.integers(1, 5))
    prices = sorted(draw(st.lists(PRICES, min_size=size, max_size=size)))
    powers = sorted(draw(st.lists(POWERS, min_size=size, max_size=size)), reverse=True)
    lower, upper = sorted((draw(POWERS), draw(POWERS)))
    return Bid(tuple(zip(prices, powers, strict=True)), lower, upper)


@given(st.lists(bids(), min_size=1, max_size=6), st.integers(-700, 700).map(lambda kw: kw * 1e3 + 137.0))
@settings(max_examples=300)
def test_both_come_to_the_same(offered: list[Bid], target_w: float) -> None:
    made = clear(offered, target_w)
    known = of_the_gateway.clear(
        [of_the_gateway.Bid(of_the_gateway.make_curve(bid.points), bid.lower_w, bid.upper_w) for bid in offered],
        target_w,
    )
    assert made.total_w == pytest.approx(known.total_w, abs=1e-3)
    assert made.powers_w == pytest.approx(known.shares_w, abs=1e-3)
    least_w, most_w = sum(bid.lower_w for bid in offered), sum(bid.upper_w for bid in offered)
    assert made.total_w == pytest.approx(min(max(target_w, least_w), most_w), abs=1e-3)
    if sum(bid.below(-1.0) for bid in offered) > target_w > sum(bid.above(2.0) for bid in offered):
        assert made.price_per_kwh == pytest.approx(known.lambda_per_kwh, abs=1e-6)


def test_nobody_takes_nothing() -> None:
    assert clear([], 5.0) == (0.0, ())
