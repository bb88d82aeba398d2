"""Chargers and their cars as stories: what is counted on, what is offered, and who waits."""

from __future__ import annotations

import pytest

from config.vocabulary import DeviceKind, Quantity
from gateway.control.model import DeviceModel
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce, OverrideInForce
from tests.control.plant import Plant, device, site

FREE = OrdersInForce()
PV = device("pv", DeviceKind.INVERTER, 60e3)
BATTERY = device("battery", DeviceKind.BATTERY, 50e3)
STEP_W = 690.0
LEAST_W = 4140.0


def charger(number: int, **changes: object) -> DeviceModel:
    return device(f"charger_{number}", DeviceKind.CHARGER, 22080.0, **changes)


CHARGERS = tuple(charger(number) for number in (1, 2, 3))


def limit(quantity: Quantity, value_w: float) -> LimitInForce:
    return LimitInForce("dso", "l1", quantity, value_w)


SELL = DispatchInForce("dso", "d1", -40e3, 0.0, None, 0.0, 0.0, None)


def test_what_a_tapering_car_no_longer_takes_is_not_exported() -> None:
    plant = Plant(site(PV, BATTERY, CHARGERS[0]), rest_w=5e3, available_w={"pv": 36e3, "charger_1": 8e3})
    orders = OrdersInForce(limits=(limit(Quantity.NET_EXPORT_W, 10e3),), dispatch=SELL)
    plant.run(5, orders)
    trace = []
    for percent in range(100, 0, -1):
        plant.available_w["charger_1"] = 80.0 * percent
        trace += plant.run(0.5, orders)
    assert min(trace) >= -10.5e3


def dispatch(net_w: float, order_id: str = "d1") -> OrdersInForce:
    return OrdersInForce(dispatch=DispatchInForce("dso", order_id, net_w, 0.0, None, 0.0, 0.0, None))


def import_limit(value_w: float) -> OrdersInForce:
    return OrdersInForce(limits=(limit(Quantity.NET_IMPORT_W, value_w),))


def asked(plant: Plant) -> list[float]:
    return [plant.setpoints_w[one.name] for one in plant.model.devices if one.kind is DeviceKind.CHARGER]


def longest(trace: list[float], above_w: float, period_s: float) -> float:
    """Seconds in a row above a power."""
    most = now = 0
    for power_w in trace:
        now = now + 1 if power_w > above_w else 0
        most = max(most, now)
    return most * period_s


@pytest.mark.parametrize("takes_w", [22080.0, 16000.0])
@pytest.mark.parametrize("tr90_s", [0.2, 2.0])
def test_a_charger_that_reports_every_five_seconds_is_not_chased(takes_w: float, tr90_s: float) -> None:
    slow = charger(3, tr90_s=tr90_s, stale_after_s=15.0)
    plant = Plant(site(*CHARGERS[:2], slow, max_import_w=60e3), rest_w=5e3, report_s={"charger_3": 5.0})
    plant.available_w["charger_3"] = takes_w
    plant.run(60, FREE)
    for rest_w in (9e3, 5e3, 12e3, 5e3):
        plant.rest_w = rest_w
        trace, changes, before = [], 0, asked(plant)
        for _ in range(300):
            plant.cycle(FREE)
            trace.append(plant.net_w)
            changes += sum(one != other for one, other in zip(asked(plant), before, strict=True))
            before = asked(plant)
        assert longest(trace, 60e3, plant.period_s) <= 0.3 + 2.0 * tr90_s
        assert min(trace[-100:]) >= 60e3 - 4 * STEP_W - LEAST_W / 2
        assert changes <= 24, "it comes to rest, and nothing hunts"


def test_a_car_is_granted_power_only_after_the_room_is_there() -> None:
    slow = charger(1, tr90_s=4.0)
    plant = Plant(site(slow, charger(2), max_import_w=30e3), rest_w=5e3, car_states={"charger_2": "A"})
    plant.run(60, FREE)
    assert plant.powers_w["charger_1"] > 20e3
    plant.car_states["charger_2"] = "C"
    trace = plant.run(60, FREE)
    assert max(trace) <= 30e3
    assert min(asked(plant)) >= 2 * LEAST_W


def test_a_car_that_has_begun_goes_on_for_a_minute_unless_a_limit_says_otherwise() -> None:
    plant = Plant(site(BATTERY, CHARGERS[0]), rest_w=10e3)
    plant.run(5, FREE)
    plant.run(5, dispatch(-45e3))
    assert asked(plant) == [LEAST_W]
    plant.run(55, dispatch(-45e3))
    assert asked(plant) == [0.0]
    plant.run(15, FREE)
    assert asked(plant) == [22080.0]
    plant.run(1, import_limit(0.0))
    plant.soc = 0.0
    plant.run(1, import_limit(0.0))
    assert asked(plant) == [0.0], "a limit does not wait"


def test_a_paused_car_rests_longer_each_time() -> None:
    plant = Plant(site(CHARGERS[0]), rest_w=10e3)
    rests_s = []
    for _ in range(4):
        plant.run(10, FREE)
        assert asked(plant)[0] > 0.0
        plant.run(1, import_limit(12e3))
        assert asked(plant) == [0.0]
        start_s = plant.now_s
        while asked(plant) == [0.0]:
            plant.cycle(FREE)
        rests_s.append(round(plant.now_s - start_s + 1.0))
    assert rests_s == [10, 20, 40, 80]


def test_after_so_many_pauses_a_car_keeps_its_least_current_while_any_limit_allows() -> None:
    plant = Plant(site(BATTERY, charger(1, most_pauses=2, least_on_s=5.0)), rest_w=10e3, period_s=0.2)
    pauses, before_w = 0, 0.0
    for number in range(4):
        for orders, seconds in ((FREE, 100), (dispatch(-45e3, str(number)), 20)):
            for _ in range(round(seconds / plant.period_s)):
                plant.cycle(orders)
                pauses += before_w > 0.0 and asked(plant) == [0.0]
                before_w = asked(plant)[0]
    assert pauses == 2
    assert asked(plant) == [LEAST_W]
    plant.soc = 0.0
    plant.run(1, import_limit(12e3))
    assert asked(plant) == [0.0], "a limit comes first"


def test_a_car_that_does_not_wake_after_a_pause_is_named() -> None:
    plant = Plant(site(CHARGERS[0]), rest_w=10e3)
    plant.run(10, FREE)
    plant.run(2, import_limit(12e3))
    assert asked(plant) == [0.0]
    plant.asleep = {"charger_1"}
    plant.run(60, FREE)
    assert plant.decision is not None
    assert plant.decision.notices == ()
    plant.run(30, FREE)
    assert plant.decision.notices == ("charger_1: the car has not woken after a pause",)
    assert [one.cause for one in plant.decision.setpoints] == ["not woken"]
    assert asked(plant) == [LEAST_W], "it may still wake"
    plant.asleep = set()
    plant.run(5, FREE)
    assert plant.decision.notices == ()
    assert plant.powers_w["charger_1"] > 20e3


def test_a_car_that_wants_nothing_does_not_keep_others_from_charging() -> None:
    plant = Plant(site(*CHARGERS[:2], max_import_w=16e3), rest_w=10e3, asleep={"charger_1"})
    plant.run(60, FREE)
    assert plant.powers_w["charger_2"] == pytest.approx(5520.0, rel=0.01)


def test_cars_have_their_energy_at_departure_where_that_can_be() -> None:
    urgent = charger(1, needed_wh=5000.0, stay_s=1200.0)
    plant = Plant(site(urgent, charger(2), max_import_w=30e3), rest_w=5e3, period_s=0.5)
    for _ in range(2400):
        plant.cycle(FREE)
        assert plant.decision is not None
        assert plant.decision.notices == ()
    assert plant.session_wh["charger_1"] >= 4990.0
    assert plant.session_wh["charger_2"] > 1000.0


def test_a_car_that_cannot_have_its_energy_is_named_in_time() -> None:
    urgent = charger(1, needed_wh=10e3, stay_s=3600.0)
    plant = Plant(site(urgent, max_import_w=14e3), rest_w=8e3, period_s=0.5)
    plant.run(120, FREE)
    assert plant.decision is not None
    assert len(plant.decision.notices) == 1
    assert plant.decision.notices[0].startswith("charger_1: 4.")
    assert plant.decision.notices[0].endswith("kWh will be missing at departure")
    plant.rest_w = 0.0
    plant.run(10, FREE)
    assert plant.decision.notices == (), "what can be, will be"


def test_equal_cars_take_turns_where_not_all_can_charge() -> None:
    cars = tuple(charger(number, turn_s=120.0) for number in (1, 2, 3))
    plant = Plant(site(*cars, max_import_w=20e3), rest_w=10e3, period_s=1.0)
    on_s = dict.fromkeys((one.name for one in cars), 0.0)
    starts = 0
    before = [0.0] * 3
    trace = []
    for _ in range(1800):
        plant.cycle(FREE)
        trace.append(plant.net_w)
        for one, power_w, before_w in zip(cars, asked(plant), before, strict=True):
            on_s[one.name] += plant.period_s * (power_w > 0.0)
            starts += power_w > 0.0 and before_w == 0.0
        before = asked(plant)
    assert max(trace) <= 20e3
    assert min(on_s.values()) >= 0.75 * max(on_s.values())
    assert sum(on_s.values()) >= 0.95 * 2 * 1800.0, "two at any time"
    assert starts <= 2 * 1800.0 / 120.0 + 2


@pytest.mark.parametrize("max_import_w", [14.5e3, 22e3, 45e3])
def test_an_hour_of_noise_makes_few_writes(max_import_w: float) -> None:
    """Noise of 1 % of the rating on load and sun, a limit that binds, and nothing but chargers to keep it.

    At most 180 an hour and device, one in 20 s.
    """
    pv = device("pv", DeviceKind.INVERTER, 20e3)
    model = site(pv, *CHARGERS, max_import_w=max_import_w)
    plant = Plant(model, rest_w=20e3, available_w={"pv": 10e3}, noise_w=1e3, period_s=1.0)
    plant.run(60, FREE)
    changes = dict.fromkeys((one.name for one in model.devices), 0)
    before = dict(plant.setpoints_w)
    for _ in range(3600):
        plant.cycle(FREE)
        for name, power_w in plant.setpoints_w.items():
            changes[name] += power_w != before[name]
        before = dict(plant.setpoints_w)
    assert max(changes.values()) <= 180


def one_phase(number: int, phase: int) -> DeviceModel:
    """A charger of 32 A on one phase."""
    return device(f"charger_{number}", DeviceKind.CHARGER, 7360.0, step_w=230.0, minimum_w=1380.0, phases=(phase,))


def on_phases(*devices: DeviceModel) -> dict[str, tuple[int, ...]]:
    return {one.name: one.phases for one in devices}


def test_each_phase_keeps_its_fuse_and_a_car_on_another_phase_is_not_held_back() -> None:
    cars = one_phase(1, 1), one_phase(2, 2), one_phase(3, 1)
    plant = Plant(site(*cars, fuse_a=40.0), rest_w=30 * 230.0, phase_rest_a=(18.0, 6.0, 6.0), phases=on_phases(*cars))
    for _ in range(400):
        plant.cycle(FREE)
        assert max(plant.phase_currents_a()) <= 40.0
    assert asked(plant)[1] == pytest.approx(7360.0)
    assert sum(asked(plant)) - asked(plant)[1] >= 20 * 230.0
    assert min(asked(plant)) >= 6 * 230.0


def test_a_phase_limit_moves_a_battery_on_all_phases_only_for_what_is_missing() -> None:
    car = one_phase(1, 1)
    model = site(BATTERY, car, fuse_a=40.0)
    plant = Plant(model, rest_w=54 * 230.0, phase_rest_a=(42.0, 6.0, 6.0), phases=on_phases(BATTERY, car))
    plant.run(10, FREE)
    currents_a = []
    for _ in range(300):
        plant.cycle(FREE)
        currents_a.append(plant.phase_currents_a()[0])
    assert max(currents_a) <= 40.0
    assert plant.decision is not None
    assert plant.decision.binding.startswith("fuse L1")
    assert asked(plant)[0] > 0.0, "the battery gives before the car waits"


HOLD = OverrideInForce("operator", "o1", "battery", 20e3, 20e3)


def test_the_operators_hold_yields_to_a_limit_by_the_least() -> None:
    plant = Plant(site(BATTERY), rest_w=20e3)
    plant.run(3, OrdersInForce(overrides=(HOLD,)))
    assert plant.powers_w["battery"] == pytest.approx(20e3, abs=50)
    plant.run(3, OrdersInForce(overrides=(HOLD,), limits=import_limit(30e3).limits))
    assert 30e3 - 500 <= plant.net_w <= 30e3
    assert plant.decision is not None
    assert [text for text in plant.decision.unmet if text.startswith("operator o1: battery is -10")]
    plant.run(3, OrdersInForce(overrides=(HOLD,), dispatch=dispatch(30e3).dispatch))
    assert plant.powers_w["battery"] == pytest.approx(20e3, abs=50), "but not to a dispatch"


def test_a_held_device_stays_where_others_can_keep_the_limit() -> None:
    plant = Plant(site(BATTERY, CHARGERS[0]), rest_w=5e3)
    plant.run(5, OrdersInForce(overrides=(HOLD,)))
    plant.run(5, OrdersInForce(overrides=(HOLD,), limits=import_limit(30e3).limits))
    assert plant.powers_w["battery"] == pytest.approx(20e3, abs=50)
    assert plant.net_w <= 30e3
    assert plant.decision is not None
    assert plant.decision.unmet == ()


def test_a_held_charger_gives_way_to_a_limit_and_takes_its_current_again() -> None:
    held = OrdersInForce(overrides=(OverrideInForce("operator", "o1", "charger_1", 11040.0, 11040.0),))
    plant = Plant(site(CHARGERS[0]), rest_w=10e3)
    plant.run(5, held)
    assert asked(plant) == [11040.0]
    plant.run(3, OrdersInForce(overrides=held.overrides, limits=import_limit(17e3).limits))
    assert plant.net_w <= 17e3
    assert asked(plant) == [9 * STEP_W]
    plant.run(5, held)
    assert asked(plant) == [11040.0]
