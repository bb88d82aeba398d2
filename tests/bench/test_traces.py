"""The pieces of the report's figures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.bench.reports.traces import TimeAxis, reduced, step_line

values = st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=400)


@given(values, st.integers(2, 40))
def test_reducing_keeps_the_extremes_and_the_order(series: list[float | None], points: int) -> None:
    times = [0.1 * index for index in range(len(series))]
    kept_times, kept = reduced(times, series, max_points=50, points=points)
    present = [value for value in series if value is not None]
    if present:
        shown = [value for value in kept if value is not None]
        assert (min(shown), max(shown)) == (min(present), max(present))
    assert list(kept_times) == sorted(kept_times)
    assert set(zip(kept_times, kept, strict=True)) <= set(zip(times, series, strict=True))
    if len(series) > 50:
        assert len(kept) <= points + 1
    else:
        assert kept == series


def test_a_short_run_counts_seconds_from_its_start() -> None:
    axis = TimeAxis(zero_s=100.0, end_s=160.0, utc_zero_s=1.8e9)
    assert (axis.is_clock, axis.x(112.5), axis.width(2.0)) == (False, 12.5, 2.0)


def test_a_long_run_shows_the_time_of_day() -> None:
    axis = TimeAxis(zero_s=100.0, end_s=7300.0, utc_zero_s=1.8e9)
    assert (axis.is_clock, axis.x(112.5), axis.width(2.0)) == (True, 1.8e12 + 12500.0, 2000.0)


def test_a_step_line_holds_to_the_end_of_the_run_and_leaves_repetitions_out() -> None:
    axis = TimeAxis(zero_s=0.0, end_s=10.0, utc_zero_s=None)
    trace = step_line(axis, [(-5.0, 1.0), (2.0, 1.0), (4.0, 3.0), (50.0, 9.0)], "name", "@net")
    assert (trace["x"], trace["y"]) == ([0.0, 4.0, 10.0], [1.0, 3.0, 3.0])
