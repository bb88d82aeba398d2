"""States as control sends them, for tests."""

from __future__ import annotations

from typing import Any

from config.planning import Planning, StorageSettings
from gateway.planning.messages import BatteryState, CarState, ConnectionState, PlanMessage, StateMessage

NOON_S = 1_465_473_600.0
"""Thursday, 9 June 2016, 12:00 UTC."""


def planning(**changes: Any) -> Planning:
    return Planning(**({"horizon_h": 4} | changes))


def connection(**changes: Any) -> ConnectionState:
    values: dict[str, Any] = {
        "max_import_w": 50e3,
        "max_export_w": 40e3,
        "fallback_import_w": 10e3,
        "fallback_export_w": None,
        "fallback_holds": False,
        "watts_per_a": 690.0,
        "rest_min_w": 0.0,
        "rest_max_w": 20e3,
    }
    return ConnectionState(**(values | changes))


def battery(**changes: Any) -> BatteryState:
    values: dict[str, Any] = {
        "name": "battery",
        "capacity_wh": 20e3,
        "soc": 0.5,
        "soc_min": 0.05,
        "soc_max": 0.95,
        "charge_w": 10e3,
        "discharge_w": 10e3,
        "settings": StorageSettings(),
    }
    return BatteryState(**(values | changes))


def car(**changes: Any) -> CarState:
    values: dict[str, Any] = {"name": "car", "max_w": 11e3, "needed_wh": 10e3, "leaves_utc_s": NOON_S + 2 * 3600.0}
    return CarState(**(values | changes))


def state(**changes: Any) -> StateMessage:
    values: dict[str, Any] = {
        "id": 1,
        "utc_s": NOON_S,
        "planning": planning(),
        "connection": connection(),
        "rest_w": 5e3,
        "sun_pu": 0.5,
        "sun_rating_w": 30e3,
    }
    return StateMessage(**(values | changes))


def plan(**changes: Any) -> PlanMessage:
    values: dict[str, Any] = {
        "id": 1,
        "status": "optimal",
        "begin_utc_s": NOON_S,
        "valid_s": 900.0,
        "curves": [{"device": "battery_a", "prices_per_kwh": [0.1, 0.3], "powers_w": [10e3, -10e3]}],
    }
    return PlanMessage.model_validate(values | changes)
