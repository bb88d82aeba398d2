"""From a setpoint to the requests that write it: a profile's control sequence, worked out once for each connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from config.profile import CommandQuantity, Control, ControlWrite
from drivers.binding import DeviceBinding
from drivers.commands import ValueOf, direction_of, value_of
from drivers.encoding import EncodeError, RegisterCodec, Rounding
from drivers.modbus.block import PlacedPoint
from drivers.modbus.request import Pdu, write_pdu

_MOST_WRITTEN: Final = 123  # registers of one function 16 request: Modbus Application Protocol V1.1b3, section 6.12
_KEPT_BY_ROUNDING_DOWN: Final = (CommandQuantity.GENERATION_PU, CommandQuantity.CURRENT_A)
_NOT_A_NUMBER: Final = float("nan")
_new: Final = tuple.__new__


class Segment(NamedTuple):
    """Registers written by one request, and what each point among them was given."""

    pdu: Pdu
    points: tuple[tuple[str, bytes], ...]


class _Step:
    """One write of the sequence. `place` None: the device does not offer the point."""

    __slots__ = ("_codec", "_data", "_gain", "_rounding", "_value", "address", "point", "skip_when_idle", "value_of",
                 "when_changed")  # fmt: skip

    def __init__(self, write: ControlWrite, value: ValueOf, place: PlacedPoint | None, rounding: Rounding) -> None:
        self.point = write.point
        self.when_changed = write.when_changed
        self.skip_when_idle = write.skip_when_idle
        self.value_of = value
        self.address = place.address if place is not None else 0
        codec = place.codec if place is not None else None
        self._codec = codec if isinstance(codec, RegisterCodec) else None
        self._rounding = rounding
        self._value = self._gain = _NOT_A_NUMBER
        self._data = b""

    def encode(self, value: float) -> bytes:
        """The registers for a value; those of the last one where neither it nor the scale factor has changed."""
        codec = self._codec
        if codec is None:
            raise EncodeError(f"{self.point}: the device does not offer this point")
        if value != self._value or codec.gain != self._gain:
            try:
                self._data = codec.encode(value, self._rounding)
            except EncodeError as error:
                raise EncodeError(f"{self.point}: {error}") from None
            self._value, self._gain = value, codec.gain
        return self._data


class WritePlan:
    """The sequence `writes` of a device whose points lie at `places`."""

    __slots__ = ("_binding", "_control", "_directed", "_function", "_heads", "_most", "_steps")

    def __init__(
        self,
        control: Control,
        writes: Sequence[ControlWrite],
        binding: DeviceBinding,
        places: Mapping[str, PlacedPoint],
    ) -> None:
        pace, rounding = binding.profile.pace, _roundings(control)
        self._binding = binding
        self._control = control
        self._directed = any(write.skip_when_idle or write.by_direction is not None for write in writes)
        self._function = pace.write_function
        self._heads: dict[tuple[int, int], bytes] = {}
        self._most = min(_MOST_WRITTEN, pace.max_registers) if pace.write_function != "single" else 1
        self._steps = tuple(
            _Step(
                write,
                value_of(write, control, binding),
                places.get(write.point),
                rounding.get(write.point, Rounding.NEAREST),
            )
            for write in writes
        )

    def segments(self, power_w: float, counter: int, acknowledged: Mapping[str, bytes]) -> list[Segment]:
        """Register writes for a resolved power, in order; neighbours whose registers adjoin share a request.

        `acknowledged`: what each point was last given. Raises `EncodeError`, before anything is sent, for a value that
        its point cannot hold and for a point that the device does not offer.
        """
        segments: list[Segment] = []
        direction = direction_of(self._control, power_w, self._binding) if self._directed else 0
        start, data = 0, b""
        points: tuple[tuple[str, bytes], ...] = ()
        for step in self._steps:
            if direction == 0 and step.skip_when_idle:
                continue
            encoded = step.encode(step.value_of(power_w, direction, counter))
            if step.when_changed and acknowledged.get(step.point) == encoded:
                continue
            if data and (step.address != start + len(data) // 2 or len(data) + len(encoded) > 2 * self._most):
                segments.append(self._segment(start, data, points))
                data, points = b"", ()
            if not data:
                start = step.address
            data += encoded
            points += ((step.point, encoded),)
        if data:
            segments.append(self._segment(start, data, points))
        return segments

    def _segment(self, start: int, data: bytes, points: tuple[tuple[str, bytes], ...]) -> Segment:
        """One request. What comes before its data is made once for each place and length."""
        size = len(data)
        head = self._heads.get((start, size))
        if head is not None:
            return _new(Segment, (_new(Pdu, (head + data, head[:5], 5)), points))
        single = size == 2 and self._function != "multiple"
        pdu = write_pdu(start, data, single)
        if not single:
            self._heads[start, size] = pdu.data[:-size]
        return Segment(pdu, points)


def _roundings(control: Control) -> dict[str, Rounding]:
    """How each commanded point is rounded: never above a ceiling."""
    return {
        write.point: Rounding.TOWARD_ZERO
        for write in control.writes
        if write.quantity in _KEPT_BY_ROUNDING_DOWN
        or (control.power == "ceiling" and write.quantity not in (None, CommandQuantity.REVERSION_S))
    }
