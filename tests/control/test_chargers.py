"""Chargers and their cars as stories: what is counted on, what is offered, and who waits."""

from __future__ import annotations

import pytest

from config.vocabulary import DeviceKind, Quantity
from gateway.control.orders_in_force import DispatchInForce, LimitInForce, OrdersInForce
from tests.control.plant import Plant, device, site

FREE = OrdersInForce()
PV = device("pv", DeviceKind.INVERTER, 60e3)
BATTERY = device("battery", DeviceKind.BATTERY, 50e3)
STEP_W = 690.0
LEAST_W = 4140.0


def charger(number: int, **changes: object) -> object:
    return device(f"charger_{number}", DeviceKind.CHARGER, 22080.0, **changes)


CHARGERS = tuple(device(f"charger_{number}", DeviceKind.CHARGER, 22080.0) for number in (1, 2, 3))


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


@pytest.mark.parametrize("rest_w", [0.0, 5e3, 12e3])
def test_a_charger_that_reports_every_five_seconds_is_not_chased(rest_w: float) -> None:
    plant = Plant(site(*CHARGERS, max_import_w=60e3), rest_w=rest_w, report_s={"charger_3": 5.0})
    plant.model = site(
        *CHARGERS[:2], device("charger_3", DeviceKind.CHARGER, 22080.0, stale_after_s=15.0), max_import_w=60e3
    )
    plant.run(40, FREE)
    trace, asked = [], []
    for _ in range(600):
        plant.cycle(FREE)
        trace.append(plant.net_w)
        asked.append(tuple(plant.setpoints_w.values()))
    assert max(trace) <= 60e3
    assert min(trace) >= 60e3 - 3 * STEP_W
    assert len(set(asked)) <= 3, "and nothing hunts"
