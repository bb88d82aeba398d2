"""Figures of merit, each against an example worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.metrics import (
    Spread,
    energy_wh,
    excursions,
    mean_error,
    percentile,
    settled_s,
    spread,
)


def ticks(count: int, step_s: float = 0.1) -> list[float]:
    return [round(100.0 + index * step_s, 6) for index in range(count)]


def test_percentiles_are_nearest_rank() -> None:
    values = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert percentile(values, 0.05) == 15.0
    assert percentile(values, 0.30) == 20.0
    assert percentile(values, 0.40) == 20.0
    assert percentile(values, 0.50) == 35.0
    assert percentile(values, 1.00) == 50.0
    assert percentile([float(value) for value in range(1, 101)], 0.07) == 7.0
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 3.0, 3.0)
    assert spread([]) == Spread(None, None, None)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_percentile_is_a_value_that_enough_values_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_settling_counts_from_receipt_to_the_first_sample_that_stays_inside() -> None:
    # Inside from sample 4 (0.4 s after receipt), after a brief visit at sample 2.
    errors = [9.0, 9.0, 0.5, 9.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert settled_s(ticks(12), errors, 100.0, 200.0, band=1.0) == pytest.approx(0.4)


def test_settling_takes_the_time_from_receipt_not_from_the_first_sample() -> None:
    errors = [9.0, 9.0, 9.0, *[0.0] * 9]
    assert settled_s(ticks(12), errors, 100.05, 200.0, band=1.0) == pytest.approx(0.25)


def test_power_that_is_inside_from_the_first_sample_on_settled_at_once() -> None:
    assert settled_s(ticks(12), [0.0] * 12, 100.0, 200.0, band=1.0) == 0.0


@pytest.mark.parametrize(
    ("errors", "until_s"),
    [
        ([9.0] * 12, 200.0),
        ([9.0] * 8 + [0.0] * 4, 200.0),  # inside for 0.3 s only, then the record ends
        ([9.0] * 2 + [0.0] * 10, 100.6),  # the order ends 0.4 s after power came inside
        ([0.0, 9.0] * 6, 200.0),
        ([], 200.0),
    ],
)
def test_power_that_does_not_stay_inside_for_half_a_second_never_settles(errors: list[float], until_s: float) -> None:
    assert settled_s(ticks(len(errors)), errors, 100.0, until_s, band=1.0) is None


def test_a_hole_in_the_record_starts_the_stay_inside_anew() -> None:
    times = [100.0, 100.1, 103.0, 103.1, 103.2, 103.3, 103.4, 103.5]
    assert settled_s(times, [9.0] + [0.0] * 7, 100.0, 200.0, band=1.0) == pytest.approx(3.0)


def test_the_mean_error_weighs_by_time_and_leaves_holes_out() -> None:
    # 2 for 0.1 s, 4 for 0.3 s, then a hole of 2 s, then 1 for 0.1 s: (0.2 + 1.2 + 0.1) / 0.5
    times = [100.0, 100.1, 100.4, 102.4, 102.5]
    assert mean_error(times, [2.0, 4.0, 8.0, 1.0, 1.0], 100.0, 200.0) == pytest.approx(3.0)
    assert mean_error(times, [2.0, 4.0, 8.0, 1.0, 1.0], 100.0, 100.2) == pytest.approx((0.2 + 0.4) / 0.2)
    assert mean_error(times, [2.0, 4.0, 8.0, 1.0, 1.0], 150.0, 200.0) is None
    assert mean_error([], [], 0.0, 1.0) is None


def test_excursions_are_unbroken_runs_beyond_the_tolerance() -> None:
    # Above 1 kW for samples 1 to 2 and at sample 5; the 0.9 kW at sample 7 is within the tolerance.
    excess = [0.0, 3000.0, 6000.0, -500.0, 0.0, 2000.0, 0.0, 900.0, None, 0.0]
    first, second = excursions(ticks(10), excess, tolerance=1000.0)
    assert (first.start_s, first.duration_s) == (pytest.approx(100.1), pytest.approx(0.2))
    assert first.energy_wh == pytest.approx((3000 + 6000) * 0.1 / 3600)
    assert first.peak_w == 6000.0
    assert (second.start_s, second.duration_s) == (pytest.approx(100.5), pytest.approx(0.1))


def test_an_excursion_at_the_end_of_the_record_lasts_to_its_last_sample() -> None:
    (found,) = excursions(ticks(4), [0.0, 0.0, 5000.0, 5000.0], tolerance=1000.0)
    assert found.duration_s == pytest.approx(0.1)


def test_nothing_is_known_of_a_hole_so_an_excursion_ends_before_it() -> None:
    times = [100.0, 100.1, 105.0, 105.1]
    found = excursions(times, [5000.0, 5000.0, 5000.0, 0.0], tolerance=1000.0)
    assert [round(each.duration_s, 6) for each in found] == [0.1, 0.1]


def test_energy_adds_up_and_holes_add_nothing() -> None:
    assert energy_wh([0.0, 0.5, 0.9, 10.0], [3600.0, 7200.0, 100.0, 0.0]) == pytest.approx([0.0, 0.5, 1.3, 1.3])
