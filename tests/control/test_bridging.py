"""Fast devices stand in for slow ones while these move."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.vocabulary import DeviceKind, Quantity
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.allocation import GroupLimit, group_excess
from gateway.control.bridging import Part, Wanted, bridge, missing_w
from gateway.control.clearing import make_curve
from gateway.control.orders_in_force import LimitInForce, OrdersInForce
from gateway.control.trajectory import Span

FAST = Part(0.0, -50e3, 50e3, 0.2, 0.1, True)
SLOW = Part(20e3, 0.0, 44e3, 3.5, 3.2, True)
ANY = Wanted(-100e3, 20e3, None, 200.0)


def still_at(power_w: float) -> object:
    return lambda index, ahead_s: Span(power_w, power_w, power_w)


def test_what_the_slow_one_still_takes_the_fast_one_gives() -> None:
    assert bridge([FAST, SLOW], lambda index, ahead_s: Span(44e3, 44e3, 44e3), ANY) == (-24e3, 20e3)


def test_nothing_is_bridged_that_is_inside_already() -> None:
    wide = Wanted(-100e3, 50e3, None, 200.0)
    assert bridge([FAST, SLOW], lambda index, ahead_s: Span(30e3, 40e3, 44e3), wide) == (0.0, 20e3)
    assert bridge([FAST, SLOW], lambda index, ahead_s: Span(20e3, 20e3, 20.1e3), ANY) == (0.0, 20e3), "or nearly so"


def test_a_limit_is_kept_for_the_worst_that_the_slow_one_may_do_and_a_target_for_the_expected() -> None:
    span = Span(20e3, 30e3, 44e3)
    assert bridge([FAST, SLOW], lambda index, ahead_s: span, ANY)[0] == -24e3
    aimed = Wanted(-100e3, 100e3, 20e3, 200.0)
    assert bridge([FAST, SLOW], lambda index, ahead_s: span, aimed)[0] == -10e3


def test_a_limit_on_generation_is_not_broken_to_keep_one_on_import() -> None:
    groups = [GroupLimit((0, 1), "generation", 10e3, "dso")]
    assert bridge([FAST, SLOW], lambda index, ahead_s: Span(44e3, 44e3, 44e3), ANY, groups) == (-10e3, 20e3)


def test_devices_alike_do_not_bridge_each_other() -> None:
    parts = [FAST, FAST._replace(share_w=5e3)]
    assert bridge(parts, lambda index, ahead_s: Span(0.0, 0.0, 0.0), Wanted(-1e3, 1e3, None, 0.0)) == (0.0, 5e3)


def test_a_charger_bridges_downwards_in_whole_steps_and_is_not_paused() -> None:
    charger = Part(20.7e3, 4140.0, 22.08e3, 1.0, 0.5, True, 690.0)
    slow = Part(-30e3, -50e3, 50e3, 30.0, 13.0, True)
    asked = bridge([charger, slow], lambda index, ahead_s: Span(0.0, 0.0, 0.0), Wanted(-100e3, 14e3, None, 0.0))
    assert asked[0] == pytest.approx(20.7e3 - 10 * 690.0)
    asked = bridge([charger, slow], lambda index, ahead_s: Span(0.0, 0.0, 0.0), Wanted(-100e3, 0.0, None, 0.0))
    assert asked[0] >= 4140.0


powers = st.floats(-50e3, 50e3)
parts = st.tuples(powers, powers, powers, st.sampled_from([0.05, 0.2, 1.0, 5.0, 30.0]), st.booleans()).map(
    lambda drawn: Part(sorted(drawn[:3])[1], min(drawn[:3]), max(drawn[:3]), drawn[3], drawn[3] / 2, drawn[4])
)
sides = st.sampled_from(["load", "generation", "net_upper", "net_lower"])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(parts, powers, powers), min_size=1, max_size=6),
    powers,
    st.floats(0.0, 50e3),
    st.one_of(st.none(), powers),
    sides,
    powers,
)
def test_no_part_leaves_its_bounds_no_group_gets_worse_and_the_sum_comes_nearer(
    drawn: list[tuple[Part, float, float]],
    lower_w: float,
    width_w: float,
    target_w: float | None,
    side: str,
    group_w: float,
) -> None:
    those = [part for part, _, _ in drawn]
    spans = [Span(min(one, other), (one + other) / 2.0, max(one, other)) for _, one, other in drawn]
    upper_w = lower_w + width_w
    target_w = None if target_w is None else min(max(target_w, lower_w), upper_w)
    wanted = Wanted(lower_w, upper_w, target_w, 0.0)
    group = GroupLimit(tuple(range(len(those))), side, abs(group_w) if side in ("load", "generation") else group_w, "")
    asked = bridge(those, lambda index, ahead_s: spans[index], wanted, [group])
    for part, power_w in zip(those, asked, strict=True):
        assert part.lower_w - 1e-6 <= power_w <= part.upper_w + 1e-6
        assert part.bridges or power_w == part.share_w
    before = [part.share_w for part in those]
    assert max(group_excess(group, asked), 0.0) <= max(group_excess(group, before), 0.0) + 1e-6
    fastest_s = min((part.response_s for part in those if part.bridges), default=0.0)

    def missing(powers_w: tuple[float, ...] | list[float]) -> float:
        each = [
            span if part.response_s > 2.0 * fastest_s + 0.2 else Span(power, power, power)
            for part, span, power in zip(those, spans, powers_w, strict=True)
        ]
        return abs(missing_w(Span(*(sum(values) for values in zip(*each, strict=True))), wanted))

    if len({part.response_s for part in those if part.bridges}) == 1:
        assert missing(asked) <= missing(before) + 1e-6


@pytest.mark.parametrize("lag_scale", [0.5, 1.0])
@pytest.mark.parametrize("device_interval_s", [0.1, 1.0])
def test_an_import_cut_for_a_charger_with_dead_time_is_bridged_by_the_battery(
    lag_scale: float, device_interval_s: float
) -> None:
    charger = plant_device("charger", DeviceKind.CHARGER, 44e3, 0.5, 3.0)
    charger = replace(charger, curve=make_curve([(0.30, 44e3), (0.34, 0.0)]))
    battery = plant_device("battery", DeviceKind.BATTERY, 50e3, 0.2, 0.0)
    sampling = Sampling(device_interval_s=device_interval_s)
    plant = FeedbackPlant(plant_site((charger, battery)), sampling, rest_w=20e3, lag_scale=lag_scale)
    plant.run(100.0, imports_at_most(90e3))
    assert plant.net_w == pytest.approx(64e3, abs=1e3), "the car takes all"
    trace = plant.run(20.0, imports_at_most(40e3))
    outside_s = sum(net_w > 40e3 + 100.0 for net_w in trace) * plant.period_s
    assert outside_s <= 0.5
    assert plant.machines["battery"].power_w == pytest.approx(0.0, abs=1e3), (
        "handed over: no energy is given for nothing"
    )
    assert plant.machines["charger"].power_w == pytest.approx(20e3, abs=1.5e3)


def imports_at_most(limit_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "cut", Quantity.NET_IMPORT_W, limit_w),))
