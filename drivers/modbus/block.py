"""One request's worth of points, and how its reply becomes samples: one `struct` call, then one decoder a point."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from config.vocabulary import Quality, Sample, SampleLayer
from drivers.encoding import RawDecoder, RegisterCodec

_GOOD: Final = Quality.GOOD
_BAD: Final = Quality.BAD
_NOT_A_NUMBER: Final = float("nan")
_HEAD_BYTES: Final = 2  # of a read's reply PDU before its registers: function and byte count
_new: Final = tuple.__new__

Field: TypeAlias = tuple[Callable[[bytes, int], tuple[Any, ...]], int, Callable[[Any], Any]]
"""Where a point lies in a reply and how it is decoded: unpack, byte offset, decode."""


class ReplySamples(SampleLayer):
    """The samples of one reply, each decoded when it is first asked for: control reads a few of many."""

    __slots__ = ("_fields", "_known", "_measured_s", "_reply")

    def __init__(self, block: Block, reply: bytes, measured_s: float) -> None:
        self.names = block.all_names
        self._fields = block.fields
        self._reply = reply
        self._measured_s = measured_s
        self._known: dict[str, Sample] = {}

    def __getitem__(self, name: str) -> Sample:
        sample = self._known.get(name)
        if sample is None:
            unpack, offset, decode = self._fields[name]
            value = decode(unpack(self._reply, offset)[0])
            sample = _new(Sample, (value, _BAD if value is None else _GOOD, self._measured_s))
            self._known[name] = sample
        return sample


class ScaleFactor:
    """A SunSpec scale factor: the power of ten of the points that name it (sunssf, -10 to 10).

    Until it is read, and while it holds anything else (0x8000: not implemented), all its points are bad.

    `static`: the published model says that it never changes while the device runs.
    """

    __slots__ = ("_scaled", "address", "exponent", "static")

    def __init__(self, address: int, *, static: bool = False) -> None:
        self.address = address
        self.static = static
        self.exponent: int | None = None
        self._scaled: list[tuple[RegisterCodec, float]] = []

    def scale(self, codec: RegisterCodec) -> None:
        """Make this the scale factor of a point."""
        self._scaled.append((codec, codec.gain))
        codec.gain = _NOT_A_NUMBER

    def update(self, exponent: int) -> None:
        """Take the value just read."""
        self.exponent = exponent
        factor = 10.0**exponent if -10 <= exponent <= 10 else _NOT_A_NUMBER
        for codec, gain in self._scaled:
            codec.gain = gain * factor


class PlacedPoint(NamedTuple):
    """A point, where it is, and the scale factor that its value is read with, if it has one."""

    name: str
    table: str
    address: int
    codec: RawDecoder
    factor: ScaleFactor | None = None


class Block:
    """The points and scale factors that one read answers.

    `steady`: no scale factor changes what the raw values mean, so a reply can be decoded at any later time.
    `fields`: how each point is taken out of a reply by itself.
    """

    __slots__ = ("_factors", "_layers", "_points", "all_names", "count", "fields", "first", "names", "steady", "table")

    def __init__(
        self,
        table: str,
        first: int,
        count: int,
        points: Sequence[PlacedPoint],
        factors: Sequence[ScaleFactor] = (),
        *,
        steady: bool = False,
    ) -> None:
        self.table = table
        self.first = first
        self.count = count
        self.names = tuple(point.name for point in points)
        self.all_names = frozenset(self.names)
        self.steady = steady
        self.fields: dict[str, Field] = {
            point.name: (
                struct.Struct(f">{point.codec.format}").unpack_from,
                _HEAD_BYTES + 2 * (point.address - first),
                point.codec.decode,
            )
            for point in points
        }
        fields = [(point.address, point.codec.format, point.codec.registers) for point in points]
        fields += [(factor.address, "h", 1) for factor in factors]
        self._layers, order = _layers(first, count, fields)
        place = {field: at for at, field in enumerate(order)}
        self._points = tuple((point.name, point.codec.decode, place[at]) for at, point in enumerate(points))
        self._factors = tuple((factor, place[len(points) + at]) for at, factor in enumerate(factors))

    def take_factors(self, reply: bytes) -> None:
        """Take the scale factors in a reply, before other blocks are decoded that depend on them."""
        if self._factors:
            self._update(self._unpack(reply))

    def decode(self, reply: bytes, now_s: float) -> dict[str, Sample]:
        """The samples in a reply's PDU, whose length has been checked, measured at `now_s`.

        Scale factors come first, so that values and the factors read with them always belong together.
        """
        raws = self._unpack(reply)
        self._update(raws)
        samples = {}
        for name, decode, at in self._points:
            value = decode(raws[at])
            # Half the time of `Sample(...)`, and there is one for every point of every cycle.
            samples[name] = _new(Sample, (value, _BAD if value is None else _GOOD, now_s))
        return samples

    def _unpack(self, reply: bytes) -> Sequence[Any]:
        raws: Sequence[Any] = self._layers[0].unpack(reply)
        for layer in self._layers[1:]:
            raws = (*raws, *layer.unpack(reply))
        return raws

    def _update(self, raws: Sequence[Any]) -> None:
        for factor, at in self._factors:
            if raws[at] != factor.exponent:
                factor.update(raws[at])

    def bad(self, now_s: float) -> dict[str, Sample]:
        """A bad sample for every point."""
        return dict.fromkeys(self.names, Sample(None, _BAD, now_s))


def _layers(
    first: int, count: int, fields: Sequence[tuple[int, str, int]]
) -> tuple[tuple[struct.Struct, ...], list[int]]:
    """Formats for a whole reply PDU, and which field each unpacked value is; fields that overlap need several."""
    left = sorted(range(len(fields)), key=lambda at: fields[at][0])
    layers: list[struct.Struct] = []
    order: list[int] = []
    while left or not layers:
        text, at, skipped = [f">{_HEAD_BYTES}x"], first, []
        for index in left:
            address, form, registers = fields[index]
            if address < at:
                skipped.append(index)
                continue
            text.append(f"{2 * (address - at)}x{form}")
            at = address + registers
            order.append(index)
        text.append(f"{2 * (first + count - at)}x")
        layers.append(struct.Struct("".join(text)))
        left = skipped
    return tuple(layers), order
