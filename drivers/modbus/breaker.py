"""What a unit that does not answer may cost the others on its link."""

from __future__ import annotations

import random
from typing import Final

_OPENS_AT: Final = 3.0
# One lost answer in ten good ones is forgiven; a unit that is silent to every other request is not.
_ANSWER_COUNTS: Final = 0.1
_SHORTEST_PAUSE_S: Final = 1.0
# With a time-out and the first reads, a unit that has come back is served within 30 s.
LONGEST_PAUSE_S: Final = 27.0
_PAUSE_PER_TIMEOUT: Final = 4.0
"""With pauses of 4, 8, 16 and 27 s for a time-out of 1 s, the probes of the first minute take 3 s of it."""


class UnitBreaker:
    """Opens after three time-outs in a row, or more time-outs than answers make good; then each probe that fails
    doubles the pause before the next one, up to the longest. A unit that has come back must answer for a while before
    its next time-out counts as its first.
    """

    __slots__ = ("_level", "_next_s", "_rng", "_shortest_s", "is_open")

    def __init__(self, rng: random.Random, timeout_s: float) -> None:
        self._rng = rng
        self._shortest_s = self._next_s = min(max(_SHORTEST_PAUSE_S, _PAUSE_PER_TIMEOUT * timeout_s), LONGEST_PAUSE_S)
        self._level = 0.0
        self.is_open = False

    def answered(self) -> None:
        """The unit answered, whatever it said."""
        self.is_open = False
        if self._level > 0.0:
            self._level = max(0.0, self._level - _ANSWER_COUNTS)
            if self._level <= 1.0:
                self._next_s = self._shortest_s

    def unanswered(self, write: bool) -> bool:
        """The unit did not answer; whether this opens the breaker. Writes alone don't: reads may still be answered."""
        self._level += 1.0
        if write and not self.is_open:
            self._level = min(self._level, _OPENS_AT - 1.0)
        if self._level < _OPENS_AT:
            return False
        self.is_open = True
        self._level = _OPENS_AT - 1.0
        return True

    def pause_s(self) -> float:
        """How long to leave the unit alone now; 0 while the breaker is closed."""
        if not self.is_open:
            return 0.0
        pause_s = self._next_s * self._rng.uniform(0.9, 1.0)
        self._next_s = min(2.0 * self._next_s, LONGEST_PAUSE_S)
        return pause_s
