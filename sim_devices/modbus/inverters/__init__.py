"""Register tables of inverters as their makers document them, one file a maker; `TWINS` names them by profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

from config.vocabulary import Clock, DeviceKind
from sim_devices.modbus.family import ModbusModel, ProfileTwin, of_kind
from sim_devices.modbus.inverters.fronius_gen24 import Gen24Unit
from sim_devices.modbus.inverters.huawei import Sun2000Unit
from sim_devices.modbus.inverters.hybrid import Parts
from sim_devices.modbus.inverters.sma_storage import SmaStorageUnit
from sim_devices.modbus.inverters.solaredge import SolarEdgeInverterUnit, SolarEdgeStorageUnit
from sim_devices.modbus.inverters.sungrow import SungrowShUnit
from sim_devices.modbus.inverters.victron_gx import VeBusUnit
from sim_devices.modbus.pdu import Unit
from sim_devices.models import BatteryModel, InverterModel


def _fronius_gen24(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return Gen24Unit(of_kind(BatteryModel, model), clock, serial)


def _solaredge_inverter(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return SolarEdgeInverterUnit(of_kind(InverterModel, model), clock, serial)


def _solaredge_storage(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return SolarEdgeStorageUnit(of_kind(BatteryModel, model), clock, serial)


def _sma_storage(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return SmaStorageUnit(of_kind(BatteryModel, model), clock, crc32(serial.encode()))


def _victron_gx(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return VeBusUnit(of_kind(BatteryModel, model), clock)


def _huawei_pv(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return Sun2000Unit(Parts(None, of_kind(InverterModel, model)), clock, serial)


def _huawei_luna(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return Sun2000Unit(Parts(of_kind(BatteryModel, model), None), clock, serial)


def _sungrow_sh(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return SungrowShUnit(Parts(of_kind(BatteryModel, model), None), clock, serial)


def _sungrow_sh_pv(model: ModbusModel, clock: Clock, serial: str) -> Unit:
    return SungrowShUnit(Parts(None, of_kind(InverterModel, model)), clock, serial)


TWINS: Final[Mapping[str, ProfileTwin]] = {
    "fronius_gen24": ProfileTwin(DeviceKind.BATTERY, _fronius_gen24),
    "solaredge_inverter": ProfileTwin(DeviceKind.INVERTER, _solaredge_inverter),
    "solaredge_storage": ProfileTwin(DeviceKind.BATTERY, _solaredge_storage),
    "sma_storage": ProfileTwin(DeviceKind.BATTERY, _sma_storage),
    "victron_gx": ProfileTwin(DeviceKind.BATTERY, _victron_gx),
    "victron_gx_1ph": ProfileTwin(DeviceKind.BATTERY, _victron_gx),
    "huawei_sun2000": ProfileTwin(DeviceKind.INVERTER, _huawei_pv),
    "huawei_luna": ProfileTwin(DeviceKind.BATTERY, _huawei_luna),
    "huawei_hybrid_pv": ProfileTwin(DeviceKind.INVERTER, _huawei_pv),
    "sungrow_sh": ProfileTwin(DeviceKind.BATTERY, _sungrow_sh),
    "sungrow_sh_pv": ProfileTwin(DeviceKind.INVERTER, _sungrow_sh_pv),
}
