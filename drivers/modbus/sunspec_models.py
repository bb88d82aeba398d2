"""SunSpec information models: where each point of a model lies, from the definitions that pysunspec2 ships."""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple

from config.profile import PointProfile, RegisterType
from drivers.encoding import RegisterCodec, TextCodec


class ModelPoint(NamedTuple):
    """A point of a model; `offset` in registers from the model's ID, `factor` its scale factor: a point or a number.

    `static`: its value does not change while the device runs (attribute `static` of the published definition).
    """

    name: str
    offset: int
    size: int
    type: str
    factor: str | int | None
    static: bool = False


class ModelDefinition(NamedTuple):
    """The fixed points of a model, and those of its first repeating group, if its size is known beforehand."""

    id: int
    points: dict[str, ModelPoint]
    repeated: dict[str, ModelPoint]
    repeat_size: int

    def point(self, name: str, block: int | None) -> ModelPoint | None:
        """A point by name (`Group.Point` inside a single group); of the repeating group's `block`, counted from 1."""
        if block is None:
            return self.points.get(name)
        point = self.repeated.get(name)
        return None if point is None else point._replace(offset=point.offset + (block - 1) * self.repeat_size)


class _Kind(NamedTuple):
    """A SunSpec type as registers, its "not implemented" values, and the greatest value where the top bit is taken."""

    type: RegisterType
    invalid: tuple[float, ...] = ()
    high: float | None = None


# SunSpec Device Information Model Specification, "Point Types" and "Not Implemented" values. Floating point says NaN,
# which decodes to nothing anyway. An accumulator that has not begun counts as not implemented. In a bit field, the top
# bit says that the rest means nothing.
_KINDS: Final = {
    "int16": _Kind(RegisterType.INT16, (0x8000,)),
    "uint16": _Kind(RegisterType.UINT16, (0xFFFF,)),
    "count": _Kind(RegisterType.UINT16, (0xFFFF,)),
    "acc16": _Kind(RegisterType.UINT16, (0,)),
    "enum16": _Kind(RegisterType.UINT16, (0xFFFF,)),
    "bitfield16": _Kind(RegisterType.BITS16, (0xFFFF,), 0x7FFF),
    "int32": _Kind(RegisterType.INT32, (0x8000_0000,)),
    "uint32": _Kind(RegisterType.UINT32, (0xFFFF_FFFF,)),
    "acc32": _Kind(RegisterType.UINT32, (0,)),
    "enum32": _Kind(RegisterType.UINT32, (0xFFFF_FFFF,)),
    "bitfield32": _Kind(RegisterType.BITS32, (0xFFFF_FFFF,), 0x7FFF_FFFF),
    "int64": _Kind(RegisterType.INT64, (0x8000_0000_0000_0000,)),
    "uint64": _Kind(RegisterType.UINT64, (0xFFFF_FFFF_FFFF_FFFF,)),
    "acc64": _Kind(RegisterType.UINT64, (0,)),
    "sunssf": _Kind(RegisterType.INT16, (0x8000,)),
    "float32": _Kind(RegisterType.FLOAT32),
    "float64": _Kind(RegisterType.FLOAT64),
}


@lru_cache(maxsize=256)
def load_model(model: int) -> ModelDefinition | None:
    """The published definition of a model; None if there is none. Reads a file: not for the event loop."""
    path = resources.files("sunspec2").joinpath("models", "json", f"model_{model}.json")
    try:
        group = json.loads(path.read_text(encoding="utf-8"))["group"]
    except FileNotFoundError:
        return None
    points: dict[str, ModelPoint] = {}
    end, repeating = _place(group, "", 0, points)
    repeated: dict[str, ModelPoint] = {}
    after, nested = _place(repeating, "", end, repeated) if repeating is not None else (end, None)
    if nested is not None:
        repeated.clear()
    return ModelDefinition(model, points, repeated, after - end)


def sunspec_codec(profile: PointProfile, point: ModelPoint) -> RegisterCodec | TextCodec | None:
    """The codec of a model's point as the profile scales it, before its scale factor; None for other types."""
    if point.type == "string":
        return TextCodec(point.size)
    kind = _KINDS.get(point.type)
    if kind is None:
        return None
    if kind.high is not None and profile.range is None:
        profile = profile.model_copy(update={"range": (0.0, kind.high)})
    codec = RegisterCodec(profile, kind.type, invalid=(*kind.invalid, *profile.invalid))
    if isinstance(point.factor, int):
        codec.gain *= 10.0**point.factor
    return codec


def _place(
    group: dict[str, Any], prefix: str, offset: int, points: dict[str, ModelPoint]
) -> tuple[int, dict[str, Any] | None]:
    """Place a group's points from `offset` on; return its end, and the repeating group at which that ends early."""
    for point in group["points"]:
        name = f"{prefix}{point['name']}"
        points[name] = ModelPoint(
            name, offset, point["size"], point["type"], point.get("sf"), point.get("static") == "S"
        )
        offset += point["size"]
    for inner in group.get("groups", ()):
        if inner.get("count", 1) not in (None, 1):
            return offset, inner
        offset, repeating = _place(inner, f"{prefix}{inner['name']}.", offset, points)
        if repeating is not None:
            return offset, repeating
    return offset, None
