"""Modbus twins by profile name: a device model behind the registers of its kind, on a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import Clock, DeviceKind
from sim_devices.modbus import chargers, inverters, meters
from sim_devices.modbus.family import ModbusModel, ProfileTwin, of_kind
from sim_devices.modbus.keba import KebaP30Unit
from sim_devices.modbus.pdu import Unit
from sim_devices.modbus.server import ModbusServer
from sim_devices.modbus.sunspec import BatteryTwin, InverterTwin, MeterTwin
from sim_devices.models import BatteryModel, ChargerModel, InverterModel, MeterModel


def _meter(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return MeterTwin(of_kind(MeterModel, model), serial)


def _inverter(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return InverterTwin(of_kind(InverterModel, model), clock, serial)


def _battery(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return BatteryTwin(of_kind(BatteryModel, model), clock, serial)


def _keba_p30(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return KebaP30Unit(of_kind(ChargerModel, model), clock, crc32(serial.encode()) % 100_000_000)


TWINS: Final[Mapping[str, ProfileTwin]] = {
    "sunspec_meter": ProfileTwin(DeviceKind.METER, _meter),
    "sunspec_inverter": ProfileTwin(DeviceKind.INVERTER, _inverter),
    "sunspec_battery": ProfileTwin(DeviceKind.BATTERY, _battery),
    "keba_p30": ProfileTwin(DeviceKind.CHARGER, _keba_p30),
    **inverters.TWINS,
    **meters.TWINS,
    **chargers.TWINS,
}
"""Every profile that has a Modbus twin."""


def make_unit(profile: str, model: ModbusModel, *, clock: Clock, site: str = "") -> Unit:
    """The unit that shows `model` as `profile` does; its serial number is `site` and the model's name.

    Raises ValueError for a profile that has no Modbus twin, TypeError for a model of another kind.
    """
    return _twin_of(profile).make(model, clock, _serial(model, site))


def _twin_of(profile: str) -> ProfileTwin:
    twin = TWINS.get(profile)
    if twin is None:
        raise ValueError(f"no Modbus twin for profile {profile!r}; there are {', '.join(sorted(TWINS))}")
    return twin


def _serial(model: ModbusModel, site: str) -> str:
    return f"{site}/{model.name}" if site else model.name


def _serve(server: ModbusServer, profile: str, model: ModbusModel, unit: int, clock: Clock, site: str) -> None:
    """Add a twin's unit, and those it has beside it; several devices behind one address share the latter."""
    server.add_unit(unit, make_unit(profile, model, clock=clock, site=site))
    make_beside = _twin_of(profile).make_beside
    if make_beside is not None:
        for unit_id, other in make_beside(model, clock, _serial(model, site)).items():
            if unit_id not in server.units:
                server.add_unit(unit_id, other)


class ModbusTwin:
    """A server with its twins; `unit` is the first one's id."""

    def __init__(self, server: ModbusServer, host: str, port: int, unit: int, clock: Clock, site: str) -> None:
        self.server = server
        self.host = host
        self.port = port
        self.unit = unit
        self._clock = clock
        self._site = site

    def add_unit(self, profile: str, model: ModbusModel, *, unit: int) -> None:
        """Serve another twin on the same address. Raises as `make_unit` does, and ValueError for a unit id in use."""
        _serve(self.server, profile, model, unit, self._clock, self._site)

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        await self.server.close()


async def start_modbus_twin(
    profile: str,
    model: ModbusModel,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    unit: int,
    clock: Clock,
    site: str = "",
) -> ModbusTwin:
    """Serve `model` as `profile` does on a Modbus TCP server of its own; port 0 takes a free one.

    `clock` is the one whose time the model's `step` is given. Raises OSError when the address can't be had, and as
    `make_unit` does.
    """
    server = ModbusServer()
    _serve(server, profile, model, unit, clock, site)
    actual_port = await server.listen(host, port)
    return ModbusTwin(server, host, actual_port, unit, clock, site)
