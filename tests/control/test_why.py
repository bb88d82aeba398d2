"""Why under an operator's order: the order is named, and what keeps a device from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config.vocabulary import DeviceKind, Quantity
from gateway.control.orders_in_force import LimitInForce, OrdersInForce, OverrideInForce
from gateway.parent.aggregate import compliance
from gateway.why import explain_decision
from tests.control.plant import Plant, device, site

BATTERY = device("battery", DeviceKind.BATTERY, 50e3)
CHARGER = device("charger", DeviceKind.CHARGER, 22080.0)


def told(plant: Plant, orders: OrdersInForce, name: str) -> dict[str, Any]:
    assert plant.decision is not None
    found: dict[str, Any] = explain_decision(plant.decision, orders, name)["devices"][0]
    return found


def held(name: str, lower_w: float, upper_w: float, *limits: LimitInForce) -> OrdersInForce:
    return OrdersInForce(limits=limits, overrides=(OverrideInForce("operator", "o1", name, lower_w, upper_w),))


def test_a_hold_names_the_operators_bounds_and_not_the_site_files() -> None:
    plant, orders = Plant(site(BATTERY)), held("battery", 5e3, 5e3)
    plant.run(2, orders)
    battery = told(plant, orders, "battery")
    assert (battery["lower_w"], battery["lower_source"]) == (5e3, "operator o1")
    assert (battery["upper_w"], battery["upper_source"]) == (5e3, "operator o1")
    assert battery["cause"] == "operator"


def test_bounds_that_narrow_one_side_leave_the_other_its_source() -> None:
    plant, orders = Plant(site(BATTERY)), held("battery", -5e3, 90e3)
    plant.run(2, orders)
    battery = told(plant, orders, "battery")
    assert (battery["lower_w"], battery["lower_source"]) == (-5e3, "operator o1")
    assert (battery["upper_w"], battery["upper_source"]) == (50e3, "site file")


def test_a_hold_of_a_car_is_limited_by_what_the_car_takes() -> None:
    plant = Plant(site(CHARGER), available_w={"charger": 7e3})
    plant.run(5, OrdersInForce())
    orders = held("charger", 11040.0, 11040.0)
    plant.run(5, orders)
    charger = told(plant, orders, "charger")
    assert charger["cause"] == "operator, limited by what the car takes"
    assert charger["lower_source"] == "operator o1"
    assert charger["upper_source"] == "what the car takes"
    assert charger["upper_w"] == pytest.approx(7e3, rel=0.02)


def test_a_hold_that_yields_to_a_limit_names_the_limit() -> None:
    limit = LimitInForce("dso", "l1", Quantity.NET_IMPORT_W, 12e3)
    plant, orders = Plant(site(BATTERY), rest_w=10e3), held("battery", 5e3, 5e3, limit)
    plant.run(3, orders)
    assert told(plant, orders, "battery")["cause"] == "operator, limited by dso l1"


def test_a_meter_that_is_not_believed_is_what_the_parent_hears_and_not_that_it_is_silent() -> None:
    plant = Plant(site(BATTERY))
    plant.run(1, OrdersInForce(fallback_reason="the meter is frozen"))
    assert plant.decision is not None
    latched = replace(plant.decision, meter="the meter is frozen", unmet=())
    assert compliance(latched).reason == "the meter is not believed"
    assert compliance(replace(latched, meter="")).reason == "the parent is not heard"
