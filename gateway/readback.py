"""Read-backs: what a device says it was told, held against what it acknowledged last.

A difference means that somebody else writes to the device, that it has gone back to its defaults, or that it accepts
what it does not do. Pure but for what it remembers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from config.profile import Access, CommandQuantity, ControlWrite, PointProfile
from config.vocabulary import Quality
from drivers.binding import DeviceBinding
from drivers.commands import setpoint_commands
from gateway.image import DeviceImage, Image

SETTLE_S: Final = 2.0
"""A device may show a setpoint this much later than it acknowledges it."""

ANSWERED_LATE_S: Final = 1.0
"""A sample may show a setpoint whose acknowledgement came only after it."""

LOOK_S: Final = 1.0

KEPT: Final = 64
"""Setpoints remembered for each device; more within `SETTLE_S` come from nobody but a regulation at 20 ms."""

TOLERANCE_PU: Final = 0.015
"""Of the value at the rating: registers that count in percent round by up to 1 %."""

RATING_TOLERANCE_PU: Final = 0.02

_NEVER_COMPARED: Final = (CommandQuantity.COUNTER, CommandQuantity.REVERSION_S)
"""Counters are the device's to answer, and a timer that was armed runs down."""


class Difference(NamedTuple):
    """A point that reads another value than was written, or than the site file has, in its unit and load convention."""

    device: str
    point: str
    asked: float
    read: float
    was_written: bool = True

    def text(self) -> str:
        """In words."""
        if not self.was_written:
            return f"{self.device}: {self.point} reads {self.read:g}, the site file's rating_w is {self.asked:g}"
        return f"{self.device}: {self.point} reads {self.read:g}, {self.asked:g} was written"


@dataclass(frozen=True, slots=True)
class _Device:
    binding: DeviceBinding
    tolerances: Mapping[str, float]
    numbers: Mapping[str, Mapping[str, float]]
    worked_out: dict[float, Mapping[str, float]] = field(default_factory=dict)

    def asked(self, power_w: float) -> Mapping[str, float]:
        """What a setpoint makes of the points; those that it leaves alone are not there."""
        known = self.worked_out.get(power_w)
        if known is None:
            control = self.binding.profile.control
            assert control is not None
            if len(self.worked_out) > KEPT:
                self.worked_out.clear()
            commands = setpoint_commands(control, power_w, self.binding, 0)
            known = self.worked_out[power_w] = {each.point: each.value for each in commands}
        return known


class ReadBackWatch:
    """Compares each commanded point that can be read with the last acknowledged setpoint.

    Besides, what a device takes per-unit setpoints as parts of is compared with the site file's rating.
    """

    def __init__(self, bindings: Sequence[DeviceBinding]) -> None:
        devices = {binding.name: _watched(binding) for binding in bindings if binding.writable}
        self._devices = {name: watched for name, watched in devices.items() if watched.tolerances}
        self._ratings = {
            binding.name: (point, binding.rating_w) for binding in bindings if (point := _per_unit_of(binding))
        }
        self._written: dict[str, deque[tuple[float, float]]] = {}
        self._due_s = 0.0
        self._differences: dict[tuple[str, str], Difference] = {}

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What differs now."""
        return tuple(self._differences.values())

    def acknowledged(self, device: str, power_w: float, at_s: float) -> None:
        """A setpoint was acknowledged at a monotonic time."""
        if device not in self._devices:
            return
        written = self._written.setdefault(device, deque(maxlen=KEPT))
        if not written or written[-1][1] != power_w:
            written.append((at_s, power_w))

    def forget(self, device: str) -> None:
        """The device was away: nothing that was written before counts."""
        self._written.pop(device, None)
        for key in [key for key in self._differences if key[0] == device]:
            del self._differences[key]

    def look(self, image: Image) -> list[Difference]:
        """The differences that this image shows for the first time; looks every `LOOK_S`."""
        if image.now_s < self._due_s:
            return []
        self._due_s = image.now_s + LOOK_S
        new = []
        for difference in (*self._beside_what_was_written(image), *self._beside_the_rating(image)):
            key = difference.device, difference.point
            if key not in self._differences:
                new.append(difference)
            self._differences[key] = difference
        return new

    def _beside_what_was_written(self, image: Image) -> Iterator[Difference]:
        for name, written in self._written.items():
            device = image.devices.get(name)
            if device is not None and device.present:
                yield from self._of(self._devices[name], device, written)

    def _beside_the_rating(self, image: Image) -> Iterator[Difference]:
        for name, (point, rating_w) in self._ratings.items():
            device = image.devices.get(name)
            sample = None if device is None else device.sample(point)
            if sample is None or sample.quality is Quality.BAD or not isinstance(sample.value, float):
                continue
            if abs(sample.value - rating_w) > RATING_TOLERANCE_PU * rating_w:
                yield Difference(name, point, rating_w, sample.value, was_written=False)
            else:
                self._differences.pop((name, point), None)

    def _of(
        self, watched: _Device, device: DeviceImage, written: Iterable[tuple[float, float]]
    ) -> Iterator[Difference]:
        name = watched.binding.name
        for point, tolerance in watched.tolerances.items():
            sample = device.sample(point)
            read = watched.numbers[point].get(sample.value) if isinstance(sample.value, str) else sample.value
            if sample.quality is Quality.BAD or not isinstance(read, float | int):
                continue
            asked = [watched.asked(power_w).get(point) for power_w in _in_force(written, sample.measured_s)]
            values = [value for value in asked if value is not None]
            if not values or len(values) < len(asked):
                continue
            if all(abs(read - value) > tolerance for value in values):
                yield Difference(name, point, values[-1], float(read))
            else:
                self._differences.pop((name, point), None)


def _per_unit_of(binding: DeviceBinding) -> str | None:
    control = binding.profile.control
    return None if control is None else control.per_unit_of


def _in_force(written: Iterable[tuple[float, float]], measured_s: float) -> list[float]:
    """What may have been in force when a sample was taken; empty while the first is too new to tell."""
    before: float | None = None
    since: list[float] = []
    for at_s, power_w in written:
        if at_s <= measured_s - SETTLE_S:
            before = power_w
        elif at_s <= measured_s + ANSWERED_LATE_S:
            since.append(power_w)
    return [] if before is None else [before, *since]


def _watched(binding: DeviceBinding) -> _Device:
    control, points = binding.profile.control, binding.profile.points
    if control is None:
        return _Device(binding, {}, {})
    compared = [write for write in control.writes if _is_compared(write, points[write.point])]
    at_rating: dict[str, float] = {}
    for power_w in (binding.rating_w, -binding.rating_w):
        for command in setpoint_commands(control, power_w, binding, 0):
            at_rating[command.point] = max(abs(command.value), at_rating.get(command.point, 0.0))
    tolerances = {write.point: _tolerance(write, points[write.point], at_rating) for write in compared}
    numbers = {
        write.point: {text: float(raw) for raw, text in (points[write.point].values or {}).items() if _is_number(raw)}
        for write in compared
    }
    return _Device(binding, tolerances, numbers)


def _is_compared(write: ControlWrite, point: PointProfile) -> bool:
    return point.access is Access.RW and write.quantity not in _NEVER_COMPARED and not write.skip_when_idle


def _tolerance(write: ControlWrite, point: PointProfile, at_rating: Mapping[str, float]) -> float:
    """A mode is equal or another one; a quantity is rounded by the device."""
    if write.quantity is None:
        return 1e-6
    return max(TOLERANCE_PU * at_rating.get(write.point, 0.0), abs(point.scale), 1e-6)


def _is_number(raw: int | str) -> bool:
    return isinstance(raw, int)
