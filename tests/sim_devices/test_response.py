"""How a device follows a step: Tr90, dead time, ramp."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.twin import DeviceTwin
from sim_devices.models import PowerResponse

STEP_S = 0.01


def run(response: PowerResponse, target_w: float, seconds: float) -> float:
    for _ in range(round(seconds / STEP_S)):
        response.step(target_w, STEP_S)
    return response.value_w


@pytest.mark.parametrize("tr90_s", [0.05, 0.2, 2.0])
def test_ninety_percent_of_a_step_are_there_at_tr90(tr90_s: float) -> None:
    response = PowerResponse(DeviceTwin(tr90_s=tr90_s))
    assert run(response, 10_000.0, tr90_s) == pytest.approx(9_000.0, rel=1e-6)
    assert run(response, 10_000.0, tr90_s) == pytest.approx(9_900.0, rel=1e-6)


def test_the_response_does_not_depend_on_the_step_size() -> None:
    coarse, fine = PowerResponse(DeviceTwin(tr90_s=0.5)), PowerResponse(DeviceTwin(tr90_s=0.5))
    coarse.step(5_000.0, 0.1)
    for _ in range(100):
        fine.step(5_000.0, 0.001)
    assert coarse.value_w == pytest.approx(fine.value_w, rel=1e-9)


def test_nothing_moves_during_the_dead_time() -> None:
    response = PowerResponse(DeviceTwin(tr90_s=0.1, dead_time_s=0.3))
    assert run(response, 1_000.0, 0.3) == 0.0
    assert run(response, 1_000.0, 0.1) == pytest.approx(900.0, rel=1e-6)


def test_every_target_counts_after_the_dead_time_in_order() -> None:
    response = PowerResponse(DeviceTwin(tr90_s=0.001, dead_time_s=0.1))
    run(response, 1_000.0, 0.05)
    assert run(response, -500.0, 0.05) == 0.0
    assert run(response, -500.0, 0.04) == pytest.approx(1_000.0)
    assert run(response, -500.0, 0.05) == pytest.approx(-500.0)


def test_a_ramp_limits_the_slope_both_ways() -> None:
    response = PowerResponse(DeviceTwin(tr90_s=0.01, ramp_w_per_s=2_000.0))
    assert run(response, 10_000.0, 1.0) == pytest.approx(2_000.0)
    assert run(response, -10_000.0, 2.0) == pytest.approx(-2_000.0)


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=50), st.floats(0.02, 5.0))
def test_the_power_never_leaves_the_span_of_what_was_asked(targets: list[float], tr90_s: float) -> None:
    response = PowerResponse(DeviceTwin(tr90_s=tr90_s))
    for target_w in targets:
        response.step(target_w, STEP_S)
        assert math.isfinite(response.value_w)
        assert min(0.0, *targets) - 1e-6 <= response.value_w <= max(0.0, *targets) + 1e-6
