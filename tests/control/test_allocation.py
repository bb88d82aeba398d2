"""Sharing around `clear`: limits on groups, whole steps, and the comparison with brute force on small sites."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.allocation import GroupLimit, Steps, allocate, whole_steps
from gateway.control.clearing import Bid, make_curve

STEP_W = 690.0
LEAST_W = 6 * STEP_W


def battery(rating_w: float) -> Bid:
    points = [(0.05, rating_w), (0.15, 0.0), (0.35, 0.0), (0.45, -rating_w)]
    return Bid(make_curve(points), -rating_w, rating_w)


def charger(most_w: float) -> Bid:
    return Bid(make_curve([(0.5, 22080.0), (0.6, 0.0)]), 0.0, most_w)


def inverter(available_w: float) -> Bid:
    return Bid(make_curve([(0.0, 0.0), (0.0, -60e3)]), -available_w, 0.0)


resources = st.one_of(
    st.floats(1e3, 60e3).map(battery), st.floats(0, 22080).map(charger), st.floats(0, 60e3).map(inverter)
)


@settings(deadline=None)
@given(
    st.lists(resources, min_size=1, max_size=6),
    st.floats(-120e3, 120e3),
    st.floats(0, 120e3),
    st.one_of(st.none(), st.floats(-150e3, 150e3)),
    st.floats(-0.2, 1.0),
)
def test_the_sum_stays_inside_or_is_the_nearest_possible(
    bids: list[Bid], lower_w: float, span_w: float, target_w: float | None, price: float
) -> None:
    upper_w = lower_w + span_w
    allocation = allocate(bids, lower_w, upper_w, target_w, price)
    total = sum(allocation.shares_w)
    least, most = sum(bid.lower_w for bid in bids), sum(bid.upper_w for bid in bids)
    if least > upper_w:
        assert total == pytest.approx(least, abs=1e-3)
    elif most < lower_w:
        assert total == pytest.approx(most, abs=1e-3)
    else:
        assert lower_w - 1e-3 <= total <= upper_w + 1e-3
    for share, bid in zip(allocation.shares_w, bids, strict=True):
        assert bid.lower_w - 1e-6 <= share <= bid.upper_w + 1e-6


@settings(deadline=None)
@given(
    st.lists(resources, min_size=2, max_size=6),
    st.sampled_from(["load", "generation"]),
    st.floats(0, 60e3),
    st.one_of(st.none(), st.floats(-150e3, 150e3)),
    st.floats(-0.2, 1.0),
)
def test_a_group_keeps_its_limit_whatever_the_site_wants(
    bids: list[Bid], side: str, limit_w: float, target_w: float | None, price: float
) -> None:
    group = GroupLimit(tuple(range(len(bids))), side, limit_w, "group")
    shares = allocate(bids, -1e6, 1e6, target_w, price, [group]).shares_w
    taken = sum(max(share, 0.0) for share in shares) if side == "load" else -sum(min(share, 0.0) for share in shares)
    assert taken <= limit_w + 1e-3


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 22080), min_size=1, max_size=3),
    st.floats(0, 20e3),
    st.floats(-20e3, 90e3),
    st.lists(st.sampled_from([None, 0.0, LEAST_W, 10 * STEP_W, 32 * STEP_W]), min_size=3, max_size=3),
)
def test_whole_steps_stay_inside_and_within_a_step_of_the_best(
    most_w: list[float], battery_w: float, target_w: float, held_w: list[float | None]
) -> None:
    bids = [charger(most) for most in most_w]
    bids += [battery(battery_w)] if battery_w > 0 else []
    steps = {index: Steps(STEP_W, LEAST_W, held_w[index]) for index in range(len(most_w))}
    shares = allocate(bids, -1e6, target_w, target_w, 0.25, (), steps).shares_w
    total = sum(shares)
    for index in steps:
        whole = shares[index] / STEP_W
        assert whole == pytest.approx(round(whole), abs=1e-6)
        assert shares[index] == 0.0 or LEAST_W - 1e-6 <= shares[index] <= most_w[index] + 1e-6
    floor_w = -battery_w if battery_w > 0 else 0.0
    assert total <= max(target_w, floor_w) + 1e-3, "rounding goes to the inside"
    best = max(_reachable(most_w, battery_w, target_w), default=floor_w)
    assert total >= min(best, target_w) - LEAST_W - 1e-3


def _reachable(most_w: list[float], battery_w: float, target_w: float) -> list[float]:
    """Every sum at or below the target that whole steps and a continuous battery can make."""
    choices = [[0.0, *(count * STEP_W for count in range(6, 33) if count * STEP_W <= most)] for most in most_w]
    sums = {sum(choice) for choice in product(*choices)}
    return [min(base + battery_w, target_w) for base in sums if base - battery_w <= target_w]


@pytest.mark.parametrize(
    ("share_w", "held_w", "steps"),
    [
        (4139.0, None, 0),
        (4140.0, None, 6),
        (4500.0, None, 6),
        (4830.0, 4140.0, 6),
        (5040.0, 4140.0, 7),
        (4829.0, 4830.0, 6),
    ],
)
def test_a_step_up_needs_more_than_a_step(share_w: float, held_w: float | None, steps: int) -> None:
    assert whole_steps(share_w, Steps(STEP_W, LEAST_W, held_w)) == pytest.approx(steps * STEP_W)
