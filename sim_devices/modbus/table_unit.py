"""Modbus units made of register tables: read only, with settings, or with commands."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

from sim_devices.modbus.pdu import READ_HOLDING, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.register_table import RegisterTable


class ReadOnlyUnit:
    """A unit of tables alone, that takes no writes: exception 2. More than `most` registers at once: exception 3."""

    def __init__(self, functions: frozenset[int], tables: Mapping[Table, RegisterTable], most: int = 125) -> None:
        self._functions = functions
        self._tables = tables
        self._most = most

    @property
    def functions(self) -> frozenset[int]:
        """The function codes that the device knows."""
        return self._functions

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        if count > self._most:
            return ExceptionCode.ILLEGAL_VALUE
        return self._tables[table].read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Refuse: what could be written is the device's configuration, which is as it is."""
        return ExceptionCode.ILLEGAL_ADDRESS


class SettingsUnit:
    """A unit with a table of holding registers that has settings, and perhaps another of input registers."""

    functions: frozenset[int] = frozenset({READ_HOLDING, WRITE_SINGLE, WRITE_MULTIPLE})

    def __init__(self, holding: RegisterTable, inputs: RegisterTable | None = None) -> None:
        self.holding = holding
        self.inputs = inputs if inputs is not None else holding

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of registers; exception 2 where the device has none."""
        self._settle()
        return (self.holding if table is Table.HOLDING else self.inputs).read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Exception 2 for what can't be written or is cut in two, 3 for values that aren't allowed."""
        self._settle()
        written = self.holding.decode_write(address, data)
        if isinstance(written, ExceptionCode):
            return written
        self.holding.store(written)
        self._written(written.keys())
        return None

    def _settle(self) -> None:
        """Bring the settings up to date with what the device did by itself."""

    def _written(self, names: Set[str]) -> None:
        """Act on the settings of these names, which hold their new values."""


class Command(NamedTuple):
    """What a write of one value does; `allowed` is asked before anything happens."""

    code: str
    allowed: Callable[[float], bool]
    act: Callable[[float], None]


def execute(commands: Mapping[int, Command], address: int, data: bytes) -> ExceptionCode | None:
    """Carry out all commands in a write from `address`, or none and say why.

    Exception 2 where a register is no command or a value is written in part, 3 for a value that isn't taken.
    """
    found: list[tuple[Command, float]] = []
    at = 0
    while at < len(data):
        command = commands.get(address + at // 2)
        size = struct.calcsize(">" + command.code) if command is not None else 0
        if command is None or at + size > len(data):
            return ExceptionCode.ILLEGAL_ADDRESS
        (value,) = struct.unpack_from(">" + command.code, data, at)
        if not command.allowed(value):
            return ExceptionCode.ILLEGAL_VALUE
        found.append((command, value))
        at += size
    for command, value in found:
        command.act(value)
    return None
