"""Devices that ignore what they are asked for: others take their share soon, and slow ones lose nothing by it."""

from __future__ import annotations

import pytest

from config.vocabulary import SETPOINT_READBACK_W, DeviceKind, Quality, Quantity, Sample
from gateway.bench.feedback_plant import FeedbackPlant, plant_device, plant_site
from gateway.control.late import DOES_NOT_FOLLOW_YET
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce, OverrideInForce
from gateway.image import DeviceImage, Image
from tests.control.plant import Plant, device, site

FIRST = device("first", DeviceKind.BATTERY, 50e3)
SECOND = device("second", DeviceKind.BATTERY, 50e3)
PV = device("pv", DeviceKind.INVERTER, 40e3)
CHARGER = device("charger", DeviceKind.CHARGER, 22080.0)
FREE = OrdersInForce()


def limit(quantity: Quantity, value_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "l", quantity, value_w),))


def outside_s(trace: list[float], most_w: float) -> float:
    return 0.1 * sum(net_w > most_w + 1e3 for net_w in trace)


def cause(plant: Plant | FeedbackPlant, name: str) -> str:
    assert plant.decision is not None
    return next(one.cause for one in plant.decision.setpoints if one.device == name)


def test_a_battery_that_ignores_its_setpoint_is_made_up_for_within_a_second_and_a_half() -> None:
    plant = Plant(site(FIRST, SECOND), rest_w=30e3)
    plant.run(3, FREE)
    plant.deaf = {"first"}
    trace = plant.run(3, limit(Quantity.NET_IMPORT_W, 10e3))
    assert outside_s(trace, 10e3) <= 1.5, "twice its longest response, and a cycle"
    assert cause(plant, "first") == DOES_NOT_FOLLOW_YET
    assert plant.setpoints_w["first"] < -5e3, "it is still asked for its share"


def test_it_hears_again_and_nothing_is_overshot_by_more_than_a_tenth_of_it() -> None:
    plant = Plant(site(FIRST, SECOND), rest_w=30e3)
    plant.run(3, FREE)
    plant.deaf = {"first"}
    orders = limit(Quantity.NET_IMPORT_W, 10e3)
    plant.run(2, orders)
    plant.deaf = set()
    trace = plant.run(3, orders)
    assert outside_s(trace, 10e3) == 0.0
    assert plant.powers_w["first"] == pytest.approx(-10e3, abs=1e3), "half of it is its share again"
    assert cause(plant, "first") == "dso l"


def test_a_charger_that_ignores_its_ceiling_is_made_up_for_by_the_other() -> None:
    other = device("other", DeviceKind.CHARGER, 22080.0)
    plant = Plant(site(CHARGER, other), rest_w=5e3)
    plant.run(20, FREE)
    plant.deaf = {"charger"}
    trace = plant.run(3, limit(Quantity.NET_IMPORT_W, 35e3))
    assert outside_s(trace, 35e3) <= 1.5
    assert cause(plant, "charger") == DOES_NOT_FOLLOW_YET


def test_sun_that_ignores_its_ceiling_is_taken_up_by_the_battery() -> None:
    plant = Plant(site(PV, FIRST), rest_w=0.0, available_w={"pv": 30e3})
    held = (OverrideInForce("operator", "o", "pv", -10e3, 0.0),)
    plant.run(5, FREE)
    plant.deaf = {"pv"}
    limits = limit(Quantity.NET_EXPORT_W, 12e3).limits
    trace = plant.run(3, OrdersInForce(limits=limits, overrides=held))
    assert 0.1 * sum(net_w < -13e3 for net_w in trace) <= 1.5
    assert cause(plant, "pv") == DOES_NOT_FOLLOW_YET


@pytest.mark.parametrize("times", [0.5, 1.0, 2.0])
def test_a_device_within_a_factor_of_two_is_never_late(times: float) -> None:
    slow = plant_device("slow", DeviceKind.BATTERY, 50e3, 2.0, 1.0)
    plant = FeedbackPlant(plant_site((slow,)), rest_w=10e3, lag_scale=times)
    for target_w in (30e3, -20e3, 10e3):
        for _ in range(60):
            plant.cycle(OrdersInForce(dispatch=DispatchInForce("dso", f"{target_w}", target_w, 0.0, None, 0, 0, None)))
            assert cause(plant, "slow") != DOES_NOT_FOLLOW_YET


def test_one_five_times_slower_than_declared_arrives_all_the_same() -> None:
    devices = (
        plant_device("slow", DeviceKind.BATTERY, 50e3, 0.4, 0.0),
        plant_device("b", DeviceKind.BATTERY, 50e3, 0.2, 0.0),
    )
    plant = FeedbackPlant(plant_site(devices), rest_w=30e3)
    plant.machines["slow"].lag_scale = 5.0
    plant.run(3.0, FREE)
    trace = plant.run(10.0, limit(Quantity.NET_IMPORT_W, 5e3))
    assert all(net_w <= 6e3 for net_w in trace[20:])
    assert plant.machines["slow"].power_w == pytest.approx(-12.6e3, abs=1e3)


class ReadsBack(Plant):
    """Devices that say what they were told: `holds_w` instead of the setpoint where it is given."""

    holds_w: dict[str, float]

    def image(self) -> Image:
        image = super().image()
        devices = dict(image.devices)
        for name, setpoint_w in (self.setpoints_w | self.holds_w).items():
            read = {SETPOINT_READBACK_W: Sample(setpoint_w, Quality.GOOD, self.now_s)}
            devices[name] = DeviceImage({**devices[name].samples, **read}, True)
        return Image(image.now_s, devices)


def test_a_slow_device_that_reads_back_something_else_is_made_up_for_before_its_time_is_over() -> None:
    slow = device("slow", DeviceKind.BATTERY, 50e3, tr90_s=2.0, dead_time_s=1.0)
    plant = ReadsBack(site(slow, SECOND), rest_w=30e3)
    plant.holds_w = {}
    plant.run(20, FREE)
    plant.deaf, plant.holds_w = {"slow"}, {"slow": 0.0}
    plant.run(1, limit(Quantity.NET_IMPORT_W, 10e3))
    assert cause(plant, "slow") == DOES_NOT_FOLLOW_YET
    assert plant.net_w <= 11e3


def test_a_slow_device_that_reads_back_what_it_was_told_has_its_time() -> None:
    slow = device("slow", DeviceKind.BATTERY, 50e3, tr90_s=2.0, dead_time_s=1.0)
    plant = ReadsBack(site(slow, SECOND), rest_w=30e3)
    plant.holds_w = {}
    plant.run(20, FREE)
    for _ in range(60):
        plant.cycle(limit(Quantity.NET_IMPORT_W, 10e3))
        assert cause(plant, "slow") != DOES_NOT_FOLLOW_YET
