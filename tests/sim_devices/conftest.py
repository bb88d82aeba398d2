"""A site like the demo's, for the twins' tests."""

from __future__ import annotations

from typing import Any

import pytest

from config.site import Site


def _modbus(port: int) -> dict[str, Any]:
    return {"driver": "modbus_tcp", "host": "127.0.0.1", "port": port}


@pytest.fixture
def site_file() -> dict[str, Any]:
    """What a site file with seven devices says; a test may change it before it makes a Site."""
    return {
        "site": "car_park",
        "connection": {"rating_w": 100_000, "meter": "meter"},
        "fallback": {"net_import_w": 50_000, "net_export_w": 20_000},
        "devices": {
            "meter": {"profile": "sunspec_meter", "address": _modbus(5020), "rating_w": 100_000},
            "pv": {
                "profile": "sunspec_inverter",
                "address": _modbus(5021),
                "rating_w": 60_000,
                "twin": {"series": "PV1"},
            },
            "battery": {
                "profile": "sunspec_battery",
                "address": _modbus(5022),
                "rating_w": 50_000,
                "capacity_wh": 100_000,
                "twin": {"noise_w": 20.0},
            },
            "container": {
                "profile": "opcua_battery",
                "address": {"driver": "opcua", "url": "opc.tcp://127.0.0.1:5023/"},
                "rating_w": 30_000,
                "capacity_wh": 60_000,
            },
            "charger_a": {
                "profile": "keba_p30",
                "address": _modbus(5024),
                "rating_w": 22_000,
                "twin": {"evs": [{"plug_in_s": 1.0}]},
            },
            "charger_b": {"profile": "keba_p30", "address": _modbus(5025), "rating_w": 22_000},
            "charger_c": {
                "profile": "goe_charger",
                "address": {"driver": "mqtt", "host": "127.0.0.1", "parameters": {"serial": "012345"}},
                "rating_w": 22_000,
                "twin": {"evs": [{}]},
            },
        },
        "simulation": {"acceleration": 60, "seed": 3},
    }


@pytest.fixture
def site(site_file: dict[str, Any]) -> Site:
    """The site of `site_file`, as it stands."""
    return Site.model_validate(site_file)
