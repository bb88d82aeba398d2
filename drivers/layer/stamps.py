"""When something was stamped by another wall clock, on our monotonic one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

    from config.vocabulary import Clock

_DRIFT: Final = 1e-4
"""How fast two clocks may go apart, seconds a second: ten times a bad quartz."""


class StampClock:
    """Maps the times that a layer stamps on its messages to monotonic seconds.

    The fastest delivery so far is taken to have taken no time: so neither a wrong wall clock nor a message that waited
    somewhere makes an old value look new.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_s: float | None = None
        self._heard_s = 0.0

    def heard(self, stamped: datetime) -> None:
        """A message that was stamped then has just arrived."""
        now_s = self._clock()
        offset_s = now_s - stamped.timestamp()
        if self._offset_s is not None:
            offset_s = min(offset_s, self._offset_s + _DRIFT * (now_s - self._heard_s))
        self._offset_s, self._heard_s = offset_s, now_s

    def monotonic_s(self, stamped: datetime) -> float:
        """The monotonic time of a stamp, never in the future."""
        now_s = self._clock()
        return now_s if self._offset_s is None else min(stamped.timestamp() + self._offset_s, now_s)

    def forget(self) -> None:
        """The other clock may have been set: begin anew."""
        self._offset_s = None
