"""Where the points of a device lie in its Modbus registers, as its profile says or as its SunSpec models do, and how
their raw numbers are read and written.

Sources: the profile; SunSpec Device Information Model Specification V1.1 (marker, chain of models, types, "not
implemented" values), and the published models as pysunspec2 ships them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple

from config.profile import RegisterType
from sim_devices.faults.points import KnownDevice, KnownPoint
from sim_devices.modbus.registers import TYPES

_BASES: Final = (40_000, 0, 50_000)
_MARKER: Final = struct.unpack(">HH", b"SunS")
_END: Final = 0xFFFF
_MOST_MODELS: Final = 200
_CODES: Final[Mapping[str, str]] = {
    **{name: kind.code for name, kind in TYPES.items()},
    "count": "H",
    "float64": "d",
    RegisterType.BITS16.value: "H",
    RegisterType.BITS32.value: "I",
}

Registers = dict[int, int]
"""Register contents by address."""


@dataclass(frozen=True, slots=True)
class Place:
    """A point in registers. `code` is struct's, empty for text; `absent` the raw number that means no value.

    `factor` is the address of a SunSpec scale factor, or a fixed one; `reorder` says whether the registers come with
    the last one first, and whether the bytes of each are swapped.
    """

    point: KnownPoint
    table: str
    address: int
    registers: int
    code: str
    absent: float | None
    factor: int | None = None
    fixed_factor: int = 0
    reorder: tuple[bool, bool] = (False, False)

    @property
    def is_float(self) -> bool:
        """Whether it holds fractions."""
        return self.code in ("f", "d")

    def raw(self, data: bytes) -> float:
        """The raw number in its registers."""
        number: float = struct.unpack(f">{self.code}", self._ordered(data))[0]
        return number

    def data(self, raw: float) -> bytes:
        """The registers of the nearest raw number that there is; one that is none stays none, where that exists."""
        if self.is_float:
            return self._ordered(struct.pack(f">{self.code}", raw))
        bits = 16 * self.registers
        signed = self.code.islower()
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        whole = min(max(round(raw), low), high)
        return self._ordered(struct.pack(f">{self.code}", whole))

    def exponent(self, known: Registers) -> int:
        """The scale factor in force, as far as it is known."""
        if self.factor is None:
            return self.fixed_factor
        raw = known.get(self.factor, 0)
        return raw - 0x1_0000 if raw >= 0x8000 else raw

    def is_scaled(self, known: Registers) -> bool:
        """Whether its scale factor is known, or it has none."""
        return self.factor is None or self.factor in known

    def full_raw(self, known: Registers) -> float:
        """The raw number of the most that the point can be, as a magnitude."""
        return abs(self.point.full / (self.point.profile.scale * 10.0 ** self.exponent(known)))

    def raw_of(self, value: float, known: Registers) -> float:
        """The raw number of a value in the point's unit and load convention."""
        profile = self.point.profile
        sign = -1.0 if profile.sign == "generator" else 1.0
        return (value * sign - profile.offset) / (profile.scale * 10.0 ** self.exponent(known))

    def _ordered(self, data: bytes) -> bytes:
        words, swapped = self.reorder
        pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
        if swapped:
            pairs = [pair[::-1] for pair in pairs]
        return b"".join(reversed(pairs) if words else pairs)


def plain_places(device: KnownDevice) -> list[Place]:
    """The places of the points whose registers the profile names."""
    found = []
    for point in device.points.values():
        at = point.profile.modbus
        if at is None:
            continue
        code = "" if at.type is RegisterType.STRING else _CODES[at.type.value]
        absent = point.profile.invalid[0] if point.profile.invalid else _absent(at.type.value)
        order = (at.word_order == "little", at.byte_order == "little")
        found.append(Place(point, at.table, at.address, at.registers, code, absent, reorder=order))
    return found


def sunspec_places(device: KnownDevice, known: Registers) -> list[Place]:
    """The places of the points in SunSpec models, as far as the chain of models has been seen on the wire."""
    models = dict(reversed([*_chain(known)]))
    found = []
    for point in device.points.values():
        at = point.profile.sunspec
        for model in () if at is None else at.models:
            if model in models and at is not None:
                place = _placed(point, models[model], _definition(model), at.point, at.block)
                if place is not None:
                    found.append(place)
                    break
    return found


def _chain(known: Registers) -> Iterator[tuple[int, int]]:
    """Model ids and the addresses of their ID registers."""
    for base in _BASES:
        if (known.get(base), known.get(base + 1)) != _MARKER:
            continue
        address = base + 2
        for _ in range(_MOST_MODELS):
            model, length = known.get(address, _END), known.get(address + 1, 0)
            if model == _END:
                return
            yield model, address
            address += 2 + length


class _ModelPoint(NamedTuple):
    offset: int
    registers: int
    type: str
    factor: str | int | None


class _Definition(NamedTuple):
    """The points of a model before its first repeating group, those of that group, and the group's size."""

    points: Mapping[str, _ModelPoint]
    repeated: Mapping[str, _ModelPoint]
    size: int


def _placed(
    point: KnownPoint, address: int, definition: _Definition | None, name: str, block: int | None
) -> Place | None:
    if definition is None:
        return None
    shift = 0 if block is None else (block - 1) * definition.size
    found = (definition.points if block is None else definition.repeated).get(name)
    if found is None:
        return None
    factor, fixed = None, found.factor if isinstance(found.factor, int) else 0
    if isinstance(found.factor, str):
        inside = definition.repeated.get(found.factor) if block is not None else None
        factor = address + (inside.offset + shift if inside is not None else definition.points[found.factor].offset)
    code = "" if found.type == "string" else _CODES.get(found.type, "")
    place = address + found.offset + shift
    return Place(point, "holding", place, found.registers, code, _absent(found.type), factor, fixed)


@lru_cache(maxsize=64)
def _definition(model: int) -> _Definition | None:
    path = resources.files("sunspec2").joinpath("models", "json", f"model_{model}.json")
    try:
        group = json.loads(path.read_text(encoding="utf-8"))["group"]
    except FileNotFoundError:
        return None
    points: dict[str, _ModelPoint] = {}
    repeated: dict[str, _ModelPoint] = {}
    end, repeats = _laid_out(group, "", 0, points)
    after = end if repeats is None else _laid_out(repeats, "", end, repeated)[0]
    return _Definition(points, repeated, after - end)


def _laid_out(
    group: dict[str, Any], prefix: str, offset: int, points: dict[str, _ModelPoint]
) -> tuple[int, dict[str, Any] | None]:
    """Lay a group's points out from `offset` on; the end, and the repeating group before which that is."""
    for point in group["points"]:
        points[prefix + point["name"]] = _ModelPoint(offset, point["size"], point["type"], point.get("sf"))
        offset += point["size"]
    for inner in group.get("groups", ()):
        if inner.get("count", 1) not in (None, 1):
            return offset, inner
        offset, repeats = _laid_out(inner, f"{prefix}{inner['name']}.", offset, points)
        if repeats is not None:
            return offset, repeats
    return offset, None


def preload(device: KnownDevice) -> None:
    """Read the definitions of the models that a profile names, which takes files, before the loop is at work."""
    for point in device.points.values():
        for model in () if point.profile.sunspec is None else point.profile.sunspec.models:
            _definition(model)


def _absent(kind: str) -> float | None:
    if kind in TYPES:
        return TYPES[kind].absent
    if kind == "float64":
        return math.nan
    return 0xFFFF if kind == "count" else None
