"""Where to solve next: curves that jump and bend are found with few solutions, and what is not known is said."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.control.clearing import make_curve
from gateway.control.interchange import InterchangeCost
from gateway.planning.published import Grid, by_outside_price, published
from gateway.planning.tracing import CurveTrace, Points, error_w, fewer_points

STEP = 0.005
FIRST = tuple(0.1 * at for at in range(-1, 8))
BOUND_W = 500.0


def traced(power_at: Callable[[float], float | None], most: int = 60) -> CurveTrace:
    trace = CurveTrace(FIRST, STEP, BOUND_W, most)
    while (price := trace.next_price()) is not None:
        trace.add(power_at(price))
    return trace


def random_curve(seed: int) -> Callable[[float], float]:
    """Jumps and slopes, as the devices of a site make them."""
    rng = random.Random(seed)
    jumps = [(rng.uniform(-0.1, 0.7), rng.uniform(0.0, 20e3)) for _ in range(rng.randint(0, 6))]
    slopes = [
        (rng.uniform(-0.1, 0.5), rng.uniform(0.02, 0.4), rng.uniform(0.0, 30e3)) for _ in range(rng.randint(0, 2))
    ]

    def power_at(price: float) -> float:
        jumped = sum(size for at, size in jumps if price > at)
        return 5e3 - jumped - sum(min(max((price - at) / width, 0.0), 1.0) * size for at, width, size in slopes)

    return power_at


@pytest.mark.parametrize("seed", range(40))
def test_a_curve_is_found_within_its_bound(seed: int) -> None:
    power_at = random_curve(seed)
    trace = traced(power_at)
    dense = tuple((0.001 * at - 0.1, power_at(0.001 * at - 0.1)) for at in range(801))
    allowed_w = BOUND_W + trace.unknown_w()
    assert error_w(make_curve(trace.points()), dense, STEP) <= allowed_w + 1e-6
    assert len(trace.points()) <= 60


def test_with_too_few_solutions_it_says_what_it_does_not_know() -> None:
    trace = traced(random_curve(3), most=9)
    assert trace.unknown_w() > BOUND_W
    assert traced(random_curve(3)).unknown_w() == 0.0


def test_a_price_without_a_solution_is_left_out_and_what_lies_around_it_stays_unknown() -> None:
    first = traced(lambda price: None if price < 0.0 else 1e3 * (price < 0.3))
    assert first.points()[0][0] == 0.0
    later = traced(lambda price: 10e3 if price < 0.25 else None if price < 0.28 else 0.0)
    assert later.unknown_w() == 10e3
    nothing = traced(lambda _: None)
    assert nothing.points() == ()


falling = st.lists(st.tuples(st.integers(-20, 60), st.integers(-50, 50)), min_size=2, max_size=30).map(
    lambda raw: tuple(
        zip(sorted(at / 100.0 for at, _ in raw), sorted((1e3 * w for _, w in raw), reverse=True), strict=True)
    )
)


@given(falling, st.integers(2, 20))
def test_fewer_points_keep_the_ends_and_the_order(points: Points, most: int) -> None:
    few = fewer_points(points, 0.0, most)
    assert (few[0], few[-1]) == (points[0], points[-1])
    assert len(few) <= max(most, 2)
    assert set(few) <= set(points)


costs = st.builds(
    InterchangeCost, st.floats(0.0, 0.1), st.floats(-0.1, 0.1), st.floats(0.0, 1e-5), st.floats(0.0, 1e-4)
)


@given(falling, costs)
def test_what_is_published_is_a_curve_on_the_grid_and_its_error_is_told(own: Points, cost: InterchangeCost) -> None:
    grid = Grid(1e3, 0.01)
    made = published(own, cost, (own[-1][1] - 300.0, own[0][1] + 300.0), grid, 500.0, 0.0)
    assert len(made.points) <= 20
    assert all(a[0] <= b[0] and a[1] >= b[1] for a, b in pairwise(made.points))
    assert made.lower_w <= made.points[-1][1] <= made.points[0][1] <= made.upper_w
    every = tuple((at, min(max(w, made.lower_w), made.upper_w)) for at, w in by_outside_price(own, cost))
    assert error_w(make_curve(made.points), every, 0.01) <= made.error_w + 1e-6
    for price, power_w in made.points:
        assert abs(price * 100.0 - round(price * 100.0)) < 1e-6
        assert power_w % 1e3 == 0.0


def test_a_layer_that_balances_itself_stays_at_balance_over_the_spread() -> None:
    own = ((0.1, 10e3), (0.2, 0.0), (0.3, 0.0), (0.4, -10e3))
    found = dict(by_outside_price(own, InterchangeCost(spread_per_kwh=0.05)))
    assert found[0.1 - 0.05] == 10e3
    assert found[0.4 + 0.05] == -10e3
    flat = [price for price, power_w in found.items() if power_w == 0.0]
    assert (min(flat), max(flat)) == (pytest.approx(0.15), pytest.approx(0.35))
