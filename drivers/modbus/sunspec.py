"""SunSpec over Modbus: finds a device's models and resolves a profile's points to registers (SunSpec Device Information
Model Specification: the marker, its base addresses, the model chain and its end).
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from config.profile import PointProfile, Profile
from drivers.encoding import RegisterCodec
from drivers.modbus.block import PlacedPoint, ScaleFactor
from drivers.modbus.plan import Places
from drivers.modbus.request import Failure, RequestFailed
from drivers.modbus.sunspec_models import ModelDefinition, load_model, sunspec_codec

BASES: Final = (40000, 0, 50000)
_MARKER: Final = b"SunS"
_END_MODEL: Final = 0xFFFF
_COMMON: Final = 1
_MOST_MODELS: Final = 200
_IDENTITY: Final = ("Mn", "Md", "SN")

ReadRegisters: TypeAlias = Callable[[int, int], Awaitable[bytes]]
"""Reads holding registers from an address, so many; the bytes of their values. `RequestFailed` if they don't come."""


class NotSunSpec(Exception):  # noqa: N818 - the name says what the device is
    """What answers has no SunSpec map, or a broken one."""


class Model(NamedTuple):
    """A model in a device's chain: `address` is that of its ID, `length` what follows ID and length."""

    id: int
    address: int
    length: int


async def discover(read: ReadRegisters, bases: Sequence[int] = BASES) -> tuple[int, list[Model]]:
    """The base address at which the marker stands, and the models in the order of the chain; `NotSunSpec` if none.

    `RequestFailed` when the device falls silent; that it refuses to answer at a base only means another base.
    """
    for base in bases:
        if await _read_or_refused(read, base, 2) == _MARKER:
            return base, await _walk(read, base + 2)
    raise NotSunSpec(f"no SunSpec marker at {', '.join(str(base) for base in bases)}")


async def identify(read: ReadRegisters, chain: Sequence[Model]) -> str:
    """Manufacturer, model and serial number as the common model states them; empty if it doesn't."""
    return " ".join(word for word in await identity(read, chain) if word)


async def identity(read: ReadRegisters, chain: Sequence[Model]) -> tuple[str, str, str]:
    """Manufacturer, model and serial number of the common model, each empty where it isn't stated."""
    common = next((model for model in chain if model.id == _COMMON), None)
    definition = load_model(_COMMON)
    if common is None or definition is None:
        return "", "", ""
    words = []
    for name in _IDENTITY:
        point = definition.points[name]
        text = await _read_or_refused(read, common.address + point.offset, point.size)
        words.append(text.partition(b"\0")[0].decode("ascii", "replace").strip())
    manufacturer, model, serial = words
    return manufacturer, model, serial


def definitions_of(profile: Profile) -> dict[int, ModelDefinition]:
    """The definitions of every model that the profile names. Reads files, so call it before the loop is at work."""
    wanted = {model for point in profile.points.values() if point.sunspec is not None for model in point.sunspec.models}
    loaded = {model: load_model(model) for model in (*sorted(wanted), _COMMON)}
    return {model: definition for model, definition in loaded.items() if definition is not None}


def resolve(profile: Profile, chain: Sequence[Model], definitions: Mapping[int, ModelDefinition]) -> Places:
    """Where the profile's SunSpec points are in this chain: each in the first of its models that the device has."""
    present: dict[int, Model] = {}
    for model in chain:
        present.setdefault(model.id, model)
    factors: dict[int, ScaleFactor] = {}
    points: dict[str, PlacedPoint] = {}
    missing = []
    for name, point in profile.points.items():
        if point.sunspec is None:
            continue
        place = _resolve_point(name, point, present, definitions, factors)
        if place is None:
            missing.append(name)
        else:
            points[name] = place
    return Places(points, tuple(factors.values()), tuple(missing))


def _resolve_point(
    name: str,
    profile: PointProfile,
    present: Mapping[int, Model],
    definitions: Mapping[int, ModelDefinition],
    factors: dict[int, ScaleFactor],
) -> PlacedPoint | None:
    address = profile.sunspec
    assert address is not None  # the caller's choice of points
    for wanted in address.models:
        model, definition = present.get(wanted), definitions.get(wanted)
        point = definition.point(address.point, address.block) if definition is not None else None
        if model is None or definition is None or point is None or point.offset + point.size > model.length + 2:
            continue
        codec = sunspec_codec(profile, point)
        if codec is None:
            continue
        factor = None
        if isinstance(point.factor, str) and isinstance(codec, RegisterCodec):
            factor = _factor(model, definition, point.factor, address.block, factors)
            factor.scale(codec)
        return PlacedPoint(name, "holding", model.address + point.offset, codec, factor)
    return None


def _factor(
    model: Model, definition: ModelDefinition, name: str, block: int | None, factors: dict[int, ScaleFactor]
) -> ScaleFactor:
    """The scale factor by that name, in the point's own block or else among the model's fixed points."""
    place = (definition.point(name, block) if block is not None else None) or definition.points[name]
    address = model.address + place.offset
    return factors.setdefault(address, ScaleFactor(address, static=place.static))


async def _walk(read: ReadRegisters, address: int) -> list[Model]:
    chain: list[Model] = []
    while len(chain) < _MOST_MODELS and address + 1 <= 0xFFFF:
        head = await _read_or_refused(read, address, 2)
        if len(head) != 4:
            break
        model, length = struct.unpack(">HH", head)
        if model == _END_MODEL:
            return chain
        chain.append(Model(model, address, length))
        address += 2 + length
    if not chain:
        raise NotSunSpec("the SunSpec marker stands before no model")
    return chain


async def _read_or_refused(read: ReadRegisters, address: int, count: int) -> bytes:
    """The registers, or nothing where the device answers that it has none there."""
    try:
        return await read(address, count)
    except RequestFailed as failed:
        if failed.failure in (Failure.EXCEPTION, Failure.REJECTED):
            return b""
        raise
