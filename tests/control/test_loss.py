"""Loss: what may happen without being asked is reserved, and never at the cost of what can be kept now."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan
from types import MappingProxyType

import pytest

from config.loading import load_profile, shipped_profiles
from config.site import Site
from config.vocabulary import (
    POWER_W,
    SETPOINT_READBACK_W,
    SOC,
    DeviceKind,
    Quality,
    Quantity,
    Sample,
    WriteResult,
    WriteStatus,
)
from gateway.bench.feedback_plant import FeedbackPlant, plant_device, plant_site
from gateway.control.decision import decide, initial_state
from gateway.control.loss import possible_w
from gateway.control.model import build_site_model
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce
from gateway.control.trajectory import Trajectory
from gateway.image import DeviceImage, Image, ImageInbox

FIRST = plant_device("first", DeviceKind.BATTERY, 50e3, 0.2, 0.0)
SECOND = plant_device("second", DeviceKind.BATTERY, 50e3, 0.2, 0.0)
REVERTING = replace(SECOND, reverted_w=(0.0, 0.0), reverts_from_s=20.0, reverts_by_s=30.0)
PV = plant_device("pv", DeviceKind.INVERTER, 40e3, 0.5, 0.0)
LETS_GO = replace(PV, reverted_w=(-40e3, 0.0), reverts_from_s=20.0, reverts_by_s=30.0)

ANYWHERE = {"driver": "modbus_tcp", "host": "127.0.0.1"}


def imports_at_most(limit_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_IMPORT_W, limit_w),))


def exports_at_most(limit_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "l", Quantity.NET_EXPORT_W, limit_w),))


def lose(plant: FeedbackPlant, device: str) -> None:
    plant.lost.add(device)


def test_a_lost_battery_keeps_its_command_and_its_reversion_is_prepared_for() -> None:
    plant = FeedbackPlant(plant_site((FIRST, REVERTING)), rest_w=40e3)
    plant.run(5.0, imports_at_most(10e3))
    assert plant.machines["second"].power_w == pytest.approx(-15.1e3, abs=500)
    lose(plant, "second")
    plant.run(18.0, imports_at_most(10e3))
    assert plant.net_w == pytest.approx(9.8e3, abs=300), "nothing is given away while it can't revert yet"
    plant.run(4.0, imports_at_most(10e3))
    assert plant.net_w == pytest.approx(9.8e3 - 15.1e3, abs=500), "then its share is held ready"
    plant.command("second", 0.0)
    assert all(net_w <= 10e3 for net_w in plant.run(15.0, imports_at_most(10e3))), (
        "so that its reversion breaks nothing"
    )
    assert plant.net_w == pytest.approx(9.8e3, abs=300), "and once it has come, nothing is held any more"


def test_an_inverter_that_will_let_go_of_its_limit_is_reserved_for() -> None:
    plant = FeedbackPlant(plant_site((FIRST, LETS_GO)), rest_w=0.0, available_w={"pv": 40e3}, soc=0.5)
    plant.model = plant_site((replace(FIRST, max_w=20e3), LETS_GO))
    plant.run(15.0, exports_at_most(5e3))
    assert plant.net_w >= -5e3
    lose(plant, "pv")
    plant.run(22.0, exports_at_most(5e3))
    assert plant.machines["first"].power_w == pytest.approx(20e3, abs=500), "all that can be done is done before"


def test_without_a_meter_a_lost_device_counts_by_what_it_may_do() -> None:
    known = Trajectory(0.2, 0.0)
    known.add(0.0, -10e3)
    known.command(0.0, -10e3, 50e3, 1e3)
    assert possible_w(REVERTING, known, 5.0, 0.5) == (-10e3, -10e3)
    assert possible_w(REVERTING, known, 25.0, 0.5) == (-10e3, 0.0)
    assert possible_w(REVERTING, known, 60.0, 0.5) == (0.0, 0.0)
    assert possible_w(SECOND, known, 600.0, 0.5) == (-10e3, -10e3), "one that holds, holds"
    assert possible_w(SECOND, None, 0.0, 0.5) == (-50e3, 50e3), "one never heard may do anything"


def test_when_meter_and_device_are_lost_the_device_is_not_forgotten() -> None:
    plant = FeedbackPlant(plant_site((FIRST, REVERTING)), rest_w=20e3)
    plant.run(5.0, imports_at_most(60e3))
    plant.command("second", 30e3)
    plant.machines["second"].power_w = 30e3
    plant.run(0.2, OrdersInForce(dispatch=DispatchInForce("dso", "d", 60e3, 0.0, None, 0.0, 0.0, None)))
    plant.shows = lambda net_w: None
    lose(plant, "second")
    held_w = plant.machines["second"].power_w
    trace = plant.run(3.0, imports_at_most(40e3))
    assert held_w > 5e3
    assert trace[-1] <= 40e3


def test_a_write_without_an_answer_counts_as_either_value_until_it_is_read_back() -> None:
    plant = FeedbackPlant(plant_site((FIRST, SECOND)), rest_w=40e3)
    plant.run(5.0, imports_at_most(60e3))
    assert plant.net_w == pytest.approx(40e3, abs=100)
    plant.cycle(imports_at_most(20e3))
    plant.unanswered = {"second": plant.now_s}
    plant.machines["second"].commands.clear()
    plant.machines["second"].asked_w = 0.0
    trace = plant.run(1.0, imports_at_most(20e3))
    assert trace[-1] <= 20e3, "the first one gives what the second may not"
    assert plant.decision is not None
    asked = {one.device: one.power_w for one in plant.decision.setpoints}
    assert asked["first"] < asked["second"] - 5e3 or asked["first"] + asked["second"] < -25e3
    plant.unanswered = {}
    plant.run(3.0, imports_at_most(20e3))
    assert plant.net_w == pytest.approx(19.8e3, abs=500), "answered, nothing is held any more"


def test_a_read_back_ends_the_doubt_about_a_write() -> None:
    model, now_s = plant_site((FIRST, SECOND)), 100.0
    state = initial_state(model)

    def image(readback: float | None) -> Image:
        good = {POWER_W: Sample(0.0, Quality.GOOD, now_s), SOC: Sample(0.5, Quality.GOOD, now_s)}
        told = {} if readback is None else {SETPOINT_READBACK_W: Sample(readback, Quality.GOOD, now_s)}
        devices = {
            "meter": DeviceImage({POWER_W: Sample(40e3, Quality.GOOD, now_s)}, True),
            "first": DeviceImage(good, True),
            "second": DeviceImage(good | told, True),
        }
        return Image(now_s, MappingProxyType(devices), MappingProxyType({"second": now_s - 0.05}))

    def sum_w(orders: OrdersInForce, readback: float | None = None) -> float:
        nonlocal now_s
        now_s += 0.1
        return sum(one.power_w for one in decide(model, image(readback), orders, state).setpoints)

    sum_w(imports_at_most(60e3))
    assert sum_w(imports_at_most(20e3)) == pytest.approx(-20.2e3, abs=1)
    assert sum_w(imports_at_most(20e3)) == pytest.approx(-30.3e3, abs=1), "it may still hold the 0 W from before"
    asked_w = state.connection.trajectories["second"].asked_w
    assert sum_w(imports_at_most(20e3), asked_w) == pytest.approx(-20.2e3, abs=1)


@pytest.mark.parametrize("power_w", [500e3, -500e3, nan, inf, -inf])
def test_an_impossible_power_is_no_value(power_w: float) -> None:
    plant = FeedbackPlant(plant_site((FIRST, SECOND)), rest_w=40e3)
    plant.run(3.0, imports_at_most(10e3))
    image = plant.image()
    lying = {**image.devices, "second": DeviceImage({POWER_W: Sample(power_w, Quality.GOOD, plant.now_s)}, True)}
    assert plant.state is not None
    for number in range(20):
        now = Image(plant.now_s + 0.1 * number, MappingProxyType(lying))
        decision = decide(plant.model, now, imports_at_most(10e3), plant.state)
        asked = {one.device: one.power_w for one in decision.setpoints}
        assert set(asked) == {"first"}
        assert -50e3 <= asked["first"] <= 50e3


@pytest.mark.parametrize("soc", [1.4, -0.2, nan, inf])
def test_an_impossible_state_of_charge_holds_the_battery_at_nothing(soc: float) -> None:
    plant = FeedbackPlant(plant_site((FIRST,)), rest_w=40e3, soc=soc)
    plant.run(1.0, imports_at_most(10e3))
    assert plant.decision is not None
    assert [(one.power_w, one.cause) for one in plant.decision.setpoints] == [(0.0, "state of charge unknown")]


@pytest.mark.parametrize("reading", [nan, inf, -inf, 5e6])
def test_an_impossible_meter_reading_is_a_lost_meter(reading: float) -> None:
    plant = FeedbackPlant(plant_site((FIRST,)), rest_w=40e3)
    plant.run(3.0, imports_at_most(10e3))
    plant.shows = lambda net_w: reading
    plant.run(1.0, imports_at_most(10e3))
    assert plant.decision is not None
    assert plant.decision.net_w is None
    assert plant.decision.rest_upper_w is not None
    assert plant.decision.rest_upper_w > 42e3, "the rest widens"


def test_the_image_says_which_writes_have_no_answer() -> None:
    inbox = ImageInbox(lambda result: None, lambda *told: None)
    assert inbox.switch(1.0).unanswered == {}
    inbox.write_result(WriteResult("first", 1, WriteStatus.INDETERMINATE, 0.9))
    inbox.write_result(WriteResult("second", 2, WriteStatus.ACKNOWLEDGED, 0.95))
    before = inbox.switch(1.0)
    inbox.write_result(WriteResult("first", 3, WriteStatus.REFUSED, 1.1))
    assert inbox.switch(1.1).unanswered == {"first": 0.9}, "a refusal says nothing of the one before"
    inbox.write_result(WriteResult("first", 4, WriteStatus.ACKNOWLEDGED, 1.2))
    assert inbox.switch(1.2).unanswered == {}
    assert before.unanswered == {"first": 0.9}, "an image stays as it was"


@pytest.mark.parametrize(
    ("profile", "reverted_w", "from_s", "by_s"),
    [
        ("sunspec_battery", (0.0, 0.0), 0.0, 10.0),
        ("solaredge_inverter", (-10e3, 0.0), 0.0, 60.0),
        ("phoenix_charx", (0.0, 4140.0), 0.0, 30.0),
        ("goe_charger", None, 0.0, 0.0),
    ],
)
def test_what_silence_leaves_a_device_is_in_its_profile(
    profile: str, reverted_w: tuple[float, float] | None, from_s: float, by_s: float
) -> None:
    shipped = shipped_profiles()
    meter, known = load_profile(shipped["sunspec_meter"]), load_profile(shipped[profile])
    site = Site.model_validate(
        {
            "site": "one",
            "connection": {"rating_w": 50e3, "meter": "meter"},
            "fallback": {"net_import_w": 10e3, "net_export_w": 10e3},
            "devices": {
                "meter": {"profile": "sunspec_meter", "address": ANYWHERE, "rating_w": 50e3},
                "device": {"profile": profile, "address": ANYWHERE, "rating_w": 10e3},
            },
        }
    )
    model = build_site_model(site, {"meter": meter, "device": known}).devices[0]
    assert model.reverted_w == reverted_w
    assert model.reverts_by_s == by_s
    assert from_s <= model.reverts_from_s <= by_s
