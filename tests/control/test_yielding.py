"""What yields to limits, by the least and never for nothing: an operator's bounds and a charger's least current."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.vocabulary import DeviceKind, Quality
from gateway.control.allocation import GroupLimit, Steps, allocate, group_excess
from gateway.control.clearing import Bid, make_curve
from gateway.control.connection import SumBounds
from gateway.control.envelope import Bound
from gateway.control.orders_in_force import OverrideInForce
from gateway.control.resource_memory import ResourceMemory
from gateway.control.resources import Resource
from gateway.control.yielding import Wish, wishes, within_limits
from tests.control.plant import device

FLAT = make_curve([(0.2, 50e3), (0.4, -50e3)])
HELD = OverrideInForce("operator", "o1", "battery", 0.0, 0.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-50e3, 50e3), st.floats(0.0, 50e3), st.booleans()), min_size=1, max_size=6),
    st.floats(-150e3, 150e3),
    st.floats(0.0, 100e3),
)
def test_wishes_yield_by_the_least_that_the_bounds_need(
    held: list[tuple[float, float, bool]], lower_w: float, span_w: float
) -> None:
    bids = [Bid(FLAT, at_w, min(at_w + width_w, 50e3)) for at_w, width_w, _ in held]
    wished = [
        Wish(index, -50e3, 50e3, HELD) if operator else Wish(index, min(at_w, 0.0), 50e3, None)
        for index, (at_w, _, operator) in enumerate(held)
    ]
    bounds = SumBounds(lower_w, lower_w + span_w, None)
    after = within_limits(bids, wished, bounds, [])
    least_w, most_w = sum(bid.lower_w for bid in after), sum(bid.upper_w for bid in after)
    before_least_w, before_most_w = sum(bid.lower_w for bid in bids), sum(bid.upper_w for bid in bids)
    own_least_w = sum(one.lower_w for one in wished)
    assert least_w <= max(bounds.upper_w, own_least_w) + 1e-3
    if before_least_w <= bounds.upper_w:
        assert [bid.lower_w for bid in after] == [bid.lower_w for bid in bids]
    if before_most_w >= bounds.lower_w:
        assert [bid.upper_w for bid in after] == [bid.upper_w for bid in bids]
    for one, old, new in zip(wished, bids, after, strict=True):
        assert min(one.lower_w, old.lower_w) - 1e-6 <= new.lower_w <= old.lower_w
        assert old.upper_w <= new.upper_w <= max(one.upper_w, old.upper_w) + 1e-6
    if all(one.override is not None for one in wished) and before_least_w > bounds.upper_w >= own_least_w:
        assert least_w == pytest.approx(bounds.upper_w, abs=1e-3), "and no further"
    raisable = any(one.override is not None and bid.upper_w < 50e3 - 1.0 for one, bid in zip(wished, bids, strict=True))
    if before_most_w < bounds.lower_w - 1.0 and raisable:
        assert most_w > before_most_w


def test_chargers_yield_before_the_operator_and_the_last_in_turn_first() -> None:
    bids = [Bid(FLAT, 10e3, 10e3), Bid(FLAT, 4140.0, 22080.0), Bid(FLAT, 4140.0, 22080.0)]
    wished = [Wish(0, -50e3, 50e3, HELD), Wish(1, 0.0, 22080.0, None, 5.0), Wish(2, 0.0, 22080.0, None, 9.0)]
    kept = [
        [bid.lower_w for bid in within_limits(bids, wished, SumBounds(-1e6, most_w, None), [])]
        for most_w in (20e3, 15e3, 10e3, 8e3)
    ]
    assert kept == [[10e3, 4140.0, 4140.0], [10e3, 4140.0, 0.0], [10e3, 0.0, 0.0], [8e3, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("lower_w", "upper_w", "as_far_as_w"),
    [
        (-6e3, -6e3, (-20e3, 20e3)),
        (0.0, 0.0, (0.0, 0.0)),
        (0.0, 5e3, (0.0, 5e3)),
        (2e3, 5e3, (0.0, 5e3)),
        (-8e3, -3e3, (-8e3, 0.0)),
    ],
)
def test_a_hold_gives_way_but_no_limit_makes_a_device_do_what_an_operator_has_forbidden(
    lower_w: float, upper_w: float, as_far_as_w: tuple[float, float]
) -> None:
    model = device("battery", DeviceKind.BATTERY, 20e3)
    own = Bound(-20e3, "device"), Bound(20e3, "device")
    resource = Resource(model, 0.0, 0.0, Quality.GOOD, True, *own, model.curve)
    order = OverrideInForce("operator", "o1", "battery", lower_w, upper_w)
    (wish,) = wishes([resource], (), [order], ResourceMemory())
    assert (wish.lower_w, wish.upper_w) == as_far_as_w


STEP_W, LEAST_W = 230.0, 1380.0
one_phase = st.tuples(st.integers(1, 3), st.sampled_from([0.0, 1500.0, 4000.0, 7360.0]))


@settings(deadline=None, max_examples=200)
@given(st.lists(one_phase, min_size=1, max_size=4), st.lists(st.floats(0.0, 9e3), min_size=3, max_size=3))
def test_no_phase_is_overloaded_and_each_is_within_a_step_of_what_it_could_carry(
    cars: list[tuple[int, float]], limits_w: list[float]
) -> None:
    curve = make_curve([(0.5, 7360.0), (0.6, 0.0)])
    bids = [Bid(curve, 0.0, most_w) for _, most_w in cars]
    groups = []
    for phase, limit_w in enumerate(limits_w, start=1):
        members = tuple(index for index, (on, _) in enumerate(cars) if on == phase)
        groups.append(GroupLimit(members, "net_upper", limit_w, f"L{phase}", (1.0,) * len(members)))
    steps = {index: Steps(STEP_W, LEAST_W, None, most_w) for index, (_, most_w) in enumerate(cars)}
    shares_w = allocate(bids, -1e6, 1e6, None, 0.25, groups, steps).shares_w
    for group in groups:
        assert group_excess(group, shares_w) <= 1e-3
        choices = [
            [0.0, *(n * STEP_W for n in range(6, 33) if n * STEP_W <= cars[index][1])] for index in group.members
        ]
        best_w = max((sum(choice) for choice in product(*choices) if sum(choice) <= group.value_w), default=0.0)
        assert sum(shares_w[index] for index in group.members) >= best_w - LEAST_W - 1e-3
