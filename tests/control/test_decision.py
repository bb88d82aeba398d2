"""The control cycle as stories: a plant, orders, and what the connection point does."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.vocabulary import Absent, DeviceKind, LimitValue, Quantity
from gateway.control.orders_in_force import (
    DispatchInForce,
    LimitInForce,
    OrdersInForce,
    OverrideInForce,
    RegulationInForce,
)
from tests.control.plant import Plant, device, site

FREE = OrdersInForce()
PV = device("pv", DeviceKind.INVERTER, 60e3)
BATTERY = device("battery", DeviceKind.BATTERY, 50e3)
CHARGERS = tuple(device(f"charger_{number}", DeviceKind.CHARGER, 22080.0) for number in (1, 2, 3))


def limit(quantity: Quantity, value: LimitValue) -> OrdersInForce:
    return OrdersInForce(limits=(LimitInForce("dso", "l1", quantity, value),))


def dispatch(
    power_w: float, since_s: float = 0.0, ramp: float | None = None, reserve_w: float = 0.0
) -> DispatchInForce:
    return DispatchInForce("dso", "d1", power_w, since_s, ramp, reserve_w, reserve_w, None)


def test_without_orders_the_sun_flows_and_the_battery_rests() -> None:
    plant = Plant(site(PV, BATTERY), available_w={"pv": 40e3})
    plant.run(3, FREE)
    assert plant.net_w == pytest.approx(-30e3, abs=100)
    assert plant.setpoints_w == {"pv": -60e3, "battery": 0.0}
    assert plant.decision is not None
    assert {one.cause for one in plant.decision.setpoints} <= {"price", "available power"}


def test_an_export_limit_charges_the_battery_and_holds_within_half_a_second() -> None:
    plant = Plant(site(PV, BATTERY), available_w={"pv": 40e3})
    plant.run(3, FREE)
    trace = plant.run(3, limit(Quantity.NET_EXPORT_W, 10e3))
    assert all(net >= -11e3 for net in trace[4:]), "inside within 0.5 s and 1 % of the rating"
    assert plant.net_w == pytest.approx(-9.8e3, abs=300)
    assert plant.powers_w["pv"] == pytest.approx(-40e3, rel=0.02)
    assert plant.decision is not None
    assert plant.decision.binding == "dso l1"


def test_when_the_battery_is_full_the_sun_is_curtailed_and_comes_back() -> None:
    plant = Plant(site(PV, BATTERY), available_w={"pv": 40e3}, soc=0.99)
    plant.model = site(PV, device("battery", DeviceKind.BATTERY, 50e3, soc_max=0.95))
    plant.run(3, FREE)
    plant.run(3, limit(Quantity.NET_EXPORT_W, 10e3))
    assert plant.net_w == pytest.approx(-9.8e3, abs=400)
    assert plant.powers_w["battery"] == pytest.approx(0, abs=1)
    plant.run(3, FREE)
    assert plant.powers_w["pv"] == pytest.approx(-40e3, rel=0.01)


def test_zero_export_is_a_value_and_means_none() -> None:
    plant = Plant(site(PV), available_w={"pv": 40e3})
    plant.run(4, limit(Quantity.NET_EXPORT_W, 0.0))
    assert 0.0 <= plant.net_w <= 1e3


def test_an_import_limit_discharges_the_battery_before_cars_wait() -> None:
    plant = Plant(site(BATTERY, *CHARGERS), rest_w=20e3)
    plant.run(4, FREE)
    assert plant.net_w == pytest.approx(20e3 + 3 * 22080.0, rel=0.02)
    trace = plant.run(4, limit(Quantity.NET_IMPORT_W, 40e3))
    assert all(net <= 41e3 for net in trace[4:])
    assert plant.powers_w["battery"] == pytest.approx(-46.4e3, abs=1e3)
    assert sum(plant.powers_w[one.name] for one in CHARGERS) == pytest.approx(66.2e3, rel=0.02)


def test_cars_wait_in_whole_amperes_once_the_battery_is_empty() -> None:
    plant = Plant(site(device("battery", DeviceKind.BATTERY, 50e3, soc_min=0.9), *CHARGERS), rest_w=20e3)
    plant.run(4, limit(Quantity.NET_IMPORT_W, 40e3))
    assert 40e3 - 2 * 690 <= plant.net_w <= 40e3
    for one in CHARGERS:
        amperes = plant.setpoints_w[one.name] / 690.0
        assert amperes == pytest.approx(round(amperes))
        assert amperes == 0 or amperes >= 6


def test_devices_that_deliver_95_percent_leave_no_steady_error() -> None:
    plant = Plant(site(BATTERY), rest_w=30e3, delivers_pu=0.95)
    orders = OrdersInForce(dispatch=dispatch(-10e3))
    plant.run(15, orders)
    assert plant.net_w == pytest.approx(-10e3, abs=100)


@pytest.mark.parametrize("meter_lag_s", [0.0, 0.1, 0.25, 0.4, 0.8])
@pytest.mark.parametrize("device_lag_s", [0.0, 0.2])
def test_samples_of_any_age_make_no_limit_cycle(meter_lag_s: float, device_lag_s: float) -> None:
    plant = Plant(site(BATTERY), rest_w=30e3, meter_lag_s=meter_lag_s, device_lag_s=device_lag_s)
    orders = OrdersInForce(dispatch=dispatch(0.0))
    plant.run(4, orders)
    plant.rest_w = 20e3
    trace = plant.run(6, orders)
    assert max(map(abs, trace[40:])) < 500
    assert min(trace) > -12e3, "a step of 10 kW makes no swing beyond itself"


def test_a_dispatch_with_a_ramp_follows_it() -> None:
    plant = Plant(site(BATTERY), rest_w=0.0)
    plant.run(1, FREE)
    orders = OrdersInForce(dispatch=dispatch(20e3, since_s=plant.now_s, ramp=5e3))
    trace = plant.run(2, orders)
    assert trace[-1] == pytest.approx(10e3, abs=1.5e3)
    plant.run(4, orders)
    assert plant.net_w == pytest.approx(20e3, abs=200)


def test_a_regulation_signal_above_zero_lowers_net_power_and_fades_when_lost() -> None:
    plant = Plant(site(BATTERY), rest_w=0.0)

    def orders(received_s: float) -> OrdersInForce:
        regulation = RegulationInForce("dso", 1, 0.5, received_s, 4.0)
        return OrdersInForce(dispatch=dispatch(5e3, reserve_w=20e3), regulation=regulation)

    received_s = plant.now_s
    plant.run(3, orders(received_s))
    assert plant.net_w == pytest.approx(-5e3, abs=200)
    plant.run(8, orders(received_s))
    assert plant.net_w == pytest.approx(5e3, abs=200)


def test_a_limit_holds_against_a_dispatch_that_would_break_it() -> None:
    plant = Plant(site(BATTERY), rest_w=0.0)
    limits = limit(Quantity.NET_IMPORT_W, 10e3).limits
    plant.run(4, OrdersInForce(limits=limits, dispatch=dispatch(30e3)))
    assert plant.net_w <= 10e3
    assert plant.net_w == pytest.approx(9.8e3, abs=300)


def test_two_sources_limit_and_the_tightest_is_named() -> None:
    plant = Plant(site(BATTERY, *CHARGERS), rest_w=20e3)
    limits = (
        LimitInForce("dso", "wide", Quantity.NET_IMPORT_W, 60e3),
        LimitInForce("landlord", "tight", Quantity.NET_IMPORT_W, 30e3),
    )
    plant.run(4, OrdersInForce(limits=limits))
    assert plant.decision is not None
    assert plant.decision.envelope.upper.source == "landlord tight"
    assert plant.net_w <= 30e3


def test_an_unlimited_limit_says_nothing_and_an_unknown_one_brings_the_fallback() -> None:
    plant = Plant(site(PV, BATTERY), available_w={"pv": 40e3})
    plant.run(3, limit(Quantity.NET_EXPORT_W, Absent.UNLIMITED))
    assert plant.net_w == pytest.approx(-30e3, abs=500)
    plant.run(3, limit(Quantity.NET_EXPORT_W, Absent.UNKNOWN))
    assert plant.net_w >= -5e3
    assert plant.decision is not None
    assert "fallback" in plant.decision.envelope.lower.source


def test_before_the_first_contact_the_fallback_holds() -> None:
    plant = Plant(site(PV, BATTERY), available_w={"pv": 40e3})
    plant.run(3, OrdersInForce(fallback_reason="dso not heard yet"))
    assert plant.net_w >= -5e3


@pytest.mark.parametrize(
    ("quantity", "value", "most"),
    [
        (Quantity.GENERATION_W, 15e3, lambda plant: -sum(min(power, 0) for power in plant.powers_w.values())),
        (Quantity.LOAD_W, 40e3, lambda plant: plant.rest_w + sum(max(power, 0) for power in plant.powers_w.values())),
        (Quantity.CONTROLLABLE_LOAD_W, 12e3, lambda plant: sum(max(power, 0) for power in plant.powers_w.values())),
    ],
)
def test_limits_on_parts_of_the_site(quantity: Quantity, value: float, most: object) -> None:
    plant = Plant(site(PV, BATTERY, *CHARGERS), rest_w=15e3, available_w={"pv": 40e3})
    plant.run(3, FREE)
    assert most(plant) > value  # type: ignore[operator]
    plant.run(4, limit(quantity, value))
    assert most(plant) <= value * 1.01  # type: ignore[operator]


def test_a_current_limit_bounds_import_and_export() -> None:
    plant = Plant(site(BATTERY, *CHARGERS), rest_w=20e3)
    plant.run(4, limit(Quantity.CURRENT_PER_PHASE_A, 50.0))
    assert plant.net_w <= 50 * 3 * 230


def test_the_operator_holds_one_device_and_the_others_keep_the_limit() -> None:
    plant = Plant(site(BATTERY, device("battery_b", DeviceKind.BATTERY, 30e3)), rest_w=20e3)
    held = (OverrideInForce("operator", "o1", "battery", 5e3, 5e3),)
    limits = limit(Quantity.NET_IMPORT_W, 10e3).limits
    plant.run(3, OrdersInForce(limits=limits, overrides=held))
    assert plant.powers_w["battery"] == pytest.approx(5e3, abs=50)
    assert plant.net_w <= 10e3


def test_a_lost_device_is_part_of_the_rest_and_the_others_take_its_share() -> None:
    second = device("battery_b", DeviceKind.BATTERY, 30e3)
    plant = Plant(site(BATTERY, second), rest_w=30e3)
    orders = limit(Quantity.NET_IMPORT_W, 10e3)
    plant.run(3, orders)
    assert plant.powers_w["battery_b"] < -5e3
    plant.lost = {"battery_b"}
    plant.setpoints_w["battery_b"] = 0.0
    plant.run(3, orders)
    assert plant.net_w <= 10e3
    plant.lost = set()
    plant.run(3, orders)
    assert plant.powers_w["battery_b"] < -5e3


def test_a_lost_meter_widens_the_rest_and_keeps_the_worst_case_inside() -> None:
    plant = Plant(site(BATTERY, *CHARGERS), rest_w=20e3)
    orders = limit(Quantity.NET_IMPORT_W, 60e3)
    plant.run(3, orders)
    plant.meter_good = False
    plant.run(1, orders)
    plant.rest_w = 24e3
    plant.run(10, orders)
    assert plant.net_w + (50e3 - 24e3) <= 61e3, "even at the declared most of the rest"
    assert plant.decision is not None
    assert plant.decision.net_w is None
    plant.meter_good = True
    plant.run(8, orders)
    assert plant.net_w == pytest.approx(59.8e3, abs=1.5e3)


def test_nothing_is_written_before_the_meter_was_read_but_not_for_ever() -> None:
    plant = Plant(site(BATTERY), rest_w=20e3, meter_good=False)
    assert plant.cycle(FREE).setpoints == ()
    plant.run(6, FREE)
    assert plant.decision is not None
    assert plant.decision.setpoints


def test_what_cannot_be_kept_is_said_with_its_source() -> None:
    plant = Plant(site(BATTERY), rest_w=80e3)
    plant.run(3, limit(Quantity.NET_IMPORT_W, 10e3))
    assert plant.powers_w["battery"] == pytest.approx(-50e3, abs=100), "the least possible violation"
    assert plant.decision is not None
    assert plant.decision.unmet[0].startswith("dso l1")


def test_an_idle_socket_is_held_low() -> None:
    plant = Plant(site(CHARGERS[0]), car_state="A")
    plant.run(1, FREE)
    assert plant.setpoints_w["charger_1"] == 0.0


def test_a_car_that_comes_is_charged_with_and_without_a_target() -> None:
    for orders in (FREE, OrdersInForce(dispatch=dispatch(20e3))):
        plant = Plant(site(BATTERY, CHARGERS[0]), rest_w=10e3, car_state="A")
        plant.run(2, orders)
        assert plant.setpoints_w["charger_1"] == 0.0
        plant.car_state = "C"
        plant.run(6, orders)
        assert plant.powers_w["charger_1"] == pytest.approx(22080, rel=0.02)


def test_a_car_that_does_not_draw_is_not_counted_on_and_may_still_wake() -> None:
    plant = Plant(site(BATTERY, CHARGERS[0]), rest_w=10e3, available_w={"charger_1": 0.0})
    orders = OrdersInForce(dispatch=dispatch(20e3))
    plant.run(10, orders)
    assert plant.net_w == pytest.approx(20e3, abs=100), "no power is reserved for it"
    assert plant.setpoints_w["charger_1"] == 4140.0, "but it is offered the least"
    plant.available_w["charger_1"] = 11040.0
    plant.run(4, orders)
    assert plant.powers_w["charger_1"] == pytest.approx(11040.0, rel=0.02)
    assert plant.net_w == pytest.approx(20e3, abs=800)


@pytest.mark.parametrize(
    "orders",
    [
        limit(Quantity.CONTROLLABLE_LOAD_W, 2e3),
        limit(Quantity.LOAD_W, 12e3),
        OrdersInForce(dispatch=dispatch(-45e3)),
        limit(Quantity.NET_IMPORT_W, 0.0),
    ],
)
def test_a_charger_without_room_is_paused_once_and_stays_so(orders: OrdersInForce) -> None:
    plant = Plant(site(device("battery", DeviceKind.BATTERY, 10e3), *CHARGERS[:2]), rest_w=10e3)
    plant.run(61, FREE)
    plant.run(2, orders)
    asked = []
    for _ in range(80):
        plant.cycle(orders)
        asked.append([plant.setpoints_w[one.name] for one in CHARGERS[:2]])
    assert asked == [[0.0, 0.0]] * 80
    plant.run(15, FREE)
    assert plant.powers_w["charger_1"] > 20e3, "and it comes back"


def test_a_read_only_device_is_part_of_the_rest_and_the_limit_is_kept() -> None:
    plant = Plant(site(BATTERY, device("other", DeviceKind.BATTERY, 30e3, controllable=False)), rest_w=20e3)
    plant.setpoints_w["other"] = 15e3
    plant.run(4, limit(Quantity.NET_IMPORT_W, 10e3))
    assert plant.net_w <= 10e3
    assert plant.powers_w["other"] == pytest.approx(15e3, abs=10)


def test_a_device_that_does_not_follow_is_named_and_the_others_take_its_share() -> None:
    stubborn = device("stubborn", DeviceKind.BATTERY, 30e3)
    plant = Plant(site(stubborn, BATTERY), rest_w=20e3, deaf={"stubborn"})
    plant.run(1, FREE)
    plant.run(10, limit(Quantity.NET_IMPORT_W, 2e3))
    assert plant.net_w <= 2e3
    assert plant.decision is not None
    assert [one.cause for one in plant.decision.setpoints] == ["does not follow", "dso l1"]


def test_what_is_measured_beside_a_limit_is_unmet_whatever_was_planned() -> None:
    plant = Plant(site(device("battery", DeviceKind.BATTERY, 50e3, tr90_s=30.0)), rest_w=20e3)
    orders = limit(Quantity.NET_IMPORT_W, 5e3)
    plant.run(1, orders)
    assert plant.decision is not None
    assert plant.decision.unmet == (), "it has a moment"
    plant.run(3, orders)
    assert plant.decision.unmet[0].startswith("dso l1: measured +")
    plant.run(90, orders)
    assert plant.decision.unmet == ()


limit_values = st.one_of(st.sampled_from([Absent.UNLIMITED, Absent.UNKNOWN]), st.floats(0, 100e3))
any_limit = st.builds(LimitInForce, st.just("dso"), st.just("l"), st.sampled_from(list(Quantity)), limit_values)
any_orders = st.builds(
    OrdersInForce,
    limits=st.lists(any_limit, max_size=4).map(tuple),
    dispatch=st.one_of(st.none(), st.floats(-100e3, 100e3).map(dispatch)),
    fallback_reason=st.sampled_from(["", "dso silent"]),
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(any_orders, st.floats(0, 60e3), st.floats(0, 60e3), st.booleans()), min_size=1, max_size=6),
    st.floats(0.0, 1.0),
)
def test_no_orders_and_no_image_make_a_setpoint_outside_the_bounds(
    story: list[tuple[OrdersInForce, float, float, bool]], soc: float
) -> None:
    plant = Plant(site(PV, BATTERY, *CHARGERS), soc=soc)
    for orders, rest_w, available_w, meter_good in story:
        plant.rest_w, plant.available_w["pv"], plant.meter_good = rest_w, available_w, meter_good
        for _ in range(3):
            decision = plant.cycle(orders)
            for setpoint in decision.setpoints:
                model = next(one for one in plant.model.devices if one.name == setpoint.device)
                assert model.min_w - 1e-6 <= setpoint.power_w <= model.max_w + 1e-6
                if model.kind is DeviceKind.CHARGER:
                    assert setpoint.power_w == 0 or setpoint.power_w >= 4140 - 1e-6
