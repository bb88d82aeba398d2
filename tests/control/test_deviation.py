"""Devices beside their setpoints: made up for at once where the lag cannot explain it, and never chased."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.vocabulary import DeviceKind, Quantity
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.deviation import MOST_PU, NOISE_PU, Deviation, deviation_of
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce

FIRST = plant_device("first", DeviceKind.BATTERY, 50e3, 0.2, 0.0)
SECOND = plant_device("second", DeviceKind.BATTERY, 50e3, 0.2, 0.0)
PV = plant_device("pv", DeviceKind.INVERTER, 50e3, 0.2, 0.0)
RATING_W = 50e3


@dataclass(slots=True)
class Droops(FeedbackPlant):
    """Devices that add a power of their own to what they are asked for."""

    own_w: dict[str, float] = field(default_factory=dict)

    def _goal(self, model):  # type: ignore[no-untyped-def]
        goal = FeedbackPlant._goal(self, model)
        return lambda asked: goal(asked) + self.own_w.get(model.name, 0.0)

    def droop(self, seconds: float, from_w: float, to_w: float, orders: OrdersInForce) -> list[float]:
        """Every device's own power goes from one value to another."""
        trace, cycles = [], round(seconds / self.period_s)
        for count in range(cycles):
            own_w = from_w + (to_w - from_w) * (count + 1) / cycles
            self.own_w = {one.name: own_w for one in self.model.devices}
            trace += self.run(self.period_s, orders)
        return trace


def net_of(power_w: float) -> OrdersInForce:
    return OrdersInForce(dispatch=DispatchInForce("dso", "d", power_w, 0.0, None, 0.0, 0.0, None))


def exports_at_most(power_w: float) -> OrdersInForce:
    return OrdersInForce(
        limits=(LimitInForce("dso", "l", Quantity.NET_EXPORT_W, power_w),), dispatch=net_of(-100e3).dispatch
    )


def outside_s(trace: list[float], lower_w: float) -> float:
    """Seconds beyond a bound by more than 1 % of the rating."""
    return 0.1 * sum(net_w < lower_w - 1e3 for net_w in trace)


def settled(kind: DeviceKind = DeviceKind.BATTERY, tr90_s: float = 0.2, dead_time_s: float = 0.0) -> Deviation:
    found = deviation_of(plant_device("one", kind, RATING_W, tr90_s, dead_time_s))
    assert found is not None
    found.command(0.0, 0.0, 0.0)
    return found


def test_batteries_that_answer_the_frequency_leave_the_export_limit_kept() -> None:
    plant = Droops(plant_site((FIRST, SECOND)), rest_w=5e3)
    orders = exports_at_most(30e3)
    plant.run(5.0, orders)
    trace = plant.droop(3.0, 0.0, -3e3, orders) + plant.run(5.0, orders) + plant.droop(3.0, -3e3, 0.0, orders)
    assert outside_s(trace, -30e3) <= 0.5
    assert plant.run(3.0, orders)[-1] == pytest.approx(-29.8e3, abs=300), "and nothing stays behind"


def test_a_sudden_deviation_is_made_up_for_within_a_cycle_and_the_response() -> None:
    plant = Droops(plant_site((FIRST, SECOND)), rest_w=5e3)
    orders = exports_at_most(30e3)
    plant.run(5.0, orders)
    plant.own_w = {"first": -4e3}
    trace = plant.run(5.0, orders)
    assert outside_s(trace, -30e3) <= 0.5
    assert plant.net_w == pytest.approx(-29.8e3, abs=300)


def test_sun_above_its_ceiling_is_made_up_for_by_the_battery() -> None:
    plant = Droops(plant_site((PV, replace(FIRST, max_w=10e3))), rest_w=5e3, available_w={"pv": 40e3})
    orders = OrdersInForce(limits=exports_at_most(15e3).limits)
    plant.run(8.0, orders)
    plant.own_w = {"pv": -4e3}
    trace = plant.run(5.0, orders)
    assert outside_s(trace, -15e3) <= 1.5


@pytest.mark.parametrize("late_s", [0.5, 1.0, 2.0])
def test_a_device_far_later_than_declared_is_not_chased_for_ever(late_s: float) -> None:
    plant = Droops(plant_site((FIRST, SECOND)), rest_w=10e3)
    for one in plant.machines.values():
        one.model = replace(one.model, dead_time_s=late_s)
    plant.run(5.0, net_of(0.0))
    plant.own_w = {"first": -3e3, "second": -3e3}
    plant.run(30.0, net_of(0.0))
    trace = plant.run(10.0, net_of(0.0))
    assert max(trace) - min(trace) < 3e3, "it comes to rest"


def test_devices_that_deliver_95_percent_are_right_after_one_response() -> None:
    plant = FeedbackPlant(plant_site((FIRST, SECOND)), rest_w=10e3, delivers_pu=0.95)
    plant.run(5.0, net_of(0.0))
    trace = plant.run(5.0, net_of(-60e3))
    assert all(net_w == pytest.approx(-60e3, abs=1e3) for net_w in trace[20:]), "before that the lag may explain it"


@settings(max_examples=100, deadline=None)
@given(st.floats(0.1, 20.0), st.floats(0.0, 5.0), st.floats(0.5, 2.0), st.lists(st.floats(-50e3, 50e3), max_size=4))
def test_a_lag_within_a_factor_of_two_is_no_deviation(
    tr90_s: float, dead_time_s: float, scale: float, asked_w: list[float]
) -> None:
    from gateway.bench.feedback_plant import _Machine

    model: DeviceModel = plant_device("one", DeviceKind.BATTERY, RATING_W, tr90_s, dead_time_s)
    known, machine = settled(tr90_s=tr90_s, dead_time_s=dead_time_s), _Machine(model, scale)
    period_s, now_s = max(tr90_s / 20.0, 0.05), 0.0
    for power_w in asked_w:
        known.command(now_s, power_w, 0.0)
        machine.commands.append((now_s, power_w))
        for _ in range(40):
            now_s += period_s
            machine.advance(now_s, period_s, lambda asked: asked)
            known.sampled(now_s, machine.power_w)
            assert abs(known.value_w) <= 0.01 * RATING_W


def test_noise_is_no_deviation_and_a_device_that_does_not_follow_counts_no_further() -> None:
    known = settled()
    for count in range(50):
        known.sampled(2.0 + 0.1 * count, NOISE_PU * RATING_W * (-1) ** count)
    assert known.value_w == 0.0
    known.sampled(20.0, -30e3)
    assert known.value_w == -MOST_PU * RATING_W


def test_less_sun_than_the_ceiling_is_no_deviation() -> None:
    known = settled(DeviceKind.INVERTER)
    known.command(1.0, -40e3, 0.0)
    known.sampled(5.0, -10e3)
    assert known.value_w == 0.0
    known.sampled(6.0, -44e3)
    assert known.value_w == pytest.approx(-4e3, abs=NOISE_PU * RATING_W)


def test_cars_and_layers_below_have_no_deviation() -> None:
    assert deviation_of(plant_device("car", DeviceKind.CHARGER, 22e3, 0.2, 0.0)) is None
    assert deviation_of(replace(FIRST, controllable=False)) is None


def test_samples_seconds_apart_do_not_make_it_swing() -> None:
    plant = Droops(plant_site((FIRST, SECOND)), Sampling(1.0, 0.4, 2.0), rest_w=10e3)
    plant.run(10.0, net_of(0.0))
    plant.own_w = {"first": -3e3, "second": -3e3}
    trace = plant.run(20.0, net_of(0.0))
    assert all(abs(net_w) < 1e3 for net_w in trace[100:])


def test_what_is_not_written_is_no_deviation() -> None:
    found = deviation_of(replace(FIRST, deadband_w=2e3, write_interval_s=2.0))
    assert found is not None
    found.command(0.0, 0.0, 0.0)
    found.command(10.0, 1.9e3, 0.0)
    found.sampled(30.0, 0.0)
    assert found.value_w == 0.0
    found.command(40.0, 5e3, 0.0)
    found.sampled(41.5, 0.0)
    assert found.value_w == 0.0, "the write may wait for the device's interval"
    found.sampled(50.0, 0.0)
    assert found.value_w < -2e3
