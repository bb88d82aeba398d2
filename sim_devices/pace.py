"""Physics in real time: as many steps as the clock has gone on, no drift, and no endless catching up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from config.vocabulary import Clock

STEPS_AT_ONCE: Final = 20
AT_ONCE_S: Final = 0.0005
"""Other tasks, the servers' answers among them, get a turn after so many steps, or after the one that ends later."""

MOST_BEHIND_S: Final = 1.0
"""After a longer halt of the process the time in between is left out, not simulated."""


class Steps(Protocol):
    """What is stepped: the physics of a site, or of several together."""

    @property
    def step_s(self) -> float: ...
    @property
    def now_s(self) -> float: ...
    def step(self, now_s: float | None = None) -> None: ...


class RealTimePace:
    """Steps a site's physics to a clock, from the time `physics.now_s` on; `lost_steps` counts the steps left out."""

    def __init__(self, physics: Steps, clock: Clock, stepped: Callable[[], None] | None = None) -> None:
        self.lost_steps = 0
        self._physics = physics
        self._clock = clock
        self._stepped = stepped
        self._origin_s = physics.now_s
        self._done = 0

    async def run(self) -> None:
        """Step until cancelled."""
        while True:
            self.catch_up()
            next_s = self._origin_s + (self._done + 1) * self._physics.step_s
            await asyncio.sleep(max(0.0, next_s - self._clock()))

    def catch_up(self) -> None:
        """Do the steps that are due now, up to `STEPS_AT_ONCE` or for `AT_ONCE_S`."""
        physics = self._physics
        step_s = physics.step_s
        began_s = self._clock()
        due = int((began_s - self._origin_s) / step_s) - self._done
        excess = due - max(1, round(MOST_BEHIND_S / step_s))
        if excess > 0:
            self._done += excess
            self.lost_steps += excess
            due -= excess
        for _ in range(min(due, STEPS_AT_ONCE)):
            self._done += 1
            physics.step(self._origin_s + self._done * step_s)
            if self._stepped is not None:
                self._stepped()
            if self._clock() - began_s > AT_ONCE_S:
                return
