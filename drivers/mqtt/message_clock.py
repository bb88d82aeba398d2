"""What the time in a device's messages tells: which were sent again, and how long each was on its way."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from drivers.reading import decimal_number

# Times in whole seconds, and a network's own delays, make a message seem late by less than this.
_UNCERTAIN_S: Final = 2.0
# How fast the clocks of two machines may part: 1 ms a second is far more than a quartz does.
_DRIFT: Final = 1e-3
# A clock that was set back runs beside ours from then on; messages that were stored come faster than they were made.
_SET_ANEW_S: Final = 10.0
_MILLISECONDS_FROM: Final = 1e11  # as seconds, that is the year 5138
_MOST_IN_A_MOMENT: Final = 64
_LONGEST_TEXT: Final = 64


def time_in(raw: object) -> float | None:
    """Seconds since 1970 in a number of seconds or milliseconds, or in ISO 8601 text; None where there is none."""
    if isinstance(raw, bool):
        return None
    number = decimal_number(raw)
    if number is not None:
        return number / 1e3 if abs(number) >= _MILLISECONDS_FROM else number
    if not isinstance(raw, str) or len(raw) > _LONGEST_TEXT:
        return None
    try:
        made = datetime.fromisoformat(raw.strip())
        # Only differences count, so a time that names no zone is as good as any.
        return (made if made.tzinfo is not None else made.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


class MessageClock:
    """Judges the messages of one topic by the time each says it was made; the device's clock may be wrong.

    The least delay that was seen counts as none, so what is told is how much longer a message took than the quickest
    one. A message that is no newer than the newest was sent again, unless the device's clock has been set back: that is
    believed after its times have run beside ours for 10 s.
    """

    __slots__ = ("_heard_s", "_moment", "_newest_s", "_quickest_s", "_run")

    def __init__(self) -> None:
        self._newest_s: float | None = None
        self._moment: set[bytes] = set()
        self._quickest_s: float | None = None
        self._heard_s = 0.0
        self._run: tuple[float, float] | None = None

    def late_s(self, made_s: float, payload: bytes, now_s: float) -> float | None:
        """How long ago (s) a message was made that arrives now; None for one that has come before."""
        lag_s = now_s - made_s
        quickest_s = lag_s if self._quickest_s is None else self._quickest_s + _DRIFT * (now_s - self._heard_s)
        self._quickest_s, self._heard_s = min(lag_s, quickest_s), now_s
        late_s = lag_s - self._quickest_s
        old = self._is_old(made_s, payload)
        if not old and late_s <= _UNCERTAIN_S:
            self._run = None
            late_s = 0.0
        elif self._was_set_anew(lag_s, now_s):
            self._quickest_s, self._run, self._newest_s = lag_s, None, None
            old, late_s = False, 0.0
        if old:
            return None
        self.remember(made_s, payload)
        return late_s

    def remember(self, made_s: float, payload: bytes) -> None:
        """A message that somebody else has kept is not to be taken for a new one when it comes again."""
        if made_s != self._newest_s or len(self._moment) >= _MOST_IN_A_MOMENT:
            self._moment.clear()
        self._newest_s = made_s
        self._moment.add(payload)

    def _is_old(self, made_s: float, payload: bytes) -> bool:
        # Several messages of one second differ in what they say.
        newest_s = self._newest_s
        return newest_s is not None and (made_s < newest_s or (made_s == newest_s and payload in self._moment))

    def _was_set_anew(self, lag_s: float, now_s: float) -> bool:
        if self._run is None or abs(lag_s - self._run[0]) > _UNCERTAIN_S:
            self._run = (lag_s, now_s)
            return False
        return now_s - self._run[1] >= _SET_ANEW_S
