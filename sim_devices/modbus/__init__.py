"""Twins that speak Modbus TCP: their own server, SunSpec devices and a KEBA charger."""

from sim_devices.modbus.family import ModbusModel
from sim_devices.modbus.pdu import ExceptionCode, Table, Unit
from sim_devices.modbus.server import ModbusServer, ModbusTcpProtocol, ServerCounts
from sim_devices.modbus.twin import TWINS as MODBUS_TWINS
from sim_devices.modbus.twin import ModbusTwin, make_unit, start_modbus_twin

__all__ = [
    "MODBUS_TWINS",
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
