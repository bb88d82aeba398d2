"""Twins that speak Modbus TCP: their own server, SunSpec devices and a KEBA charger."""

from sim_devices.modbus.pdu import ExceptionCode, Table, Unit
from sim_devices.modbus.server import ModbusServer, ModbusTcpProtocol, ServerCounts
from sim_devices.modbus.twin import PROFILES, ModbusModel, ModbusTwin, make_unit, start_modbus_twin

__all__ = [
    "PROFILES",
    "ExceptionCode",
    "ModbusModel",
    "ModbusServer",
    "ModbusTcpProtocol",
    "ModbusTwin",
    "ServerCounts",
    "Table",
    "Unit",
    "make_unit",
    "start_modbus_twin",
]
