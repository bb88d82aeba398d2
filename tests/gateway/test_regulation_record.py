"""The live figures of regulation are those of the bench, and need no more memory the longer it takes."""

from __future__ import annotations

from math import sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.vocabulary import DeviceKind
from gateway.bench.scores import regulation_score
from gateway.control.orders_in_force import DispatchInForce, OrdersInForce, RegulationInForce
from gateway.cycle import CycleReport
from gateway.regulation_record import FORGOTTEN_S, RegulationRecord
from tests.control.plant import Plant, device, site

PERIOD_S = 0.2
STEP_S = 0.5


def recorded(times: list[float], asked_w: list[float], given_w: list[float]) -> RegulationRecord:
    record = RegulationRecord(PERIOD_S)
    for values in zip(times, asked_w, given_w, strict=True):
        record.take(*values)
    return record


@settings(max_examples=6, deadline=None)
@given(
    st.floats(0.0, 40.0),
    st.floats(0.3, 1.2),
    st.floats(0.0, 20e3),
    st.lists(st.integers(0, 1200), max_size=3),
    st.data(),
)
def test_they_are_the_same_as_the_benchs(
    later_s: float, gain: float, offset_w: float, gaps: list[int], data: st.DataObject
) -> None:
    period_s, last_s = data.draw(st.floats(40.0, 400.0)), data.draw(st.floats(620.0, 950.0))
    times, at_s = [], 1000.0
    while at_s < 1000.0 + last_s:
        times.append(at_s)
        # A gap of a while now and then.
        at_s += 7.0 if len(times) in gaps else STEP_S
    asked_w = [30e3 * sin(2.0 * 3.14 * at / period_s) for at in times]
    given_w = [gain * 30e3 * sin(2.0 * 3.14 * (at - later_s) / period_s) + offset_w for at in times]
    expected = regulation_score(times, asked_w, given_w)
    found = recorded(times, asked_w, given_w).figures()
    if expected is None:
        assert found.score is None
        return
    assert found.precision == pytest.approx(expected.precision, abs=1e-6)
    assert found.windows == expected.windows
    assert found.correlation == pytest.approx(expected.correlation, abs=1e-6)
    assert found.delay == pytest.approx(expected.delay, abs=1e-6)
    assert found.score == pytest.approx(expected.score, abs=1e-6)


def test_precision_is_there_after_ten_seconds_and_the_score_after_ten_minutes() -> None:
    record = RegulationRecord(PERIOD_S)
    known: dict[str, float] = {}
    for count in range(2 * 620):
        at_s = count * STEP_S
        record.take(at_s, 1e3 * sin(at_s / 30.0), 1e3 * sin(at_s / 30.0))
        figures = record.figures()
        known |= {"precision": at_s} if "precision" not in known and figures.precision is not None else {}
        known |= {"score": at_s} if "score" not in known and figures.score is not None else {}
    assert known == {"precision": 10.0, "score": 600.0}
    assert record.shown()["score"] == pytest.approx(1.0)


def test_a_long_pause_begins_anew_and_a_short_one_does_not() -> None:
    record = recorded([0.0, 0.5, 1.0], [1e3] * 3, [0.0] * 3)
    for count in range(40):
        record.take(1.5 + count * STEP_S, 1e3, 0.0)
    assert record.figures().precision == 0.0
    record.take(100.0, 1e3, 1e3)
    assert record.figures().precision == 0.0
    record.take(100.0 + FORGOTTEN_S + 1.0, 1e3, 1e3)
    assert record.figures().precision is None


def test_a_site_that_follows_a_signal_shows_it() -> None:
    battery = device("battery", DeviceKind.BATTERY, 50e3)
    plant, record = Plant(site(battery), rest_w=0.0), RegulationRecord(0.1)
    dispatch = DispatchInForce("dso", "d", 5e3, 0.0, None, 20e3, 20e3, None)
    signals = [0.5, 0.25, 0.75, 1.0, 0.5, 0.0]
    for number, signal in enumerate(signals):
        regulation = RegulationInForce("dso", number, signal, plant.now_s, 4.0)
        orders = OrdersInForce(dispatch=dispatch, regulation=regulation)
        for _ in range(20):
            decision = plant.cycle(orders)
            record.see(CycleReport(decision, orders, plant.now_s, None, 0.0, 0))
    shown = record.shown()
    assert shown["precision"] > 0.9
    assert shown["windows"] == 0
    assert (shown["asked_w"], shown["given_w"]) == pytest.approx((0.0, 0.0), abs=200)
    record.see(CycleReport(decision, OrdersInForce(dispatch=dispatch), plant.now_s, None, 0.0, 0))
    assert record.shown()["asked_w"] is None, "nothing is asked without a signal"
