"""Registers as a maker's table lists them: numbers and texts at addresses, gaps between them, commands to write.

`RegisterImage` is for gapless SunSpec models; this is for tables whose devices differ in word order, in what fills a
gap, in what stands for "no value", and in how much one request may ask for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from sim_devices.modbus.pdu import ExceptionCode, Table

Source: TypeAlias = float | Callable[[], float | None]
"""A constant, or a function that is asked at each read; None means that there is no value."""

Text: TypeAlias = str | Callable[[], str]
Order: TypeAlias = Literal["high word first", "low word first", "low byte first"]

ALL_BITS: Final = b"\xff\xff"
"""What fills a register that has no value, in some devices."""


class _Item(NamedTuple):
    """What stands at `address`: its registers' bytes in the order of the wire."""

    address: int
    registers: int
    encode: Callable[[], bytes]


class RegisterTable:
    """Values at addresses. A read of a register that is nowhere in the table is refused with exception 2.

    `absent` is what a number reads when it has no value or doesn't fit, as raw number by struct code; without an entry
    a float is not-a-number and an integer has all bits set. With `whole`, a read that would tear a value is refused.
    """

    def __init__(
        self, order: Order = "high word first", *, absent: Mapping[str, int] | None = None, whole: bool = False
    ) -> None:
        self._order = order
        self._absent = dict(absent or {})
        self._whole = whole
        self._at: dict[int, _Item] = {}

    def put(self, address: int, code: str, source: Source, per_unit: float = 1.0) -> None:
        """Place a number: raw = value x `per_unit`, rounded, in the struct format `code`."""
        packer = struct.Struct(">" + code)
        absent = self._absent_bytes(code)
        low, high = _limits(code)
        turn = self._turned

        def encode() -> bytes:
            value = source() if callable(source) else source
            if value is None or not math.isfinite(value):
                return turn(absent)
            raw = value * per_unit if code in "fd" else round(value * per_unit)
            return turn(packer.pack(raw) if low <= raw <= high else absent)

        self._place(_Item(address, packer.size // 2, encode))

    def put_text(self, address: int, registers: int, text: Text) -> None:
        """Place ASCII text, two characters a register, cut to the space there is and filled up with NUL."""

        def encode() -> bytes:
            said = text() if callable(text) else text
            return said.encode("ascii", "replace")[: 2 * registers].ljust(2 * registers, b"\0")

        self._place(_Item(address, registers, encode))

    def put_bytes(self, address: int, data: bytes) -> None:
        """Place registers as they are."""
        self._place(_Item(address, len(data) // 2, lambda: data))

    def fill(self, first: int, last: int, word: bytes = b"\0\0") -> None:
        """Give every register from `first` to `last` that holds nothing yet the content `word`."""
        for address in range(first, last + 1):
            self._at.setdefault(address, _Item(address, 1, lambda: word))

    def read(self, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        data = bytearray()
        end = address + count
        while address < end:
            item = self._at.get(address)
            if item is None:
                return ExceptionCode.ILLEGAL_ADDRESS
            skipped = address - item.address
            if self._whole and (skipped or item.address + item.registers > end):
                return ExceptionCode.ILLEGAL_ADDRESS
            piece = item.encode()[2 * skipped : 2 * (end - item.address)]
            data += piece
            address += len(piece) // 2
        return bytes(data)

    def _place(self, item: _Item) -> None:
        for address in range(item.address, item.address + item.registers):
            if address in self._at:
                raise ValueError(f"register {address} is in the table twice")
            self._at[address] = item

    def _absent_bytes(self, code: str) -> bytes:
        packer = struct.Struct(">" + code)
        if code in self._absent:
            return packer.pack(self._absent[code])
        return packer.pack(math.nan) if code in "fd" else b"\xff" * packer.size

    def _turned(self, data: bytes) -> bytes:
        if self._order == "low byte first":
            return data[::-1]
        if self._order == "low word first":
            return b"".join(data[at : at + 2] for at in range(len(data) - 2, -2, -2))
        return data


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


class TableUnit:
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


def _limits(code: str) -> tuple[float, float]:
    if code == "f":
        return -3.4028234e38, 3.4028234e38
    if code == "d":
        return -math.inf, math.inf
    bits = 8 * struct.calcsize(">" + code)
    if code.islower():
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1
