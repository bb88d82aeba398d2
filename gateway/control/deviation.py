"""What a settled device delivers beside what it was asked for: a known disturbance, made up for at once.

A battery that answers the grid's frequency by itself, or delivers 95 %, is beside its setpoint by what its samples say.
As with the rest, only what the lag cannot explain counts: the estimate moves only as far as it must to be possible for
a device between half and twice as fast as declared, so that no loop gain comes of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import exp
from typing import Final

from config.vocabulary import DeviceKind
from gateway.control.model import DeviceModel
from gateway.control.trajectory import FASTEST, LN_10, SAME_COMMAND_PU, SLOWEST, WRITE_SLACK_S

NOISE_PU: Final = 0.005
"""Of the device's rating: a sample this close to what was expected is what was expected."""

MOST_PU: Final = 0.1
"""Of the device's rating: further beside its setpoint a device does not follow, which is another matter."""

ARRIVALS: Final = 5.0
"""One that seems not to follow so soon after a step of its own may be far later than declared."""

TURNED_PU: Final = 0.02
SWINGS_WITHIN_S: Final = 10.0
TRUST_DOUBLES_S: Final = 30.0
LEAST_TRUST: Final = 1.0 / 64.0
"""An estimate that turns by more than `TURNED_PU` of the rating soon after it has turned may be chasing a device that
is later than declared: it counts for half each time, and regains its weight."""

PENDING_KEPT: Final = 64


@dataclass(slots=True)
class _Model:
    """Where the commands alone lead a device whose lag is known."""

    tau_s: float
    dead_s: float
    power_w: float = 0.0
    heading_w: float = 0.0
    at_s: float = 0.0
    pending: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=PENDING_KEPT))

    def rest_at(self, now_s: float, power_w: float) -> None:
        self.power_w = self.heading_w = power_w
        self.at_s = now_s
        self.pending.clear()

    def at(self, time_s: float) -> float:
        pending = self.pending
        while pending and pending[0][0] <= time_s:
            effect_s, asked_w = pending.popleft()
            self._run(effect_s)
            self.heading_w = asked_w
        self._run(time_s)
        return self.power_w

    def _run(self, to_s: float) -> None:
        if to_s > self.at_s:
            if self.power_w != self.heading_w:
                left_w = (self.power_w - self.heading_w) * exp(-(to_s - self.at_s) / self.tau_s)
                self.power_w = self.heading_w + (left_w if abs(left_w) > 0.1 else 0.0)
            self.at_s = to_s


@dataclass(slots=True)
class Deviation:
    """One device's measured power less what it was asked for; `ceiling`: only generation beyond its setpoint counts.

    `arrival_s` after a step of its own it has arrived, however slow it may be; until then the estimate stands.
    """

    rating_w: float
    noise_w: float
    arrival_s: float
    fast: _Model
    slow: _Model
    ceiling: bool = False
    known_w: float = 0.0
    trust: float = 1.0
    asked_w: float | None = None
    stepped_s: float = float("-inf")
    _turn_w: float = 0.0
    _turned_s: float = float("-inf")
    _upward: bool = False
    _told_s: float = 0.0

    @property
    def value_w(self) -> float:
        """What others should make up for, watts."""
        most_w = MOST_PU * self.rating_w
        return self.trust * min(max(self.known_w, -most_w), most_w)

    def forget(self) -> None:
        """The device was away, or is left as it is: what it does is no deviation."""
        self.asked_w, self.known_w = None, 0.0

    def command(self, now_s: float, power_w: float, present_w: float) -> None:
        """What the device is asked for now, while it has `present_w`."""
        before_w = self.asked_w
        if before_w is None:
            self.fast.rest_at(now_s, present_w)
            self.slow.rest_at(now_s, present_w)
            before_w = present_w
            self.stepped_s = now_s
        elif abs(power_w - before_w) <= SAME_COMMAND_PU * self.rating_w:
            return
        if abs(power_w - before_w) > MOST_PU * self.rating_w:
            self.stepped_s = now_s
        self.asked_w = power_w
        for model in (self.fast, self.slow):
            if len(model.pending) == PENDING_KEPT:
                model.at(model.pending[0][0])
            model.pending.append((now_s + model.dead_s, power_w))

    def sampled(self, measured_s: float, power_w: float) -> None:
        """A new sample."""
        if self.asked_w is None:
            return
        slow, fast = self.slow, self.fast
        if measured_s <= slow.at_s:
            return
        since_s = measured_s - self.stepped_s
        if since_s < self.arrival_s:
            return
        one_w, other_w = fast.at(measured_s), slow.at(measured_s)
        low_w = power_w - max(one_w, other_w) - self.noise_w
        high_w = power_w - min(one_w, other_w) + self.noise_w
        if self.ceiling:
            # Generating less than its ceiling is what a device has, and no deviation.
            low_w, high_w = min(low_w, 0.0), min(high_w, 0.0)
        before_w = self.known_w
        most_w = MOST_PU * self.rating_w
        if since_s < ARRIVALS * self.arrival_s and (low_w > most_w or high_w < -most_w):
            return
        self.known_w = min(max(before_w, low_w), high_w)
        if self.trust < 1.0 or self.known_w != before_w:
            self._judge(measured_s, before_w)

    def _judge(self, measured_s: float, before_w: float) -> None:
        """Halve the trust in an estimate that swings."""
        # Bounded: on a machine that has been up for 9 h the first power of two is beyond a float.
        doublings = min((measured_s - self._told_s) / TRUST_DOUBLES_S, 64.0)
        self.trust = min(self.trust * 2.0**doublings, 1.0)
        self._told_s = measured_s
        change_w = self.known_w - before_w
        if change_w == 0.0:
            return
        if (change_w > 0.0) == self._upward:
            self._turn_w = self.known_w
            return
        if abs(self.known_w - self._turn_w) <= TURNED_PU * self.rating_w:
            return
        if measured_s - self._turned_s < SWINGS_WITHIN_S:
            self.trust = max(self.trust / 2.0, LEAST_TRUST)
        self._upward, self._turn_w, self._turned_s = change_w > 0.0, self.known_w, measured_s


def deviation_of(model: DeviceModel) -> Deviation | None:
    """What follows a device's deviation; None for one that shows by its power what it has or wants, or layers below.

    Cars take what they like, and a layer has a feedback of its own.
    """
    if not model.controllable or model.kind not in (DeviceKind.BATTERY, DeviceKind.INVERTER):
        return None
    # What is not written yet is no deviation either.
    later_s = WRITE_SLACK_S + model.write_interval_s
    noise_w = NOISE_PU * model.rating_w + model.deadband_w
    fast = _Model(FASTEST * model.tr90_s / LN_10, FASTEST * model.dead_time_s)
    slow = _Model(SLOWEST * model.tr90_s / LN_10, SLOWEST * model.dead_time_s + later_s)
    arrival_s = SLOWEST * (model.dead_time_s + 2.0 * model.tr90_s) + later_s
    return Deviation(model.rating_w, noise_w, arrival_s, fast, slow, model.ceiling)
