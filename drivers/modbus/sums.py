"""Values that a device gives only in parts: a signed power as charge and discharge, a total as its phases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from config.profile import Profile
from config.vocabulary import Quality, Sample


class _Sum(NamedTuple):
    name: str
    parts: tuple[tuple[str, float], ...]
    low: float
    high: float


class Sums:
    """The summed points of one profile. The schema: the parts of a sum are numbers of one poll group."""

    __slots__ = ("_sums",)

    def __init__(self, profile: Profile) -> None:
        self._sums: Sequence[_Sum] = tuple(
            _Sum(name, tuple(point.sum.items()), *(point.range or (float("-inf"), float("inf"))))
            for name, point in profile.points.items()
            if point.sum is not None
        )

    def __bool__(self) -> bool:
        return bool(self._sums)

    def needs(self, name: str) -> frozenset[str]:
        """The points that a point comes from: its parts, or itself."""
        parts = next((total.parts for total in self._sums if total.name == name), ())
        return frozenset(part for part, _ in parts) or frozenset((name,))

    def add(self, samples: dict[str, Sample]) -> None:
        """Put in each sum whose parts are all there; bad where a part is, measured when the oldest part was."""
        for total in self._sums:
            parts = [(samples[name], factor) for name, factor in total.parts if name in samples]
            if len(parts) == len(total.parts):
                samples[total.name] = _sample(total, parts)


def _sample(total: _Sum, parts: Sequence[tuple[Sample, float]]) -> Sample:
    measured_s = min(sample.measured_s for sample, _ in parts)
    value = 0.0
    for sample, factor in parts:
        if not isinstance(sample.value, int | float):
            return Sample(None, Quality.BAD, measured_s)
        value += factor * sample.value
    if not total.low <= value <= total.high:
        return Sample(None, Quality.BAD, measured_s)
    return Sample(value, min(sample.quality for sample, _ in parts), measured_s)
