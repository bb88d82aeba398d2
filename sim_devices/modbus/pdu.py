"""What a Modbus server answers to one request, whatever carried it: the protocol data unit without any framing.

Source: MODBUS Application Protocol Specification V1.1b3, 2012, sections 4 to 7.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum
from typing import Final, Protocol, runtime_checkable

READ_HOLDING: Final = 3
READ_INPUT: Final = 4
WRITE_SINGLE: Final = 6
WRITE_MULTIPLE: Final = 16

MAX_READ: Final = 125
MAX_WRITE: Final = 123
ERROR_BIT: Final = 0x80

_TWO_WORDS: Final = struct.Struct(">HH")
_WRITE_HEADER: Final = struct.Struct(">HHB")


class Table(Enum):
    """The two tables of registers."""

    HOLDING = "holding"
    INPUT = "input"


class ExceptionCode(IntEnum):
    """Why a request is refused; section 7."""

    ILLEGAL_FUNCTION = 1
    ILLEGAL_ADDRESS = 2
    ILLEGAL_VALUE = 3
    DEVICE_FAILURE = 4


class Unit(Protocol):
    """One device behind a server. Register contents are bytes, most significant first, two for each register."""

    @property
    def functions(self) -> frozenset[int]:
        """The function codes that the device knows, among 3, 4, 6 and 16."""
        ...

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers from `address`, or why it is refused; 1 <= count <= 125."""
        ...

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Write all of `data` from `address` at once, or nothing and say why."""
        ...


@runtime_checkable
class PartOfUnit(Protocol):
    """A unit that is one part of a device: a hybrid's battery, or its photovoltaics."""

    def joined(self, other: Unit) -> Unit | None:
        """One unit in place of this one and `other`; None where they aren't parts of one device."""
        ...


def answer(unit: Unit, request: bytes) -> bytes:
    """The response to one request, which is at least one byte long; never raises for what a peer sends."""
    function = request[0]
    if function not in unit.functions:
        return refusal(function, ExceptionCode.ILLEGAL_FUNCTION)
    if function in (READ_HOLDING, READ_INPUT):
        result = _read(unit, function, request)
    elif function == WRITE_SINGLE:
        result = _write_single(unit, request)
    elif function == WRITE_MULTIPLE:
        result = _write_multiple(unit, request)
    else:
        result = ExceptionCode.ILLEGAL_FUNCTION
    return refusal(function, result) if isinstance(result, ExceptionCode) else result


def refusal(function: int, code: ExceptionCode) -> bytes:
    """The exception response to `function`."""
    return bytes((function | ERROR_BIT, code))


def _read(unit: Unit, function: int, request: bytes) -> bytes | ExceptionCode:
    if len(request) != 5:
        return ExceptionCode.ILLEGAL_VALUE
    address, count = _TWO_WORDS.unpack_from(request, 1)
    if not 1 <= count <= MAX_READ:
        return ExceptionCode.ILLEGAL_VALUE
    data = unit.read(Table.HOLDING if function == READ_HOLDING else Table.INPUT, address, count)
    if isinstance(data, ExceptionCode):
        return data
    return bytes((function, 2 * count)) + data


def _write_single(unit: Unit, request: bytes) -> bytes | ExceptionCode:
    if len(request) != 5:
        return ExceptionCode.ILLEGAL_VALUE
    (address, _) = _TWO_WORDS.unpack_from(request, 1)
    refused = unit.write(address, request[3:5])
    return request if refused is None else refused


def _write_multiple(unit: Unit, request: bytes) -> bytes | ExceptionCode:
    if len(request) < 8:
        return ExceptionCode.ILLEGAL_VALUE
    address, count, length = _WRITE_HEADER.unpack_from(request, 1)
    if not 1 <= count <= MAX_WRITE or length != 2 * count or len(request) != 6 + length:
        return ExceptionCode.ILLEGAL_VALUE
    refused = unit.write(address, request[6:])
    return request[:5] if refused is None else refused
