"""Whether the meter can be believed: our own steps must show in it, with the right sign.

The devices say themselves how far they moved. Over a window that has their movement well inside it, the meter's
readings are compared with what a good meter would read (it follows the devices), a dead one (nothing) and a reversed
one (the opposite), as the variance of what is left over, in parts of the devices' own:

- good: at most `GOOD_REST` is left if the meter follows;
- unseen: at most `BAD_REST` is left if it stands still, for a movement that the meter itself did not cause (an order,
  or control without the meter): behind a good meter the devices may cancel a load that moves, which looks the same
  but for the moment before they do, so that no reading may go further than `SHOWN` of the movement either.
  A value that does not change in its last digit for `FROZEN_S` while the devices move needs no such cause;
- reversed: at most `BAD_REST` is left if it mirrors them, and no reading goes further than the mirror by `SHOWN` of the
  movement: a jump of the load to about twice a limit looks mirrored once the devices have answered it, but not before.

A movement counts if it is `LEAST_PU` of the rating and `STEP_OVER_NOISE` times the second largest jump of the rest
of the last half hour (the part that no meter could have made of the devices' own movement; the largest may be the
fault's beginning), beyond the doubt about the devices' own power. A false alarm needs a jump of a size that was not
seen twice lately, that no answer of control follows, opposite to our step, equal to it within 30 %, and within the
same sample. One bad window makes the meter doubted: control goes on as with a lost meter, from the rest before the
window, which moves the devices back and tests the meter again. A second one latches fail-safe, until an operator
releases it or `PROOFS` good windows in a row.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, NamedTuple

from gateway.control.meter_window import MeterWindow, Record

LEAST_PU: Final = 0.05
STEP_OVER_NOISE: Final = 4.0
GOOD_REST: Final = 0.4
BAD_REST: Final = 0.08
MIRRORED_OVER_NOISE: Final = 10.0
"""A mirrored movement of this size is believed without a cause of its own: no load mirrors the devices by chance."""

CAUSED: Final = 0.2
"""What orders ask for is at least this part of a movement that they cause: with a dead meter control runs on."""

CLEARS_PU: Final = 0.02
"""A doubted meter that follows a movement of this size with no more than `BAD_REST` left over is good, at any noise."""

SHOWN: Final = 0.3
"""A meter that is blind or reversed shows at most this part of the movement more than it should, at any moment."""

RECORDS_KEPT: Final = 512
DOUBTED_WINDOW_S: Final = 60.0
FROZEN_S: Final = 5.0
PROOFS: Final = 3
LEAST_SLACK_S: Final = 0.5
SLACKS_PER_WINDOW: Final = 4.0
RECORDS_PER_SLACK: Final = 4.0
NOISE_AT_START_PU: Final = 0.03
NOISE_FLOOR_PU: Final = 0.01
NOISE_HALF_LIFE_S: Final = 1800.0
OURS: Final = 2.5
"""A wrong meter makes the rest jump by up to twice what the devices move; what is beyond this multiple is noise."""


class Trust(Enum):
    GOOD = "good"
    DOUBTED = "doubted"
    LATCHED = "latched"


class Cause(NamedTuple):
    """What orders ask of the connection point in a cycle; any change of it is no answer to the meter."""

    since_s: float
    lower_w: float
    upper_w: float
    target_w: float | None


@dataclass(slots=True)
class MeterTrust:
    """The state of the test; `reason` says what was seen, empty while the meter is good."""

    rating_w: float
    state: Trust = Trust.GOOD
    reason: str = ""
    largest_w: float = 0.0
    noise_w: float = 0.0
    proofs: int = 0
    slack_s: float = LEAST_SLACK_S
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=RECORDS_KEPT))
    causes: deque[Cause] = field(default_factory=lambda: deque(maxlen=128))
    unchanged: Record | None = None
    repeats: int = 0
    least_w: float = inf
    most_w: float = -inf

    @property
    def good(self) -> bool:
        return self.state is Trust.GOOD

    def release(self) -> None:
        """The operator's word that the meter is good."""
        self.state, self.reason, self.proofs = Trust.GOOD, "", 0
        self.records.clear()
        self.unchanged = None

    def ask(self, now_s: float, lower_w: float, upper_w: float, target_w: float | None) -> None:
        """Note what orders ask for from now on."""
        if not self.causes or self.causes[-1][1:] != (lower_w, upper_w, target_w):
            self.causes.append(Cause(now_s, lower_w, upper_w, target_w))

    def observe(self, record: Record, gap_s: float, arrival_s: float) -> Record | None:
        """A new reading; returns the record before the window that made the meter doubted, if this one did.

        `gap_s`: the longer of the times between two meter samples and between two samples of a device. `arrival_s`: how
        long after its cause a movement may still go on.
        """
        self._count_repeats(record)
        self.least_w, self.most_w = min(self.least_w, record.meter_w), max(self.most_w, record.meter_w)
        self.slack_s = max(LEAST_SLACK_S, 1.5 * gap_s)
        if self.records and record.time_s - self.records[-1].time_s < self.slack_s / RECORDS_PER_SLACK:
            return None
        self._learn_noise(record)
        self.records.append(record._replace(least_w=self.least_w, most_w=self.most_w))
        self.least_w, self.most_w = inf, -inf
        window_s = SLACKS_PER_WINDOW * self.slack_s
        # Without the meter nothing that moves answers it, and a slow movement may be looked at for longer.
        longest_s = window_s if self.good else max(window_s, DOUBTED_WINDOW_S)
        while len(self.records) > 2 and self.records[1].time_s <= record.time_s - longest_s:
            self.records.popleft()
        for window in self._windows(window_s):
            verdict = self._verdict(window, window_s, arrival_s)
            if verdict is not None:
                self.records.clear()
                self.records.append(record)
                self.unchanged, self.repeats = record, 0
                return self._judge(verdict, window)
        return None

    def _windows(self, window_s: float) -> list[MeterWindow]:
        """The last `window_s`, and all that is kept where that is more."""
        records = list(self.records)
        if len(records) < 2 or records[-1].time_s - records[0].time_s < 0.9 * window_s:
            return [MeterWindow(records, self.slack_s)] if self._frozen(window_s) else []
        starts = [at for at, one in enumerate(records) if one.time_s <= records[-1].time_s - window_s]
        short = MeterWindow(records[starts[-1] if starts else 0 :], self.slack_s)
        return [short] if len(short.records) == len(records) else [short, MeterWindow(records, self.slack_s)]

    def _judge(self, verdict: str, window: MeterWindow) -> Record | None:
        if verdict == "good":
            self.proofs += 1
            if self.state is Trust.DOUBTED or self.proofs >= PROOFS:
                self.state, self.reason = Trust.GOOD, ""
            return None
        self.proofs = 0
        shown_w = window.last.meter_w - window.first.meter_w
        self.reason = (
            f"the meter is {verdict}: it showed {shown_w:+.0f} W when the devices moved by {window.moved_w:+.0f} W"
        )
        if self.state is Trust.GOOD:
            self.state = Trust.DOUBTED
            return window.first
        self.state = Trust.LATCHED
        return None

    def _count_repeats(self, record: Record) -> None:
        if self.unchanged is None or record.meter_w != self.unchanged.meter_w:
            self.unchanged, self.repeats = record, 0
        else:
            self.repeats += 1

    def _learn_noise(self, record: Record) -> None:
        """`noise_w` is the second largest jump lately, which fades."""
        floor_w = NOISE_FLOOR_PU * self.rating_w
        if not self.records or not self.good:
            if self.largest_w == 0.0:
                self.largest_w = self.noise_w = NOISE_AT_START_PU * self.rating_w
            return
        last = self.records[-1]
        moved_w = record.devices.expected_w - last.devices.expected_w
        jump_w = (
            abs(record.meter_w - last.meter_w - moved_w)
            - OURS * abs(moved_w)
            - MeterWindow((last, record), 0.0).doubt_w
        )
        fade = 0.5 ** ((record.time_s - last.time_s) / NOISE_HALF_LIFE_S)
        smallest_w, self.noise_w, self.largest_w = sorted((self.noise_w * fade, self.largest_w * fade, jump_w))
        self.noise_w = max(self.noise_w, smallest_w, floor_w)

    def _verdict(self, window: MeterWindow, window_s: float, arrival_s: float) -> str | None:
        """What a window shows: "good", "frozen", "blind to the devices", "reversed"; None where it shows nothing."""
        if self._frozen(window_s):
            return "frozen"
        moved_w = abs(window.moved_w)
        clears = not self.good and moved_w >= CLEARS_PU * self.rating_w + window.doubt_w and window.inside()
        if clears and window.left_over_pu(1.0) <= BAD_REST:
            return "good"
        least_w = max(LEAST_PU * self.rating_w, STEP_OVER_NOISE * self.noise_w)
        if moved_w < least_w + STEP_OVER_NOISE * window.doubt_w or not window.inside():
            return None
        if window.left_over_pu(1.0) <= GOOD_REST:
            return "good"
        own, shown_pu = not self.good or self._caused(window, arrival_s), window.shown_pu()
        if own and shown_pu <= SHOWN and window.left_over_pu(0.0) <= BAD_REST:
            return "blind to the devices"
        mirrored = shown_pu <= 1.0 + SHOWN and window.left_over_pu(-1.0) <= BAD_REST
        return "reversed" if mirrored and (own or moved_w >= MIRRORED_OVER_NOISE * self.noise_w) else None

    def _frozen(self, window_s: float) -> bool:
        since, last = self.unchanged, self.records[-1]
        if since is None or self.repeats < 3 or last.time_s - since.time_s < max(window_s, FROZEN_S):
            return False
        window = MeterWindow((since, last), self.slack_s)
        return abs(window.moved_w) >= LEAST_PU * self.rating_w + window.doubt_w

    def _caused(self, window: MeterWindow, arrival_s: float) -> bool:
        """Whether orders asked for a good part of the movement, in its direction, not long before it."""
        before = [one for one in self.causes if one.since_s <= window.first.time_s - arrival_s] or list(self.causes)[:1]
        after = [one for one in self.causes if one.since_s <= window.last.time_s]
        if not before or not after:
            return False
        moved_w = window.moved_w
        was, now = before[-1], after[-1]
        asked_w = [now.lower_w - was.lower_w, now.upper_w - was.upper_w]
        if now.target_w is not None and was.target_w is not None:
            asked_w.append(now.target_w - was.target_w)
        elif now.target_w is not was.target_w:
            asked_w.append(moved_w)
        return any(asked * moved_w > 0.0 and abs(asked) >= CAUSED * abs(moved_w) for asked in asked_w)
