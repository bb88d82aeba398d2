"""A meter that lies: our own steps must show in it, with the right sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from config.vocabulary import DeviceKind, Quantity
from gateway.bench.feedback_plant import FeedbackPlant, Sampling, plant_device, plant_site
from gateway.control.meter_trust import Trust
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce

DEVICES = (
    plant_device("battery", DeviceKind.BATTERY, 50e3, 0.5, 0.1),
    plant_device("pv", DeviceKind.INVERTER, 40e3, 1.0, 0.0),
)


def dispatch(net_w: float, name: str) -> OrdersInForce:
    return OrdersInForce(dispatch=DispatchInForce("dso", name, net_w, 0.0, None, 0.0, 0.0, None))


def trusted(plant: FeedbackPlant) -> Trust:
    assert plant.state is not None
    return plant.state.connection.trust.state


def site(
    sampling: Sampling | None = None, noise_w: float = 200.0, devices: tuple[DeviceModel, ...] = DEVICES
) -> FeedbackPlant:
    plant = FeedbackPlant(plant_site(devices), sampling or Sampling(), noise_w=noise_w, available_w={"pv": 20e3})
    plant.run(20.0, dispatch(0.0, "start"))
    return plant


def reversed_sign(net_w: float) -> float:
    return -net_w


def fallen_clamp(noise: Random) -> Callable[[float], float]:
    return lambda net_w: noise.gauss(0.0, 100.0)


@pytest.mark.parametrize("fault", ["frozen", "reversed", "fallen clamp"])
@pytest.mark.parametrize("meter_interval_s", [0.1, 1.0])
def test_a_lying_meter_is_doubted_after_one_step_and_latched_by_the_next(fault: str, meter_interval_s: float) -> None:
    plant = site(Sampling(meter_interval_s=meter_interval_s))
    frozen_w = plant.net_w
    plant.shows = {
        "frozen": lambda net_w: frozen_w,
        "reversed": reversed_sign,
        "fallen clamp": fallen_clamp(Random(2)),
    }[fault]
    plant.run(5.0, dispatch(0.0, "start"))
    for number in range(4):
        plant.run(30.0 * max(meter_interval_s, 0.5), dispatch(-20e3 if number % 2 else 15e3, f"step {number}"))
        if trusted(plant) is Trust.LATCHED:
            break
    assert trusted(plant) is Trust.LATCHED
    assert plant.decision is not None
    assert plant.decision.meter.startswith("the meter is ")
    assert plant.decision.net_w is None, "what it says is not told as measured"
    assert "fallback (the meter is" in plant.decision.envelope.upper.source, "fail-safe, with its reason"


def latched(pv: DeviceModel = DEVICES[1]) -> FeedbackPlant:
    plant = site(devices=(DEVICES[0], pv))
    plant.shows = reversed_sign
    for number in range(4):
        plant.run(15.0, dispatch(-20e3 if number % 2 else 15e3, f"step {number}"))
    assert trusted(plant) is Trust.LATCHED
    return plant


def test_fail_safe_stays_until_the_operator_releases_it() -> None:
    plant = latched()
    plant.shows = lambda net_w: net_w
    plant.run(60.0, dispatch(10e3, "same"))
    assert trusted(plant) is Trust.LATCHED, "a good reading proves nothing while nothing moves"
    released = OrdersInForce(meter_released="o7")
    plant.run(1.0, released)
    assert trusted(plant) is Trust.GOOD
    assert plant.decision is not None
    assert plant.decision.meter == ""
    plant.shows = reversed_sign
    for number in range(4):
        orders = dispatch(-20e3 if number % 2 else 15e3, f"again {number}")
        plant.run(15.0, OrdersInForce(dispatch=orders.dispatch, meter_released="o7"))
    assert trusted(plant) is Trust.LATCHED, "one word releases once"


def test_a_meter_that_shows_three_steps_in_a_row_is_believed_again() -> None:
    plant = latched(replace(DEVICES[1], controllable=False))
    plant.shows = lambda net_w: net_w
    plant.command("pv", -40e3)
    plant.run(15.0, dispatch(10e3, "same"))
    for number in range(4):
        plant.available_w["pv"] = 20e3 if number % 2 else 2e3
        plant.run(15.0, dispatch(10e3, "same"))
        if number < 1:
            assert trusted(plant) is Trust.LATCHED
    assert trusted(plant) is Trust.GOOD


def test_a_load_that_the_battery_cancels_looks_like_no_frozen_meter() -> None:
    plant = site(noise_w=0.0)
    orders = OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_IMPORT_W, 5e3),))
    for load_w in (10e3, 45e3, 12e3, 50e3, 0.0, 38e3):
        plant.rest_w = load_w
        plant.run(8.0, orders)
        assert trusted(plant) is Trust.GOOD
    for number in range(200):
        plant.rest_w = 10e3 + 200.0 * number
        plant.run(0.2, orders)
    assert trusted(plant) is Trust.GOOD, "nor does a ramp"


@pytest.mark.parametrize("seed", range(6))
def test_noise_slow_meters_and_orders_at_any_time_raise_no_alarm(seed: int) -> None:
    rng = Random(seed)
    sampling = Sampling(rng.choice([0.1, 1.0, 5.0]), rng.choice([0.0, 0.4]), rng.choice([0.1, 1.0, 5.0]))
    plant = site(sampling, noise_w=500.0)
    plant.lag_scale = rng.choice([0.5, 1.0, 2.0])
    plant.rng = rng
    orders = dispatch(0.0, "start")
    for number in range(150):
        if rng.random() < 0.15:
            plant.rest_w = rng.uniform(0.0, 40e3)
        if rng.random() < 0.1:
            plant.available_w["pv"] = rng.uniform(0.0, 40e3)
        if rng.random() < 0.2:
            orders = dispatch(rng.uniform(-30e3, 30e3), f"order {number}")
        plant.run(2.0, orders)
        assert trusted(plant) is not Trust.LATCHED
    assert trusted(plant) is Trust.GOOD
