"""Where a device is, as a command line says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from config.explain import in_words
from config.profile import Profile
from config.site import Address, ModbusRtuAddress, ModbusRtuTcpAddress
from gateway.composition import serial_port_problem

_HOST_AND_PORT: Final = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[^\s/:]+))(?::(?P<port>\d{1,5}))?")
_ADDRESS: Final[TypeAdapter[Address]] = TypeAdapter(Address)
_PORTS: Final = {"modbus": 502, "mqtt": 1883, "opcua": 4840}


class TargetError(ValueError):
    """What was given is no place where a device can be; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """The options that say where: `HOST[:PORT]`, or a serial device with its line settings."""

    host: str | None = None
    serial: str | None = None
    baud: int = 9600
    parity: str = "none"
    stop_bits: int = 1
    rtu: bool = False
    unit: int = 1
    parameters: Mapping[str, str] | None = None


def modbus_address(target: Target) -> Any:
    """The Modbus address meant; raises TargetError."""
    return address_of("modbus", target)


def address_for(profile: Profile, target: Target) -> Address:
    """The address of a device of this kind; raises TargetError."""
    address = address_of(profile.protocol, target)
    given = set(target.parameters or {})
    if given != set(profile.parameters):
        wanted = ", ".join(f"--param {name}=..." for name in profile.parameters) or "no --param"
        raise TargetError(f"profile {profile.profile} needs {wanted}")
    return address


def address_of(protocol: str, target: Target) -> Address:
    """An address by protocol; raises TargetError."""
    if protocol == "ocpp":
        raise TargetError("a charger with OCPP calls the gateway: name it in a site file, and look at it there")
    if target.serial is not None and (target.host is not None or protocol != "modbus"):
        raise TargetError("--serial stands in place of HOST:PORT, and is for Modbus alone")
    if target.serial is None and target.host is None:
        raise TargetError("HOST[:PORT] or --serial DEV is asked for")
    if target.serial is not None:
        fields: dict[str, Any] = {"driver": "modbus_rtu", "device": target.serial, "unit": target.unit}
        fields |= {"baud": target.baud, "parity": target.parity, "stop_bits": target.stop_bits}
        address = _validated(fields)
        if problem := serial_port_problem(target.serial):
            raise TargetError(f"--serial: {problem}")
        return address
    assert target.host is not None  # the second check above
    if protocol == "opcua" and target.host.startswith("opc.tcp://"):
        return _validated({"driver": "opcua", "url": target.host})
    host, port = _split(target.host, _PORTS[protocol])
    if protocol == "opcua":
        return _validated({"driver": "opcua", "url": f"opc.tcp://{f'[{host}]' if ':' in host else host}:{port}/"})
    if protocol == "mqtt":
        parameters = dict(target.parameters or {})
        return _validated({"driver": "mqtt", "host": host, "port": port, "parameters": parameters})
    driver = "modbus_rtu_tcp" if target.rtu else "modbus_tcp"
    return _validated({"driver": driver, "host": host, "port": port, "unit": target.unit})


def line_hint(address: Address) -> str:
    """What to compare where nothing that makes sense comes over a serial line; empty for all else."""
    if not isinstance(address, ModbusRtuAddress | ModbusRtuTcpAddress):
        return ""
    where = "the converter's and the device's baud rate, parity and stop bits"
    if isinstance(address, ModbusRtuAddress):
        where = f"baud rate ({address.baud}), parity ({address.parity}) and stop bits ({address.stop_bits})"
    return (
        f"nothing intelligible came over the line: compare {where}, and the unit, with the device's settings; "
        "A and B may be swapped; both ends of the line need their terminating resistor"
    )


def _split(text: str, port: int) -> tuple[str, int]:
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        raise TargetError(f"{text!r}: HOST or HOST:PORT is asked for")
    return match["v6"] or match["host"], int(match["port"] or port)


def _validated(fields: dict[str, Any]) -> Address:
    try:
        return _ADDRESS.validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(item) for item in first["loc"][1:])
        given = (
            f"{name} {first['input']!r}" if first["type"] != "value_error" else f"{fields['driver']} {name}".rstrip()
        )
        raise TargetError(f"{given}: {in_words(first)}") from None
