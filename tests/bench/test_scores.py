"""Every figure of merit against an example worked out by hand."""

from __future__ import annotations

import math

import pytest

from gateway.bench.metrics import Excursion
from gateway.bench.scores import (
    PriceStep,
    averaged,
    energy_cost,
    energy_taken_wh,
    excursion_stages,
    expected_step,
    overshoot_pu,
    regulation_score,
    step_shortfall_pu,
    swing_w,
    tracking_error,
    unserved_wh,
)

STEP_S = 0.5


def clock(duration_s: float, start_s: float = 1000.0) -> list[float]:
    return [start_s + index * STEP_S for index in range(round(duration_s / STEP_S) + 1)]


def wave(times: list[float], later_s: float = 0.0, period_s: float = 200.0) -> list[float]:
    return [1000.0 * math.sin(2.0 * math.pi * (at_s - later_s) / period_s) for at_s in times]


# Regulation


def test_a_perfect_response_scores_one() -> None:
    times = clock(900.0)
    score = regulation_score(times, wave(times), wave(times))
    assert score is not None
    assert (score.correlation, score.delay, score.precision) == pytest.approx((1.0, 1.0, 1.0))
    assert score.score == pytest.approx(1.0)
    assert score.windows == 2


def test_a_response_that_is_30_s_late_loses_a_tenth_of_the_delay() -> None:
    times = clock(900.0)
    score = regulation_score(times, wave(times), wave(times, later_s=30.0))
    assert score is not None
    assert score.correlation == pytest.approx(1.0)
    assert score.delay == pytest.approx(0.9), "|30 - 300| / 300"


def test_doing_nothing_scores_two_thirds_in_the_mean_and_nothing_in_precision() -> None:
    times = clock(900.0)
    score = regulation_score(times, wave(times), [0.0] * len(times))
    assert score is not None
    assert score.precision == pytest.approx(0.0)
    assert score.score == pytest.approx(0.67, abs=0.02)


def test_precision_by_hand() -> None:
    """Means of 10 s: asked 100, -100, 200; given 90, -80, 230: 1 - (10 + 20 + 30) / 400."""
    times = clock(30.0)[:-1]
    asked = [100.0] * 20 + [-100.0] * 20 + [200.0] * 20
    given = [90.0] * 20 + [-80.0] * 20 + [230.0] * 20
    score = regulation_score([*times, times[-1] + STEP_S], [*asked, 0], [*given, 0], window_s=30.0, longest_shift_s=0.0)
    assert score is not None
    assert score.precision == pytest.approx(0.85)
    assert score.delay == 1.0
    mean_s, mean_r = 200 / 3, 80.0
    top = sum((s - mean_s) * (r - mean_r) for s, r in ((100, 90), (-100, -80), (200, 230)))
    below = math.sqrt(sum((s - mean_s) ** 2 for s in (100, -100, 200)) * sum((r - mean_r) ** 2 for r in (90, -80, 230)))
    assert score.correlation == pytest.approx(top / below)


def test_both_sides_are_averaged_alike_so_a_response_within_the_interval_is_no_error() -> None:
    times = clock(600.0)
    signal = [1000.0 if int(at_s / 10.0) % 2 else -1000.0 for at_s in times]
    wobbling = [value + (300.0 if index % 2 else -300.0) for index, value in enumerate(signal)]
    score = regulation_score(times, signal, wobbling)
    assert score is not None
    assert score.precision == pytest.approx(1.0)


def test_two_flat_sides_are_compared_by_their_slope() -> None:
    times = clock(600.0)
    score = regulation_score(times, [500.0] * len(times), [400.0] * len(times))
    assert score is not None
    assert score.correlation == 1.0
    assert score.precision == pytest.approx(0.8)


def test_no_score_without_a_whole_window_or_without_a_signal() -> None:
    times = clock(590.0)
    assert regulation_score(times, wave(times), wave(times)) is None, "a window of 300 s and a shift of 300 s"
    assert regulation_score([], [], []) is None
    times = clock(600.0)
    assert regulation_score(times, [0.0] * len(times), wave(times)) is None


def test_an_interval_of_which_most_is_missing_has_no_mean() -> None:
    times = [0.0, 0.5, 1.0, 8.0, 8.5, 10.0, 10.5, 11.0, 11.5, 12.0]
    assert averaged(times, [1.0] * 5 + [3.0] * 5, 0.0, 12.0, 2.0) == [1.0, None, None, None, None, 3.0]


# Excursions


def test_stages_of_excursions() -> None:
    def beyond(*spans: tuple[float, float]) -> list[Excursion]:
        return [Excursion(start_s, duration_s, 0.0, 0.0) for start_s, duration_s in spans]

    assert excursion_stages([]).stage == 1
    assert excursion_stages(beyond((0.0, 15.0))).stage == 2
    assert excursion_stages(beyond((0.0, 15.1))).stage == 3
    assert excursion_stages(beyond((0.0, 60.1))).stage == 4
    assert excursion_stages(beyond((0.0, 1.0), (599.0, 1.0))).stage == 2
    assert excursion_stages(beyond((0.0, 1.0), (300.0, 1.0), (599.0, 1.0))).stage == 3
    assert excursion_stages(beyond((0.0, 1.0), (300.0, 1.0), (600.0, 1.0))).stage == 2
    assert excursion_stages(beyond((0.0, 4.0), (300.0, 9.0))).longest_s == 9.0


# Steps


def test_the_expected_step_is_at_90_percent_after_tr90() -> None:
    assert expected_step(0.0, 100.0, 200.0, 2.0) == 100.0
    assert expected_step(2.0, 100.0, 200.0, 2.0) == pytest.approx(190.0, abs=0.01)


def test_a_first_order_response_is_behind_by_nothing_and_a_slower_one_by_what_it_lacks() -> None:
    times = clock(10.0, 0.0)
    own = [expected_step(at_s - 1.0, -50.0, 50.0, 2.0) for at_s in times]
    assert step_shortfall_pu(times, own, 1.0, 10.0, -50.0, 50.0, 2.0) == pytest.approx(0.0)
    slower = [expected_step(at_s - 1.0, -50.0, 50.0, 4.0) for at_s in times]
    # At t = 2 s the one is at 0.9 and the other at 1 - sqrt(0.1): the largest difference of the two is 1/4, at 1.2 s.
    assert step_shortfall_pu(times, slower, 1.0, 10.0, -50.0, 50.0, 2.0) == pytest.approx(0.25, abs=0.005)
    still = [-50.0] * len(times)
    assert step_shortfall_pu(times, still, 1.0, 10.0, -50.0, 50.0, 2.0) == pytest.approx(1.0, abs=0.001)


def test_overshoot_in_units_of_the_step_in_either_direction() -> None:
    times = [0.0, 0.5, 1.0, 1.5]
    assert overshoot_pu(times, [0.0, 110.0, 104.0, 100.0], 0.0, 2.0, 0.0, 100.0) == pytest.approx(0.10)
    assert overshoot_pu(times, [0.0, -30.0, -42.0, -40.0], 0.0, 2.0, 0.0, -40.0) == pytest.approx(0.05)
    assert overshoot_pu(times, [0.0, 50.0, 90.0, 99.0], 0.0, 2.0, 0.0, 100.0) == 0.0
    assert overshoot_pu(times, [0.0] * 4, 0.0, 2.0, 5.0, 5.0) is None


def test_swing() -> None:
    assert swing_w([0.0, 1.0, 2.0, 3.0], [99.0, -5.0, 10.0, 99.0], 1.0, 3.0) == 15.0
    assert swing_w([], [], 0.0, 1.0) is None


# Energy


def test_tracking_error_by_hand() -> None:
    """Half a second each at 3 and 4 W of error; the second without a target counts for nothing."""
    error = tracking_error([0.0, 0.5, 1.0, 1.5], [13.0, 6.0, 99.0, 0.0], [10.0, 10.0, None, None])
    assert error is not None
    assert error.mean_w == pytest.approx(3.5)
    assert error.rms_w == pytest.approx(math.sqrt(12.5))
    assert error.worst_w == 4.0
    assert tracking_error([0.0, 1.0], [1.0, 1.0], [None, None]) is None


def test_energy_and_what_is_missing() -> None:
    times = clock(3600.0, 0.0)
    assert energy_taken_wh(times, [2000.0] * len(times), 0.0, 1800.0) == pytest.approx(1000.0)
    assert energy_taken_wh([0.0, 10.0], [1000.0, 1000.0], 0.0, 10.0) == 0.0
    assert unserved_wh(1500.0, 1000.0) == 500.0
    assert unserved_wh(1500.0, 1600.0) == 0.0


def test_cost_of_half_an_hour_taken_and_half_an_hour_given() -> None:
    """1 kWh at 0.30, then 2 kWh given at 0.08: 0.30 - 0.16."""
    times = clock(3600.0, 0.0)
    net = [2000.0 if at_s < 1800.0 else -4000.0 for at_s in times]
    assert energy_cost(times, net, [PriceStep(0.0, 0.30, 0.08)]) == pytest.approx(0.14)
    prices = [PriceStep(900.0, 0.30, 0.08), PriceStep(1800.0, 0.50, 0.10)]
    assert energy_cost(times, net, prices) == pytest.approx(0.5 * 0.30 - 2.0 * 0.10)
