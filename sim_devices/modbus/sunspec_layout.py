"""SunSpec models as tables of points, and the chain of models that a device shows.

Source: SunSpec Device Information Model Specification, V1.1 (types, "SunS", model chain, end marker, functions 3, 6
and 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple, TypeAlias, cast

from sim_devices.modbus.pdu import READ_HOLDING, WRITE_MULTIPLE, WRITE_SINGLE, ExceptionCode, Table
from sim_devices.modbus.registers import TYPES, Getter, RegisterImage, Setting, Source

BASE: Final = 40_000
END_MODEL: Final = 0xFFFF
MARKER: Final = "SunS"


class Point(NamedTuple):
    """One point of a model; `offset` counts from the model's ID register."""

    offset: int
    name: str
    kind: str
    registers: int
    scale_factor: str | None


class Layout(NamedTuple):
    """One model: its number, its length without ID and L, the document it was taken from, its points in order."""

    number: int
    length: int
    source: str
    points: tuple[Point, ...]


def layout(number: int, length: int, source: str, table: str) -> Layout:
    """Read a model's table: `offset name type [scale factor]` for each point, each ended by a semicolon.

    Raises ValueError when the offsets leave gaps, overlap, or don't add up to the length.
    """
    points = []
    expected = 2
    for row in table.split(";"):
        words = row.split()
        if not words:
            continue
        offset, name, (kind, _, text_registers) = int(words[0]), words[1], words[2].partition(":")
        registers = int(text_registers) if kind == "string" else TYPES[kind].registers
        if offset != expected:
            raise ValueError(f"model {number}: {name} is at {offset}, not {expected}")
        points.append(Point(offset, name, kind, registers, words[3] if len(words) > 3 else None))
        expected += registers
    if expected != length + 2:
        raise ValueError(f"model {number}: the points take {expected - 2} registers, not {length}")
    return Layout(number, length, source, tuple(points))


Values: TypeAlias = Mapping[str, Source | Setting]
"""What a device serves of one model, by point name; points that aren't named are "not implemented"."""


def chain(models: Sequence[tuple[Layout, Values]]) -> RegisterImage:
    """The register image of a device that shows these models, from "SunS" to the end marker.

    Settings get the name `<model>.<point>`. Raises ValueError for a value whose point the model doesn't have.
    """
    registers = 2 + sum(model.length + 2 for model, _ in models) + 2
    image = RegisterImage(BASE, registers)
    image.put_text(BASE, 2, MARKER)
    at = BASE + 2
    for model, values in models:
        _place(image, at, model, values)
        at += model.length + 2
    image.put(at, TYPES["bits"], 0, END_MODEL)
    image.put(at + 1, TYPES["bits"], 0, 0)
    return image


def _place(image: RegisterImage, at: int, model: Layout, values: Values) -> None:
    unknown = values.keys() - {point.name for point in model.points}
    if unknown:
        raise ValueError(f"model {model.number} has no point {', '.join(sorted(unknown))}")
    image.put(at, TYPES["bits"], 0, model.number)
    image.put(at + 1, TYPES["bits"], 0, model.length)
    for point in model.points:
        value = values.get(point.name)
        address = at + point.offset
        if point.kind == "string":
            image.put_text(address, point.registers, cast(str, value or ""))
            continue
        exponent = int(cast(float, values[point.scale_factor])) if value is not None and point.scale_factor else 0
        if isinstance(value, Setting):
            image.put_setting(f"{model.number}.{point.name}", address, TYPES[point.kind], exponent, value)
        else:
            image.put(address, TYPES[point.kind], exponent, cast("float | Getter | None", value))


def scale_for(highest: float, kind: str, finest: int) -> int:
    """The finest scale factor from `finest` up with which `kind` can still say `highest`."""
    exponent = finest
    while highest > TYPES[kind].high * 10.0**exponent:
        exponent += 1
    return exponent


class SunSpecUnit:
    """A SunSpec device as a Modbus unit. A device brings its chain and says what becomes of a write."""

    functions: Final = frozenset({READ_HOLDING, WRITE_SINGLE, WRITE_MULTIPLE})

    def __init__(self, models: Sequence[tuple[Layout, Values]]) -> None:
        self.image = chain(models)

    def read(self, table: Table, address: int, count: int) -> bytes | ExceptionCode:
        """A snapshot of registers; exception 2 outside the chain."""
        self._settle()
        return self.image.read(address, count)

    def write(self, address: int, data: bytes) -> ExceptionCode | None:
        """Exception 2 for what can't be written or is cut in two, 3 for values that aren't allowed."""
        self._settle()
        written = self.image.decode_write(address, data)
        if isinstance(written, ExceptionCode):
            return written
        self.image.store(written)
        self._written(written.keys())
        return None

    def _settle(self) -> None:
        """Bring the settings up to date with what the device did by itself."""

    def _written(self, names: Set[str]) -> None:
        """Act on the settings of these names, which hold their new values."""
