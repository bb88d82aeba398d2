"""Registers as a maker's table lists them: numbers and texts at addresses, gaps between them, settings to write.

`RegisterImage` is for gapless SunSpec models; this is for tables whose devices differ in word order, in what fills a
gap, in what stands for "no value", and in how much one request may ask for. Values are placed one by one (`put`), or
as rows of a table in text (`rows`, `RegisterTable.of_rows`).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from sim_devices.modbus.pdu import ExceptionCode
from sim_devices.modbus.registers import TYPES, Getter, PointType, Setting, Source, decode, encoder

Text: TypeAlias = str | Callable[[], str]
Order: TypeAlias = Literal["high word first", "low word first", "low byte first"]

ALL_BITS: Final = b"\xff\xff"
"""What fills a register that has no value, in some devices."""

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


Values: TypeAlias = Mapping[str, Source | Setting | WriteOnly]
"""What a device serves, by row name; a row that isn't named reads as "absent"."""


class _Writable(NamedTuple):
    name: str
    kind: PointType
    exponent: int
    allowed: Callable[[float], bool]


class _Cell(NamedTuple):
    """What stands at `address`: its registers' bytes in the order of the wire."""

    address: int
    registers: int
    content: Callable[[], bytes]
    writable: _Writable | None = None


_Plan: TypeAlias = tuple[tuple[Callable[[], bytes], ...], int]


def rows(text: str, types: Mapping[str, PointType] = TYPES) -> tuple[Row, ...]:
    """Read a table: `address name type exponent`, ended by a semicolon, where value = raw x 10 ** exponent.

    Types are those of `registers.TYPES`, or `string:N` for text in N registers. Raises ValueError for a row that
    overlaps the one before it, or a type that there isn't.
    """
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


class RegisterTable:
    """Values at addresses; a read of a register that belongs to none is exception 2, unless the device has `holes`.

    A read asks the functions of the values it touches, all at one instant; it must touch one. With `whole`, a read that
    would tear a value is refused. A write is checked whole before anything changes, and must begin and end with a value
    that takes one. `absent` is what a number that was `put` reads when it has no value or doesn't fit, as raw number by
    struct code; without an entry a float is not-a-number and an integer has all bits set.
    """

    def __init__(
        self,
        order: Order = "high word first",
        *,
        absent: Mapping[str, int] | None = None,
        whole: bool = False,
        holes: Holes | None = None,
    ) -> None:
        self.settings: dict[str, float] = {}
        self._order = order
        self._absent = dict(absent or {})
        self._whole = whole
        self._holes = holes
        filler = struct.pack(">H", holes.word if holes is not None else 0)
        self._hole = _Cell(-1, 1, lambda: filler)
        self._at: dict[int, _Cell] = {}
        self._plans: dict[tuple[int, int], _Plan] = {}

    @classmethod
    def of_rows(
        cls, rows: tuple[Row, ...], values: Values, order: Order = "high word first", holes: Holes | None = None
    ) -> RegisterTable:
        """A table of rows; raises ValueError for a value that has no row, and rows that overlap."""
        unknown = values.keys() - {row.name for row in rows}
        if unknown:
            raise ValueError(f"the table has no row {', '.join(sorted(unknown))}")
        table = cls(order, holes=holes)
        for row in rows:
            table.put_row(row, values.get(row.name))
        return table

    def put(self, address: int, code: str, source: float | Getter, per_unit: float = 1.0) -> None:
        """Place a number: raw = value x `per_unit`, rounded, in the struct format `code`."""
        packer = struct.Struct(">" + code)
        absent = self._absent_bytes(code)
        low, high = _limits(code)
        turn = self._turned

        def encode(value: float | None) -> bytes:
            if value is None or not math.isfinite(value):
                return turn(absent)
            raw = value * per_unit if code in "fd" else round(value * per_unit)
            return turn(packer.pack(raw) if low <= raw <= high else absent)

        self._place(_Cell(address, packer.size // 2, _content(encode, source)))

    def put_text(self, address: int, registers: int, text: Text) -> None:
        """Place ASCII text, two characters a register, cut to the space there is and filled up with NUL."""

        def encode() -> bytes:
            said = text() if callable(text) else text
            return said.encode("ascii", "replace")[: 2 * registers].ljust(2 * registers, b"\0")

        constant = encode() if isinstance(text, str) else None
        self._place(_Cell(address, registers, encode if constant is None else lambda: constant))

    def put_bytes(self, address: int, data: bytes) -> None:
        """Place registers as they are."""
        self._place(_Cell(address, len(data) // 2, lambda: data))

    def put_row(self, row: Row, source: Source | Setting | WriteOnly) -> None:
        """Place a row; raises ValueError for text in a number."""
        if row.kind is None:
            self.put_text(row.address, row.registers, source if isinstance(source, str) else "")
            return
        if isinstance(source, str):
            raise ValueError(f"{row.name}: text in a number")
        pack, to_raw = struct.Struct(">" + row.kind.code).pack, encoder(row.kind, row.exponent)
        turn = self._turned

        def encode(value: float | None) -> bytes:
            return turn(pack(to_raw(value)))

        if not isinstance(source, Setting | WriteOnly):
            self._place(_Cell(row.address, row.registers, _content(encode, source)))
            return
        settings, name = self.settings, row.name
        settings[name] = source.initial
        shown = _content(encode, None if isinstance(source, WriteOnly) else lambda: settings[name])
        writable = _Writable(name, row.kind, row.exponent, source.allowed)
        self._place(_Cell(row.address, row.registers, shown, writable))

    def fill(self, first: int, last: int, word: bytes = b"\0\0") -> None:
        """Give every register from `first` to `last` that holds nothing yet the content `word`."""
        for address in range(first, last + 1):
            self._at.setdefault(address, _Cell(address, 1, lambda: word))
        self._plans.clear()

    def read(self, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        plan = self._plans.get((address, count))
        if plan is None:
            planned = self._plan(address, count)
            if planned is None:
                return ExceptionCode.ILLEGAL_ADDRESS
            plan = planned
        contents, skipped = plan
        return b"".join([content() for content in contents])[skipped : skipped + 2 * count]

    def decode_write(self, address: int, data: bytes) -> dict[str, float] | ExceptionCode:
        """The settings that a write would change, by name, or why it is refused; changes nothing."""
        written: dict[str, float] = {}
        at = 0
        while at < len(data):
            cell = self._at.get(address + at // 2)
            if cell is None or cell.writable is None or cell.address != address + at // 2:
                return ExceptionCode.ILLEGAL_ADDRESS
            end = at + 2 * cell.registers
            if end > len(data):
                return ExceptionCode.ILLEGAL_ADDRESS
            name, kind, exponent, allowed = cell.writable
            (raw,) = struct.unpack(">" + kind.code, self._turned(data[at:end]))
            value = decode(kind, exponent, raw)
            if not allowed(value):
                return ExceptionCode.ILLEGAL_VALUE
            written[name] = value
            at = end
        return written

    def store(self, values: Mapping[str, float]) -> None:
        """Set settings from the device's side, or those that a checked write has brought."""
        for name in values:
            if name not in self.settings:
                raise KeyError(name)
        self.settings.update(values)

    def _place(self, cell: _Cell) -> None:
        for address in range(cell.address, cell.address + cell.registers):
            if address in self._at:
                raise ValueError(f"what stands at {cell.address} overlaps what stands at {self._at[address].address}")
            self._at[address] = cell
        self._plans.clear()

    def _plan(self, address: int, count: int) -> _Plan | None:
        """The cells that a read touches, and how many bytes of the first it leaves out; None where it is refused."""
        cells: list[_Cell] = []
        missing = 0
        for register in range(address, address + count):
            cell = self._at.get(register, self._hole)
            missing = missing + 1 if cell is self._hole else 0
            if missing and (self._holes is None or missing > self._holes.longest):
                return None
            if missing or not cells or cells[-1] is not cell:
                cells.append(cell)
        known = [cell for cell in cells if cell is not self._hole]
        if not known:
            return None
        skipped = 0 if cells[0] is self._hole else address - cells[0].address
        if self._whole and (skipped or known[-1].address + known[-1].registers > address + count):
            return None
        plan = tuple([cell.content for cell in cells]), 2 * skipped
        if len(self._plans) < MOST_PLANS:
            self._plans[(address, count)] = plan
        return plan

    def _absent_bytes(self, code: str) -> bytes:
        packer = struct.Struct(">" + code)
        if code in self._absent:
            return packer.pack(self._absent[code])
        return packer.pack(math.nan) if code in "fd" else b"\xff" * packer.size

    def _turned(self, data: bytes) -> bytes:
        if self._order == "high word first" or (len(data) == 2 and self._order == "low word first"):
            return data
        if self._order == "low byte first":
            return data[::-1]
        return b"".join(data[at : at + 2] for at in range(len(data) - 2, -2, -2))


def _content(encode: Callable[[float | None], bytes], source: float | Getter | None) -> Callable[[], bytes]:
    """What is read: a constant is encoded once, a function is asked at each read."""
    if callable(source):
        return lambda: encode(source())
    constant = encode(source)
    return lambda: constant


def _limits(code: str) -> tuple[float, float]:
    if code == "f":
        return -3.4028234e38, 3.4028234e38
    if code == "d":
        return -math.inf, math.inf
    bits = 8 * struct.calcsize(">" + code)
    if code.islower():
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1
