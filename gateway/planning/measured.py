"""Means over the steps of the clock, of what control measures: the planner's history is made of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

KEPT_STEPS: Final = 576
"""A planner that comes back after two days finds nothing missing."""

LEAST_SHARE: Final = 0.5
"""A mean over less than this part of a step is a gap."""


class Means(NamedTuple):
    """One step, which begins at a multiple of its length: mean rest, and mean sun per unit of the ratings."""

    begin_utc_s: float
    rest_w: float | None
    sun_pu: float | None


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    seconds: float = 0.0

    def add(self, value: float | None, dt_s: float) -> None:
        if value is not None:
            self.total += value * dt_s
            self.seconds += dt_s

    def over(self, step_s: float) -> float | None:
        return self.total / self.seconds if self.seconds >= LEAST_SHARE * step_s else None


@dataclass(slots=True)
class StepMeans:
    """Takes samples at any pace; `steps` has the steps that are over, oldest first."""

    step_s: float
    longest_s: float = 10.0
    steps: deque[Means] = field(default_factory=lambda: deque(maxlen=KEPT_STEPS))
    _begin_s: float | None = None
    _last_s: float = 0.0
    _rest: _Mean = field(default_factory=_Mean)
    _sun: _Mean = field(default_factory=_Mean)

    def add(self, utc_s: float, rest_w: float | None, sun_pu: float | None) -> None:
        """A sample, which stands for the time since the one before it; a clock set back begins the step anew."""
        begin_s = utc_s // self.step_s * self.step_s
        if begin_s != self._begin_s:
            if self._begin_s is not None and begin_s > self._begin_s:
                self._close()
            self._begin_s, self._rest, self._sun = begin_s, _Mean(), _Mean()
        dt_s = min(max(utc_s - max(self._last_s, begin_s), 0.0), self.longest_s)
        self._last_s = utc_s
        self._rest.add(rest_w, dt_s)
        self._sun.add(sun_pu, dt_s)

    def since(self, utc_s: float) -> list[Means]:
        """The steps that began after a time."""
        return [one for one in self.steps if one.begin_utc_s > utc_s]

    def _close(self) -> None:
        assert self._begin_s is not None
        means = Means(self._begin_s, self._rest.over(self.step_s), self._sun.over(self.step_s))
        if means.rest_w is not None or means.sun_pu is not None:
            self.steps.append(means)
