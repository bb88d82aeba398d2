"""Forecasts from a site's own history, what holds while there is none, and how they are judged."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path

import pytest

from gateway.planning.clear_sky import ClearSky, is_available
from gateway.planning.expectation import NO_LOAD, NO_LOAD_AT_ALL, NO_SUN, expect
from gateway.planning.forecast import DAY_S, Band, History, forecast, score
from gateway.planning.history import FILE_NAME, LOAD, SUN, SiteHistory
from gateway.planning.measured import KEPT_STEPS, StepMeans
from gateway.planning.messages import MeasuredStep
from tests.planning.states import NOON_S, planning, state

STEP_S = 900.0
MONDAY_S = NOON_S + 4 * DAY_S


def load_of(begin_s: float) -> float:
    """More on working days, more by day; 1 January 1970 was a Thursday."""
    weekday, hour = (int(begin_s // DAY_S) + 3) % 7, begin_s % DAY_S / 3600.0
    return (6e3 if weekday < 5 else 2e3) + (4e3 if 8 <= hour < 18 else 0.0)


def history(until_s: float, days: int = 14, gaps: frozenset[int] = frozenset()) -> History:
    steps = int(days * DAY_S / STEP_S)
    return History(
        STEP_S,
        {until_s - at * STEP_S: load_of(until_s - at * STEP_S) for at in range(1, steps + 1) if at not in gaps},
    )


def test_days_are_told_apart() -> None:
    for begin_s in (MONDAY_S, NOON_S + 2 * DAY_S, NOON_S):
        band = forecast(history(begin_s), begin_s, 96)
        assert band is not None
        assert band.p50_w == pytest.approx([load_of(begin_s + at * STEP_S) for at in range(96)])


def test_gaps_are_bridged_by_other_days_and_nothing_is_no_forecast() -> None:
    band = forecast(history(MONDAY_S, gaps=frozenset(range(50, 900))), MONDAY_S, 96)
    assert band is not None
    assert all(abs(power - load_of(MONDAY_S + at * STEP_S)) <= 4e3 for at, power in enumerate(band.p50_w))
    assert forecast(History(STEP_S, {}), MONDAY_S, 96) is None


def test_the_last_hour_corrects_what_comes_next_and_is_forgotten() -> None:
    known = history(MONDAY_S)
    high = {at: power + (1e3 if at >= MONDAY_S - 3600.0 else 0.0) for at, power in known.powers_w.items()}
    band = forecast(History(STEP_S, high), MONDAY_S, 96)
    assert band is not None
    assert band.p50_w[0] - load_of(MONDAY_S) == pytest.approx(1e3)
    assert band.p50_w[40] - load_of(MONDAY_S + 40 * STEP_S) < 50.0


def test_a_score_leaves_out_what_was_not_measured() -> None:
    band = Band((0.0,) * 4, (10.0,) * 4, (20.0,) * 4)
    made = score(band, (10.0, None, 30.0, nan))
    assert made is not None
    assert (made.mean_error_w, made.relative, made.inside) == (10.0, 0.5, 0.5)
    assert score(band, (None,) * 4) is None


# Before there is any history


def test_the_first_day_has_a_stated_prior() -> None:
    expected = expect(state(), SiteHistory(STEP_S), None)
    assert expected.assumptions == (NO_LOAD, NO_SUN)
    assert set(expected.load.p50_w) == {5e3}
    assert (set(expected.load.p10_w), set(expected.load.p90_w)) == ({0.0}, {20e3})
    assert expected.sun.p50_w[0] == pytest.approx(15e3, rel=0.1)
    assert expected.sun.p50_w[-1] < 5e3
    blind = expect(state(rest_w=None, sun_rating_w=0.0), SiteHistory(STEP_S), None)
    assert blind.assumptions == (NO_LOAD_AT_ALL,)
    assert set(blind.load.p50_w) == {10e3}


def steps(until_s: float, days: int = 8) -> tuple[MeasuredStep, ...]:
    begins = [until_s - at * STEP_S for at in range(int(days * DAY_S / STEP_S), 0, -1)]
    return tuple(
        MeasuredStep(begin_utc_s=at, rest_w=load_of(at), sun_pu=0.8 if 10 <= at % DAY_S / 3600.0 < 14 else 0.0)
        for at in begins
    )


def test_with_history_there_is_nothing_to_suppose() -> None:
    known = SiteHistory(STEP_S)
    known.take(steps(NOON_S))
    expected = expect(state(utc_s=NOON_S + 450.0, sun_pu=0.8), known, None)
    assert expected.assumptions == ()
    assert expected.sun.p50_w[0] == pytest.approx(24e3)
    assert expected.sun.p50_w[7] == pytest.approx(12e3), "half of the step lies after 14:00"
    assert expected.sun.p50_w[10] == pytest.approx(0.0)
    assert len(expected.load.p50_w) == planning().steps


@pytest.mark.skipif(not is_available(), reason="pvlib is not installed")
def test_the_clear_sky_follows_the_sun() -> None:
    night, noon = ClearSky(48.1, 11.6).at((NOON_S - 12 * 3600.0, NOON_S - 3000.0))
    assert night == 0.0
    assert 0.7 < noon < 1.1
    placed = state(planning=planning(latitude=48.1, longitude=11.6, horizon_h=24))
    expected = expect(placed, SiteHistory(STEP_S), ClearSky(48.1, 11.6))
    assert expected.sun.p50_w[0] == pytest.approx(15e3, rel=0.05)
    assert expected.sun.p50_w[48] == pytest.approx(0.0)
    known = SiteHistory(STEP_S)
    known.take(steps(NOON_S))
    assert expect(placed, known, ClearSky(48.1, 11.6)).sun.p50_w[0] > 15e3


# What is remembered


def test_forecasts_are_held_against_what_came() -> None:
    known = SiteHistory(STEP_S)
    known.take(steps(NOON_S))
    assert known.scores() == {}
    expect(state(), known, None)
    later = [MeasuredStep(begin_utc_s=NOON_S + at * STEP_S, rest_w=9e3, sun_pu=None) for at in range(8)]
    assert known.take(later)
    made, count = known.scores()[LOAD]
    assert count == 4, "what is nearer than an hour does not count"
    assert made.mean_error_w == pytest.approx(1e3)
    assert SUN not in known.scores()


def test_the_history_survives_a_restart_and_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    known = SiteHistory(STEP_S)
    known.take(steps(NOON_S, days=40))
    expect(state(), known, None)
    known.save(path)
    again, trouble = SiteHistory.load(path, STEP_S)
    assert trouble == ""
    assert again.history(LOAD) == known.history(LOAD)
    assert len(again.history(LOAD).powers_w) <= 35 * 96 + 1
    again.take([MeasuredStep(begin_utc_s=NOON_S + 4 * STEP_S, rest_w=9e3, sun_pu=None)])
    assert again.scores()[LOAD][1] == 1
    assert not again.take(steps(NOON_S, days=1)), "what is known is not news"
    assert SiteHistory.load(tmp_path / "none.json", STEP_S)[1] == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "step_s": 900}', "\0" * 9])
def test_a_history_that_cannot_be_read_is_put_aside(content: str, tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(content, encoding="utf-8")
    known, trouble = SiteHistory.load(path, STEP_S)
    assert "put aside" in trouble
    assert known.newest_s == 0.0
    assert [each.name for each in tmp_path.iterdir()] == ["planner_history.bad.json"]


def test_a_history_of_other_steps_is_another_history(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    SiteHistory(300.0).save(path)
    assert json.loads(path.read_text(encoding="utf-8"))["step_s"] == 300.0
    assert "300" in SiteHistory.load(path, STEP_S)[1]


# Control's side


def test_means_are_made_of_whole_enough_steps() -> None:
    means = StepMeans(STEP_S)
    for second in range(2000):
        rest_w = None if second < 700 else 1e3 if second < 1350 else 3e3
        means.add(NOON_S + second, rest_w, 0.5)
    first, second_ = means.steps
    assert first.rest_w is None
    assert first.sun_pu == pytest.approx(0.5)
    assert second_.rest_w == pytest.approx(2e3, abs=5.0)
    assert means.since(first.begin_utc_s) == [second_]


def test_a_clock_that_jumps_makes_gaps_and_no_nonsense() -> None:
    means = StepMeans(STEP_S)
    for utc_s in (NOON_S, NOON_S + 5.0, NOON_S - 7200.0, NOON_S + 1e6, NOON_S + 1e6 + 1.0):
        means.add(utc_s, 1e3, None)
    assert list(means.steps) == []
    for at in range(KEPT_STEPS * 91):
        means.add(NOON_S + 2e6 + at * 10.0, 1e3, None)
    assert len(means.steps) == KEPT_STEPS
