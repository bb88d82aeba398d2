"""Register tables of devices that aren't SunSpec: values here and there in the address space, in the maker's own order.

A table is text, a row for each value: `address name type exponent`, ended by a semicolon, where value = raw x 10 **
exponent. Types are those of `registers.TYPES`, or `string:N` for text in N registers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Set
from typing import Final, Literal, NamedTuple, TypeAlias

from sim_devices.modbus.pdu import READ_HOLDING, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.registers import TYPES, PointType, Setting, Source, decode, encoder

WordOrder: TypeAlias = Literal["big", "little"]

MOST_PLANS: Final = 256
"""Ranges whose cells are remembered: a client asks for the same few again and again."""


class Row(NamedTuple):
    """One value of a table; `kind` is None for text."""

    address: int
    name: str
    registers: int
    kind: PointType | None
    exponent: int


class Holes(NamedTuple):
    """What a device answers for registers that belong to no value, up to `longest` in a row; longer is exception 2."""

    word: int
    longest: int


class WriteOnly(NamedTuple):
    """A register that takes values and reads as "absent"."""

    initial: float
    allowed: Callable[[float], bool]


class _Cell(NamedTuple):
    row: Row
    content: Callable[[], bytes]
    setting: Setting | WriteOnly | None


def rows(text: str, types: Mapping[str, PointType] = TYPES) -> tuple[Row, ...]:
    """Read a table; raises ValueError for a row that overlaps the one before it, or a type that there isn't."""
    found: list[Row] = []
    for line in text.split(";"):
        words = line.split()
        if not words:
            continue
        address, name, (kind, _, text_registers) = int(words[0], 0), words[1], words[2].partition(":")
        if kind == "string":
            row = Row(address, name, int(text_registers), None, 0)
        elif kind in types:
            exponent = int(words[3]) if len(words) > 3 else 0
            row = Row(address, name, types[kind].registers, types[kind], exponent)
        else:
            raise ValueError(f"{name}: there is no type {kind}")
        if found and row.address < found[-1].address + found[-1].registers:
            raise ValueError(f"{name}: {address} is not behind {found[-1].name}")
        found.append(row)
    return tuple(found)


Values: TypeAlias = Mapping[str, Source | Setting | WriteOnly]
"""What a device serves, by row name; a row that isn't named reads as "absent"."""


class RegisterTable:
    """Values at their addresses; a register that belongs to none is exception 2, unless the device has `holes`.

    A read asks the functions of the values it touches, all at one instant; it must touch one. A write is checked whole
    before anything changes, and must begin and end with a value. `words` is the order of the registers of numbers.
    """

    def __init__(
        self, rows: tuple[Row, ...], values: Values, words: WordOrder = "big", holes: Holes | None = None
    ) -> None:
        unknown = values.keys() - {row.name for row in rows}
        if unknown:
            raise ValueError(f"the table has no row {', '.join(sorted(unknown))}")
        self.settings: dict[str, float] = {}
        self._words = words
        self._holes = holes
        filler = struct.pack(">H", holes.word if holes is not None else 0)
        self._hole = _Cell(Row(-1, "", 1, None, 0), lambda: filler, None)
        self._cells: dict[int, _Cell] = {}
        self._owner: dict[int, _Cell] = {}
        for row in rows:
            cell = self._cell(row, values.get(row.name))
            self._cells[row.address] = cell
            for address in range(row.address, row.address + row.registers):
                if address in self._owner:
                    raise ValueError(f"{row.name} overlaps {self._owner[address].row.name}")
                self._owner[address] = cell
        self._plans: dict[tuple[int, int], tuple[tuple[_Cell, ...], int]] = {}

    def read(self, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        plan = self._plans.get((address, count))
        if plan is None:
            planned = self._plan(address, count)
            if planned is None:
                return ExceptionCode.ILLEGAL_ADDRESS
            plan = planned
        cells, skipped = plan
        return b"".join([cell.content() for cell in cells])[skipped : skipped + 2 * count]

    def decode_write(self, address: int, data: bytes) -> dict[str, float] | ExceptionCode:
        """The settings that a write would change, by name, or why it is refused; changes nothing."""
        written: dict[str, float] = {}
        at = 0
        while at < len(data):
            cell = self._cells.get(address + at // 2)
            if cell is None or cell.setting is None or cell.row.kind is None:
                return ExceptionCode.ILLEGAL_ADDRESS
            end = at + 2 * cell.row.registers
            if end > len(data):
                return ExceptionCode.ILLEGAL_ADDRESS
            (raw,) = struct.unpack(">" + cell.row.kind.code, self._ordered(data[at:end]))
            value = decode(cell.row.kind, cell.row.exponent, raw)
            if not cell.setting.allowed(value):
                return ExceptionCode.ILLEGAL_VALUE
            written[cell.row.name] = value
            at = end
        return written

    def store(self, values: Mapping[str, float]) -> None:
        """Set settings from the device's side, or those that a checked write has brought."""
        for name in values:
            if name not in self.settings:
                raise KeyError(name)
        self.settings.update(values)

    def _cell(self, row: Row, source: Source | Setting | WriteOnly) -> _Cell:
        if row.kind is None:
            text = source if isinstance(source, str) else ""
            content = text.encode("ascii", "replace")[: 2 * row.registers].ljust(2 * row.registers, b"\0")
            return _Cell(row, lambda: content, None)
        pack, to_raw = struct.Struct(">" + row.kind.code).pack, encoder(row.kind, row.exponent)
        if isinstance(source, Setting):
            settings, name = self.settings, row.name
            settings[name] = source.initial
            return _Cell(row, lambda: self._ordered(pack(to_raw(settings[name]))), source)
        if isinstance(source, WriteOnly):
            self.settings[row.name] = source.initial
            absent = self._ordered(pack(to_raw(None)))
            return _Cell(row, lambda: absent, source)
        if callable(source):
            get = source
            return _Cell(row, lambda: self._ordered(pack(to_raw(get()))), None)
        if isinstance(source, str):
            raise ValueError(f"{row.name}: text in a number")
        constant = self._ordered(pack(to_raw(source)))
        return _Cell(row, lambda: constant, None)

    def _ordered(self, data: bytes) -> bytes:
        if self._words == "big" or len(data) == 2:
            return data
        return b"".join(data[at : at + 2] for at in range(len(data) - 2, -1, -2))

    def _plan(self, address: int, count: int) -> tuple[tuple[_Cell, ...], int] | None:
        cells: list[_Cell] = []
        skipped = missing = 0
        for register in range(address, address + count):
            cell = self._owner.get(register)
            if cell is None:
                missing += 1
                if self._holes is None or missing > self._holes.longest:
                    return None
                cells.append(self._hole)
                continue
            missing = 0
            if not cells:
                skipped = 2 * (register - cell.row.address)
            if not cells or cells[-1] is not cell:
                cells.append(cell)
        if all(cell is self._hole for cell in cells):
            return None
        plan = (tuple(cells), skipped)
        if len(self._plans) < MOST_PLANS:
            self._plans[(address, count)] = plan
        return plan


class TableUnit:
    """A device with a table of holding registers, and perhaps another of input registers, as a Modbus unit."""

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
