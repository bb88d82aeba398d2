"""Seeded disturbances on top of the series: load that switches on and off, and the shadows of clouds."""

from __future__ import annotations

from collections import deque
from random import Random

from config.twin import Clouds, LoadSteps


class SteppingLoad:
    """Uncontrolled consumers that switch on at random and off again: `step` gives their sum in watts (positive).

    Sizes are uniform between a quarter and the whole of `size_w`; intervals and durations are exponential.
    """

    def __init__(self, settings: LoadSteps, rng: Random) -> None:
        self._settings = settings
        self._rng = rng
        self._next_s = rng.expovariate(1.0 / settings.mean_interval_s)
        self._on: list[tuple[float, float]] = []

    def step(self, elapsed_s: float) -> float:
        """The load at `elapsed_s` after the start; called with rising times."""
        while elapsed_s >= self._next_s:
            size_w = self._settings.size_w * self._rng.uniform(0.25, 1.0)
            duration_s = self._rng.expovariate(1.0 / self._settings.mean_duration_s)
            self._on.append((self._next_s + duration_s, size_w))
            self._next_s += self._rng.expovariate(1.0 / self._settings.mean_interval_s)
        if self._on:
            self._on = [item for item in self._on if item[0] > elapsed_s]
        return sum(size_w for _, size_w in self._on)


class CloudShadow:
    """One cloud after another: `step` gives the factor on irradiance, 1 under a clear sky.

    A shadow goes down and up along a cubic ramp of `ramp_s`; its depth is uniform between a quarter and all of `depth`.
    """

    def __init__(self, settings: Clouds, rng: Random) -> None:
        self._settings = settings
        self._rng = rng
        self._corners: deque[tuple[float, float]] = deque([(0.0, 1.0)])
        self._plan()

    def step(self, elapsed_s: float) -> float:
        """The factor at `elapsed_s` after the start; called with rising times."""
        while elapsed_s >= self._corners[1][0]:
            self._corners.popleft()
            if len(self._corners) == 1:
                self._plan()
        (begin_s, begin), (end_s, end) = self._corners[0], self._corners[1]
        share = (elapsed_s - begin_s) / (end_s - begin_s)
        return begin + (end - begin) * share * share * (3.0 - 2.0 * share)

    def _plan(self) -> None:
        settings, rng = self._settings, self._rng
        at_s = self._corners[-1][0]
        shade = 1.0 - settings.depth * rng.uniform(0.25, 1.0)
        for duration_s, factor in (
            (rng.expovariate(1.0 / settings.mean_interval_s), 1.0),
            (settings.ramp_s, shade),
            (rng.expovariate(1.0 / settings.mean_duration_s), shade),
            (settings.ramp_s, 1.0),
        ):
            at_s += max(duration_s, 1e-3)
            self._corners.append((at_s, factor))
