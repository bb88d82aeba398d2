"""Register images: typed values at addresses, encoded when they are read and decoded when they are written.

Types and their "not implemented" values: SunSpec Device Information Model Specification, V1.1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from sim_devices.modbus.pdu import ExceptionCode


class PointType(NamedTuple):
    """An encoding: registers, struct code, the raw values that mean something, and the one that means "absent".

    `wraps`: an accumulator, which starts again at 0 beyond its highest value.
    """

    name: str
    registers: int
    code: str
    low: float
    high: float
    absent: float
    wraps: bool = False


def _integer(name: str, bits: int, signed: bool) -> PointType:
    code = {16: "h", 32: "i", 64: "q"}[bits]
    if signed:
        lowest = -(1 << (bits - 1))
        return PointType(name, bits // 16, code, lowest + 1, -lowest - 1, lowest)
    highest = (1 << bits) - 1
    return PointType(name, bits // 16, code.upper(), 0, highest - 1, highest)


def _bitfield(name: str, bits: int) -> PointType:
    # The top bit is not a flag: it is set in "not implemented" alone.
    return _integer(name, bits, signed=False)._replace(high=(1 << (bits - 1)) - 1)


def _accumulator(name: str, bits: int) -> PointType:
    return _integer(name, bits, signed=False)._replace(high=(1 << bits) - 1, absent=0, wraps=True)


TYPES: Final[Mapping[str, PointType]] = {
    kind.name: kind
    for kind in (
        _integer("int16", 16, signed=True),
        _integer("int32", 32, signed=True),
        _integer("int64", 64, signed=True),
        _integer("uint16", 16, signed=False),
        _integer("uint32", 32, signed=False),
        _integer("uint64", 64, signed=False),
        _integer("enum16", 16, signed=False),
        _integer("enum32", 32, signed=False),
        _bitfield("bitfield16", 16),
        _bitfield("bitfield32", 32),
        _accumulator("acc16", 16),
        _accumulator("acc32", 32),
        _accumulator("acc64", 64),
        _integer("sunssf", 16, signed=True)._replace(low=-10, high=10),
        _integer("pad", 16, signed=True),
        # A word whose every value means something: identifiers and lengths.
        PointType("bits", 1, "H", 0, 0xFFFF, 0),
        PointType("float32", 2, "f", -3.4028234e38, 3.4028234e38, math.nan),
    )
}


def encoder(kind: PointType, exponent: int) -> Callable[[float | None], float]:
    """A function from a value to its raw number, where value = raw x 10 ** exponent: rounded, then range-checked.

    None, not-a-number, infinities and what the type can't hold become "not implemented"; an accumulator wraps.
    """
    low, high, absent, wraps, real = kind.low, kind.high, kind.absent, kind.wraps, kind.code == "f"
    # Dividing by 100 rounds once; multiplying by 0.01 would round twice.
    factor, divisor = (10.0**-exponent, 1.0) if exponent <= 0 else (1.0, 10.0**exponent)

    def encode(value: float | None) -> float:
        if value is None or not math.isfinite(value):
            return absent
        if real:
            return value if low <= value <= high else absent
        raw = round(value * factor / divisor)
        if wraps:
            return raw % (int(high) + 1)
        return raw if low <= raw <= high else absent

    return encode


def encode(kind: PointType, exponent: int, value: float | None) -> float:
    """One value by `encoder`."""
    return encoder(kind, exponent)(value)


def decode(kind: PointType, exponent: int, raw: float) -> float:
    """The value that `raw` stands for."""
    if kind.code == "f" or exponent == 0:
        return raw
    return raw * 10.0**exponent if exponent > 0 else raw / 10.0**-exponent


Getter: TypeAlias = Callable[[], float | None]
Source: TypeAlias = float | str | Getter | None
"""Where a register's content comes from: a constant, text, a function asked at each read, or nothing (absent)."""


class Setting(NamedTuple):
    """A register that can be written: its value at the start, and which values it takes."""

    initial: float
    allowed: Callable[[float], bool]


class _Writable(NamedTuple):
    name: str
    kind: PointType
    exponent: int
    allowed: Callable[[float], bool]
    at: int


class RegisterImage:
    """A contiguous run of registers from `base`.

    What is constant is encoded once. A read asks the functions of the registers it touches, all at one instant. A write
    is checked whole before anything changes, and must begin and end with a value.
    """

    def __init__(self, base: int, registers: int) -> None:
        self.base = base
        self.registers = registers
        self.settings: dict[str, float] = {}
        self._buffer = bytearray(2 * registers)
        self._live: list[tuple[int, int, Callable[[], None]]] = []
        self._writable: dict[int, _Writable] = {}
        self._by_name: dict[str, _Writable] = {}
        self._plans: dict[tuple[int, int], tuple[Callable[[], None], ...]] = {}

    def put_text(self, address: int, registers: int, text: str) -> None:
        """Place ASCII text, cut to the space there is and filled up with NUL."""
        at = 2 * (address - self.base)
        self._buffer[at : at + 2 * registers] = text.encode("ascii", "replace")[: 2 * registers].ljust(
            2 * registers, b"\0"
        )

    def put(self, address: int, kind: PointType, exponent: int, source: float | Getter | None) -> None:
        """Place a constant, a function that is asked at each read, or "not implemented"."""
        at = 2 * (address - self.base)
        pack_into = struct.Struct(">" + kind.code).pack_into
        buffer, to_raw = self._buffer, encoder(kind, exponent)
        if not callable(source):
            pack_into(buffer, at, to_raw(source))
            return

        def refresh() -> None:
            pack_into(buffer, at, to_raw(source()))

        self._live.append((at, at + 2 * kind.registers, refresh))

    def put_setting(self, name: str, address: int, kind: PointType, exponent: int, setting: Setting) -> None:
        """Place a register that can be written; its value is `settings[name]`."""
        writable = _Writable(name, kind, exponent, setting.allowed, 2 * (address - self.base))
        self._writable[address] = self._by_name[name] = writable
        self.store({name: setting.initial})

    def store(self, values: Mapping[str, float]) -> None:
        """Set settings from the device's side, or those that a checked write has brought."""
        for name, value in values.items():
            item = self._by_name[name]
            struct.pack_into(">" + item.kind.code, self._buffer, item.at, encode(item.kind, item.exponent, value))
            self.settings[name] = value

    def read(self, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of `count` registers."""
        start = 2 * (address - self.base)
        end = start + 2 * count
        if start < 0 or end > len(self._buffer):
            return ExceptionCode.ILLEGAL_ADDRESS
        plan = self._plans.get((start, end))
        if plan is None:
            plan = self._plan(start, end)
        for refresh in plan:
            refresh()
        return bytes(self._buffer[start:end])

    def _plan(self, start: int, end: int) -> tuple[Callable[[], None], ...]:
        plan = tuple(refresh for first, last, refresh in self._live if first < end and last > start)
        # A client asks for the same few ranges again and again; one that doesn't shall not fill the memory.
        if len(self._plans) < 256:
            self._plans[(start, end)] = plan
        return plan

    def decode_write(self, address: int, data: bytes) -> dict[str, float] | ExceptionCode:
        """The settings that a write would change, by name, or why it is refused; changes nothing."""
        written: dict[str, float] = {}
        at = 0
        while at < len(data):
            item = self._writable.get(address + at // 2)
            if item is None or at + 2 * item.kind.registers > len(data):
                return ExceptionCode.ILLEGAL_ADDRESS
            (raw,) = struct.unpack_from(">" + item.kind.code, data, at)
            value = decode(item.kind, item.exponent, raw)
            if not item.allowed(value):
                return ExceptionCode.ILLEGAL_VALUE
            written[item.name] = value
            at += 2 * item.kind.registers
        return written
