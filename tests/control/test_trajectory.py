"""A device's power between and beyond its samples, from what it was commanded when."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.feedback import RestEstimate
from gateway.control.trajectory import LN_10, Trajectory

RATING_W = 10e3


def commanded(tr90_s: float, dead_time_s: float, *commands: tuple[float, float]) -> Trajectory:
    known = Trajectory(tr90_s, dead_time_s)
    for at_s, power_w in commands:
        known.command(at_s, power_w, RATING_W, 1e3)
    return known


def real_power_w(at_s: float, tr90_s: float, dead_time_s: float, step_w: float) -> float:
    """A device at rest that is asked for `step_w` at time 0."""
    since_s = max(at_s - dead_time_s, 0.0)
    return step_w * (1.0 - exp(-LN_10 * since_s / tr90_s))


def test_between_dense_samples_the_power_is_a_straight_line() -> None:
    known = commanded(1.0, 0.0)
    for at_s, power_w in ((0.0, 0.0), (0.2, 100.0), (0.4, 400.0)):
        known.add(at_s, power_w)
    assert known.at(0.1) == (50.0, 50.0, 50.0)
    assert known.at(-1.0) == (0.0, 0.0, 0.0), "before the first sample it is the first one"
    assert Trajectory(1.0, 0.0).at(0.0) is None


def test_after_the_last_sample_a_command_takes_its_dead_time_and_then_its_lag() -> None:
    known = commanded(1.0, 2.0, (-60.0, 0.0), (0.0, 5e3))
    known.add(0.0, 0.0)
    waiting, moving, there = known.at(0.8), known.at(3.0), known.at(60.0)
    assert waiting is not None and moving is not None and there is not None
    assert waiting == (0.0, 0.0, 0.0)
    assert moving.expected_w == pytest.approx(4.5e3)
    assert moving.low_w == 0.0, "it may need twice the time"
    assert moving.high_w > 4.9e3
    assert there.low_w == pytest.approx(5e3, rel=1e-3)


def test_what_came_to_rest_beside_its_setpoint_stays_there() -> None:
    known = commanded(1.0, 0.0, (0.0, 5e3))
    known.add(20.0, 4.7e3)
    assert known.at(25.0) == (4.7e3, 4.7e3, 4.7e3)


def test_a_device_that_has_begun_to_follow_does_not_go_back() -> None:
    known = commanded(1.0, 3.0, (-60.0, 0.0), (0.0, 5e3))
    known.add(3.9, 4.4e3)
    span = known.at(4.5)
    assert span is not None
    assert span.low_w >= 4.4e3


@settings(max_examples=200, deadline=None)
@given(st.floats(0.05, 30.0), st.floats(0.0, 5.0), st.floats(0.5, 2.0), st.floats(0.05, 10.0), st.floats(0.0, 40.0))
def test_the_real_power_is_within_the_span_when_the_lag_is_half_to_twice_the_declared(
    tr90_s: float, dead_time_s: float, scale: float, interval_s: float, at_s: float
) -> None:
    known = commanded(tr90_s, dead_time_s, (-1000.0, 0.0), (0.0, 5e3))

    def real(time_s: float) -> float:
        return real_power_w(time_s, scale * tr90_s, scale * dead_time_s, 5e3)

    sample_s = -interval_s
    while sample_s <= at_s - interval_s:
        known.add(sample_s, real(sample_s))
        sample_s += interval_s
    span = known.at(at_s)
    assert span is not None
    assert span.low_w - 50.0 <= real(at_s) <= span.high_w + 50.0


def test_a_rest_moves_only_as_far_as_the_reading_forces_it() -> None:
    rest = RestEstimate(0.0, 50e3, 5e3)
    rest.measured(9e3, 10e3, 11e3)
    assert rest.lower_w == 10e3, "the first reading is taken as expected"
    rest.measured(8e3, 9e3, 12e3)
    assert rest.lower_w == 10e3, "what the devices may have done is no change of the rest"
    rest.measured(14e3, 15e3, 16e3)
    assert rest.lower_w == rest.upper_w == 14e3
