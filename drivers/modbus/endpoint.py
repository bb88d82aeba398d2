"""From the addresses of a link's devices to how it is reached and spoken to."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable

from config.site import Address, ModbusAddress, ModbusRtuAddress, ModbusRtuTcpAddress, ModbusTcpAddress
from drivers.modbus.link import Connector, tcp_connector
from drivers.modbus.rtu_framing import UNKNOWN_TIMING, LineTiming, line_timing


def endpoint_name(address: ModbusAddress) -> str:
    """The line or server that an address is on; equal for the devices of one link."""
    match address:
        case ModbusRtuAddress():
            return f"modbus-rtu://{posixpath.normpath(address.device)}"
        case ModbusRtuTcpAddress():
            return f"modbus-rtu-tcp://{address.host}:{address.port}"
        case ModbusTcpAddress():
            return f"modbus://{address.host}:{address.port}"


def one_endpoint(addresses: Iterable[Address]) -> ModbusAddress:
    """An address that stands for all devices of a link; `ValueError` if they aren't on one link."""
    modbus = [address for address in addresses if isinstance(address, ModbusAddress)]
    if len({(endpoint_name(address), _settings(address)) for address in modbus}) != 1:
        raise ValueError("the devices of one link have one host and port, or one line with one setting")
    return modbus[0]


def _settings(address: ModbusAddress) -> tuple[object, ...]:
    return tuple(address.model_dump(exclude={"device", "unit"}).values())


def connector_of(address: ModbusAddress) -> Connector:
    """How a link is connected."""
    if isinstance(address, ModbusRtuAddress):
        # Sites without a serial line do without pyserial.
        from drivers.modbus.serial_port import serial_connector

        return serial_connector(address)
    return tcp_connector(address.host, address.port)


def timing_of(address: ModbusAddress) -> LineTiming | None:
    """The timing of a line that carries RTU frames; None: Modbus TCP."""
    match address:
        case ModbusRtuAddress():
            return line_timing(address.baud, address.parity, address.stop_bits)
        case ModbusRtuTcpAddress():
            return UNKNOWN_TIMING
        case ModbusTcpAddress():
            return None
