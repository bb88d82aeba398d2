"""A device's power over time: what was measured, what was commanded when, and what follows from both.

A device answers a command after its dead time, then with first order (Tr90). The declared lag is taken to be right
within a factor of two: what was not measured is a span, from the fastest to the slowest of the lags that are possible.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from math import exp
from typing import Final, NamedTuple

LN_10: Final = 2.302585092994046

FASTEST: Final = 0.45
SLOWEST: Final = 2.2
"""The real lag is between these multiples of the declared one: a factor of two, and a tenth for the cycles."""

WRITE_SLACK_S: Final = 0.1
"""A command may take this much longer to reach its device: a queue, a bus, one cycle."""

SAMPLES_KEPT: Final = 512
SPACING_S: Final = 0.05
"""Samples closer than this replace each other, so that the history reaches back 25 s at any rate."""

COMMANDS_KEPT: Final = 128
COMMANDS_PER_RESPONSE: Final = 32
"""Commands closer than this part of the response are one."""

SAME_COMMAND_PU: Final = 0.002
"""A command that differs by less of the device's rating is the same."""

INTERPOLATED_PU: Final = 0.05
"""Between samples closer than this part of Tr90 the power is a straight line."""


class Span(NamedTuple):
    """Power that is not measured: the least, what the declared lag gives, and the most, watts."""

    low_w: float
    expected_w: float
    high_w: float


@dataclass(slots=True)
class Trajectory:
    """One device's samples and commands, oldest first; `tr90_s` and `dead_time_s` as declared or commissioned.

    `arrival_s` after a command even the slowest device that is possible has arrived, to 1 %. `moved_s`: when the last
    step was commanded, `asked_w` the last command of all. `beside_w`: so far beside its commands it comes to rest.
    """

    tr90_s: float
    dead_time_s: float
    times_s: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    powers_w: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    commanded_s: deque[float] = field(default_factory=lambda: deque(maxlen=COMMANDS_KEPT))
    commands_w: deque[float] = field(default_factory=lambda: deque(maxlen=COMMANDS_KEPT))
    moved_s: float = float("-inf")
    asked_w: float | None = None
    beside_w: float = 0.0
    arrival_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.arrival_s = SLOWEST * (self.dead_time_s + 2.0 * self.tr90_s) + WRITE_SLACK_S

    def add(self, time_s: float, power_w: float) -> None:
        """Append a sample newer than the last; an older or equal one is ignored."""
        times = self.times_s
        if times:
            if time_s <= times[-1]:
                return
            if len(times) > 1 and time_s - times[-2] < SPACING_S:
                times[-1], self.powers_w[-1] = time_s, power_w
                return
        times.append(time_s)
        self.powers_w.append(power_w)

    def command(self, now_s: float, power_w: float, rating_w: float, step_w: float) -> bool:
        """What the device was asked for. True for a change above `step_w`, after which the device has to settle."""
        self.asked_w = power_w
        if not self.commands_w:
            self.commanded_s.append(now_s)
            self.commands_w.append(power_w)
            self.moved_s = now_s
            return True
        change_w = abs(power_w - self.commands_w[-1])
        if change_w <= SAME_COMMAND_PU * rating_w:
            return False
        if change_w > step_w:
            self.moved_s = now_s
        apart_s = (self.tr90_s + self.dead_time_s) / COMMANDS_PER_RESPONSE
        if len(self.commands_w) > 1 and now_s - self.commanded_s[-1] < apart_s:
            self.commands_w[-1] = power_w
        else:
            self.commanded_s.append(now_s)
            self.commands_w.append(power_w)
        return change_w > step_w

    def at(self, time_s: float) -> Span | None:
        """Power at a time, past or future; None without any sample. Before the first sample it is the first one."""
        times, powers = self.times_s, self.powers_w
        if not times:
            return None
        last_s = times[-1]
        if time_s >= last_s:
            return self._after(last_s, powers[-1], time_s)
        after = len(times) - 1 if len(times) > 1 and times[-2] <= time_s else bisect_right(times, time_s)
        if after == 0:
            return Span(powers[0], powers[0], powers[0])
        return self._between(after, time_s)

    def towards(self, share_w: float, now_s: float, to_s: float, rating_w: float) -> Span | None:
        """Power at a time to come if `share_w` is asked for now; None without any sample.

        What it delivers beside what it is asked for is left out: the bounds of the sum have it in them.
        """
        if not self.times_s:
            return None
        if self.commands_w and abs(share_w - self.commands_w[-1]) <= SAME_COMMAND_PU * rating_w:
            if self._stays(self.times_s[-1]):
                return Span(share_w, share_w, share_w)
            return self._after(self.times_s[-1], self.powers_w[-1], to_s, besides=False)
        return self._after(self.times_s[-1], self.powers_w[-1], to_s, (now_s, share_w), besides=False)

    def _after(
        self,
        from_s: float,
        power_w: float,
        to_s: float,
        new: tuple[float, float] | None = None,
        *,
        besides: bool = True,
    ) -> Span:
        """With `besides` what the device delivers, else that less what it delivers beside its commands."""
        less_w = 0.0 if besides else self.beside_w
        if to_s <= from_s or (new is None and self._stays(from_s)):
            return Span(power_w - less_w, power_w - less_w, power_w - less_w)
        fast, expected, slow = (
            self._run(from_s, power_w, to_s, scale, new) - less_w for scale in (FASTEST, 1.0, SLOWEST)
        )
        return Span(min(fast, expected, slow), expected, max(fast, expected, slow))

    def _between(self, after: int, time_s: float) -> Span:
        """Straight where samples are dense or the device rests, else as the lag goes, bent to meet the later sample."""
        from_s, to_s = self.times_s[after - 1], self.times_s[after]
        before_w, after_w = self.powers_w[after - 1], self.powers_w[after]
        share = (time_s - from_s) / (to_s - from_s)
        straight = before_w + share * (after_w - before_w)
        if to_s - from_s <= INTERPOLATED_PU * self.tr90_s or self._stays(from_s):
            return Span(straight, straight, straight)
        bent = [
            self._run(from_s, before_w, time_s, scale) + share * (after_w - self._run(from_s, before_w, to_s, scale))
            for scale in (FASTEST, 1.0, SLOWEST)
        ]
        # The dead time may have ended at any time in between.
        return Span(min(*bent, before_w, after_w), bent[1], max(*bent, before_w, after_w))

    def _stays(self, time_s: float) -> bool:
        """Whether a device that was measured then has arrived; where it came to rest is where it stays."""
        return not self.commands_w or time_s - self.commanded_s[-1] >= self.arrival_s

    def _run(
        self, from_s: float, power_w: float, to_s: float, scale: float, new: tuple[float, float] | None = None
    ) -> float:
        """Where a device whose lag is `scale` times the declared one is at `to_s`; `new` comes after the commands."""
        tau_s, beside_w = self.tr90_s * scale / LN_10, self.beside_w
        dead_s = self.dead_time_s * scale + (WRITE_SLACK_S if scale > 1.0 else 0.0)
        heading_w: float | None = None
        later: list[tuple[float, float]] = []
        if new is not None and new[0] + dead_s < to_s:
            later.append((max(new[0] + dead_s, from_s), new[1] + beside_w))
        for issued_s, asked_w in zip(reversed(self.commanded_s), reversed(self.commands_w), strict=True):
            if issued_s + dead_s <= from_s:
                # Where a device had arrived long ago, a newer command has moved it away from; it does not go back.
                heading_w = asked_w + beside_w if issued_s + self.arrival_s > from_s else None
                break
            if issued_s + dead_s < to_s:
                later.append((issued_s + dead_s, asked_w + beside_w))
        at_s = from_s
        for effect_s, asked_w in reversed(later):
            if heading_w is not None:
                power_w = heading_w + (power_w - heading_w) * exp(-(effect_s - at_s) / tau_s)
            at_s, heading_w = effect_s, asked_w
        if heading_w is None:
            return power_w
        return heading_w + (power_w - heading_w) * exp(-(to_s - at_s) / tau_s)

    def steady_w(self, time_s: float, within_w: float) -> float | None:
        """The command that a sample of that time answers, if it had all the time that it takes; None while it moved."""
        if time_s - self.moved_s < self.arrival_s or not self.commanded_s:
            return None
        if self.commanded_s[-1] <= time_s - self.arrival_s:
            return self.asked_w
        asked: list[float] = []
        for issued_s, asked_w in zip(reversed(self.commanded_s), reversed(self.commands_w), strict=True):
            if issued_s <= time_s:
                asked.append(asked_w)
                if issued_s <= time_s - self.arrival_s:
                    break
        if not asked or max(asked) - min(asked) > within_w:
            return None
        return self.asked_w if asked[0] == self.commands_w[-1] else asked[0]

    def asked_since(self, time_s: float) -> list[float]:
        """The commands from that time on, and the one in force then."""
        asked: list[float] = []
        for issued_s, asked_w in zip(reversed(self.commanded_s), reversed(self.commands_w), strict=True):
            asked.append(asked_w)
            if issued_s <= time_s:
                break
        return asked
