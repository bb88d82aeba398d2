"""Dead time and Tr90 from samples: of an ideal response exactly, of real ones closely enough."""

from __future__ import annotations

import random
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.commission.response import lag_of, measure


def first_order(dead_s: float, tr90_s: float, period_s: float, phase_s: float = 0.0) -> list[tuple[float, float]]:
    times = [phase_s + at * period_s for at in range(int((dead_s + 4 * tr90_s) / period_s) + 2)]
    return [(t, 0.0 if t < dead_s else 1.0 - 10.0 ** (-(t - dead_s) / tr90_s)) for t in times]


@settings(max_examples=200, deadline=None)
@given(
    dead_s=st.floats(0.0, 3.0),
    tr90_s=st.floats(0.1, 10.0),
    samples=st.integers(8, 200),
    phase=st.floats(0.0, 1.0),
)
def test_a_first_order_response_is_measured(dead_s: float, tr90_s: float, samples: int, phase: float) -> None:
    period_s = tr90_s / samples
    found_dead_s, found_tr90_s = lag_of(first_order(dead_s, tr90_s, period_s, phase * period_s))
    assert found_tr90_s == pytest.approx(tr90_s, rel=0.02, abs=0.005)
    assert found_dead_s == pytest.approx(dead_s, rel=0.02, abs=0.02 * tr90_s + 0.005)


@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1, 0.2])
def test_few_samples_still_tell_a_fast_device_from_a_slow_one(period_s: float) -> None:
    dead_s, tr90_s = lag_of(first_order(0.3, 0.2, period_s))
    assert dead_s + tr90_s == pytest.approx(0.5, abs=max(0.02, period_s))


def test_a_ramp_has_its_time_to_90_percent_right() -> None:
    ramp = [(at * 0.02, min(max((at * 0.02 - 0.5) / 2.0, 0.0), 1.0)) for at in range(200)]
    dead_s, tr90_s = lag_of(ramp)
    assert dead_s + tr90_s == pytest.approx(0.5 + 1.8, abs=0.02)
    assert 0.4 < dead_s < 0.75


def test_noise_moves_the_result_a_little() -> None:
    noise = random.Random(1)
    before = [(at * 0.02 - 1.0, noise.gauss(0.0, 100.0)) for at in range(50)]
    after = [(t, 10_000 * y + noise.gauss(0.0, 100.0)) for t, y in first_order(0.3, 0.2, 0.02)]
    after += [(after[-1][0] + 0.02 * at, 10_000 + noise.gauss(0.0, 100.0)) for at in range(1, 40)]
    seen = measure(before, after, 0.0, 0.6)
    assert seen.change_w == pytest.approx(10_000, rel=0.02)
    assert seen.dead_time_s == pytest.approx(0.3, abs=0.05)
    assert seen.tr90_s == pytest.approx(0.2, abs=0.04)


def test_what_does_not_stand_out_has_no_lag() -> None:
    noise = random.Random(2)
    samples = [(at * 0.02, noise.gauss(0.0, 500.0)) for at in range(100)]
    seen = measure(samples[:50], samples[50:], 1.0, 0.6)
    assert seen.dead_time_s is None and seen.tr90_s is None and seen.lag_s is None


def test_a_step_down_is_measured_as_a_step_up() -> None:
    tau_s = 0.5 / log(10)
    before = [(at * 0.05 - 1.0, 4_000.0) for at in range(20)]
    after = [(at * 0.05, 4_000.0 - 3_000.0 * (1 - 10 ** (-at * 0.05 / 0.5))) for at in range(80)]
    seen = measure(before, after, 0.0, 0.6)
    assert seen.change_w == pytest.approx(-3_000, rel=0.01)
    assert seen.tr90_s == pytest.approx(tau_s * log(10), rel=0.05)
