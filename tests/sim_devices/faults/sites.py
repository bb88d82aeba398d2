"""Sites of one device, and what the proxies know of it, for the tests of faults of values."""

from __future__ import annotations

from typing import Any

from config.loading import load_profiles, shipped_sites
from config.profile import Profile
from config.site import Site
from sim_devices.faults import Target
from sim_devices.faults.points import KnownDevice, known_device
from tests.drivers.modbus_server import make_profile

RATING_W = 10_000.0
BESIDE = shipped_sites()["demo"]


def shipped(name: str) -> Profile:
    """A shipped profile."""
    device = {"profile": name, "address": {"driver": "modbus_tcp", "host": "127.0.0.1", "port": 502}, "rating_w": 1.0}
    return load_profiles(site_of(device, meter="unit"), BESIDE)[name]


def site_of(device: dict[str, Any], meter: str = "unit", **more: Any) -> Site:
    """A site with one device, `unit`, that nobody else knows of."""
    return Site.model_validate(
        {
            "site": "bench",
            "connection": {"rating_w": 100_000.0, "meter": meter},
            "fallback": {"net_import_w": 0.0, "net_export_w": 0.0},
            "devices": {"unit": {"rating_w": RATING_W, **device}},
            **more,
        }
    )


def register_profile() -> Profile:
    """A battery in plain registers: a wide number, a scaled one, a fraction, a mode, a text, and what is written."""
    return make_profile(
        {
            "power_w": {"at": {"address": 10, "type": "int32"}, "unit": "W", "poll": "fast", "range": [-2e4, 2e4]},
            "soc": {"at": {"address": 12}, "unit": "pu", "scale": 0.001, "poll": "fast", "range": [0, 1]},
            "heartbeat": {"at": {"address": 13}, "poll": "fast"},
            "frequency_hz": {"at": {"address": 14, "type": "float32"}, "unit": "Hz", "poll": "fast"},
            "serial": {"at": {"address": 20, "type": "string", "length": 2}, "poll": "once"},
            "setpoint_readback_w": {
                "at": {"address": 100, "type": "int16"}, "unit": "W", "access": "rw", "poll": "fast",
            },
            "enable": {"at": {"address": 101}, "access": "rw", "poll": "fast"},
        },
        {
            "writes": [{"point": "setpoint_readback_w", "quantity": "power_w"}, {"point": "enable", "value": 1}],
            "rest": [{"point": "setpoint_readback_w", "value": 0}],
        },
        max_gap_registers=0,
    ).model_copy(update={"on_silence": _zero_after_10_s()})  # fmt: skip


def _zero_after_10_s() -> Any:
    return Profile.model_fields["on_silence"].annotation.model_validate(  # type: ignore[union-attr]
        {"behaviour": "value", "value_w": 0.0, "after_s": 10.0}
    )


def known(profile: Profile, port: int = 502, driver: str = "modbus_tcp") -> KnownDevice:
    """A device of that profile, `unit`, at unit 1."""
    device = {"profile": profile.profile, "address": {"driver": driver, "host": "127.0.0.1", "port": port, "unit": 1}}
    return known_device(site_of(device), profile, "unit")


def target(device: KnownDevice) -> Target:
    """The device as a target of faults."""
    return Target((device.address.driver,), device.name, device, understood=True)
