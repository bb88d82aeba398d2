"""How long to wait before the next attempt."""

from __future__ import annotations

import random


class Backoff:
    """Doubling pauses with jitter, from `first_s` to `cap_s`; each is drawn from the upper half, so never near zero.

    The random source is injected, so that a run can be repeated.
    """

    __slots__ = ("_cap_s", "_first_s", "_next_s", "_rng")

    def __init__(self, rng: random.Random, first_s: float, cap_s: float) -> None:
        self._rng = rng
        self._first_s = first_s
        self._cap_s = cap_s
        self._next_s = first_s

    def pause_s(self) -> float:
        """The pause before the next attempt; the one after it is twice as long, up to the cap."""
        pause_s = self._next_s * self._rng.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2.0, self._cap_s)
        return pause_s

    def reset(self) -> None:
        """Begin again with the shortest pause, after a success."""
        self._next_s = self._first_s
