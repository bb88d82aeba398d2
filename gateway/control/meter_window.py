"""A stretch of meter readings beside what the devices drew: how far these moved, and how the readings go with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from gateway.control.trajectory import Span

EDGE: Final = 0.35
"""At most this part of the movement may lie within the slack at either end of its window."""


class Record(NamedTuple):
    """One reading with what the devices drew at its time, and the rest that control then assumed.

    `least_w` and `most_w` are of all readings since the record before it.
    """

    time_s: float
    meter_w: float
    devices: Span
    rest_w: float
    least_w: float = inf
    most_w: float = -inf


@dataclass(frozen=True, slots=True)
class MeterWindow:
    """Records in order of time, two at least; `slack_s`: how much the meter may lag without saying so."""

    records: Sequence[Record]
    slack_s: float

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def moved_w(self) -> float:
        """How far the devices moved, signed."""
        return self.last.devices.expected_w - self.first.devices.expected_w

    @property
    def doubt_w(self) -> float:
        """How far apart the devices' power may be from what is expected of it, at both ends."""
        first, last = self.first.devices, self.last.devices
        return last.high_w - last.low_w + first.high_w - first.low_w

    def inside(self) -> bool:
        """Whether the movement lies well inside the window, so that a meter that lags a little shows all of it."""
        early = next(one for one in self.records if one.time_s >= self.first.time_s + self.slack_s)
        late = next(one for one in reversed(self.records) if one.time_s <= self.last.time_s - self.slack_s)
        at_start_w = abs(early.devices.expected_w - self.first.devices.expected_w)
        at_end_w = abs(self.last.devices.expected_w - late.devices.expected_w)
        return max(at_start_w, at_end_w) <= EDGE * abs(self.moved_w)

    def shown_pu(self) -> float:
        """How far any two readings are apart, in parts of the devices' movement."""
        least_w = min(self.first.meter_w, *(one.least_w for one in self.records[1:]))
        most_w = max(self.first.meter_w, *(one.most_w for one in self.records[1:]))
        return (most_w - least_w) / abs(self.moved_w)

    def left_over_pu(self, follows: float) -> float:
        """Variance of the readings less `follows` times the devices' power, in parts of that power's own variance."""
        powers_w = [one.devices.expected_w for one in self.records]
        left_w = [one.meter_w - follows * power for one, power in zip(self.records, powers_w, strict=True)]
        return _variance(left_w) / _variance(powers_w)


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)
