"""How well regulation is being followed, live: precision and the performance score of PJM Manual 12, section 4.5.6.

The asked and the given change of power are averaged over 10 s. Each window of 5 min is scored once, when the response
is known up to 5 min beyond its end; precision counts every average. Nothing grows with time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import sqrt
from typing import Any, Final, NamedTuple

from gateway.control.envelope import regulation_signal
from gateway.cycle import CycleReport

AVERAGE_S: Final = 10.0
WINDOW: Final = 30
SHIFTS: Final = 30
"""Of averages: a window, and how far the response is shifted against the signal at most."""

FLAT_PU: Final = 0.01
"""A side whose standard deviation is below this part of the largest signal so far has no shape to correlate."""

LEAST_MEASURED: Final = 0.5
"""An average of which less than this was measured is none."""

PERIODS_APART: Final = 2.5
LEAST_GAP_S: Final = 0.5
"""Measurements further apart than so many cycles, and this, have nothing measured between them."""

FORGOTTEN_S: Final = 600.0
"""A pause of regulation that is longer than this begins a new record."""


class RegulationFigures(NamedTuple):
    """None where nothing is known yet: precision after the first average, the others after the first window."""

    precision: float | None
    correlation: float | None
    delay: float | None
    windows: int

    @property
    def score(self) -> float | None:
        """The mean of the three."""
        if self.precision is None or self.correlation is None or self.delay is None:
            return None
        return (self.precision + self.correlation + self.delay) / 3.0


class _Point(NamedTuple):
    at_s: float
    asked_w: float
    given_w: float


@dataclass(slots=True)
class RegulationRecord:
    """What was asked of regulation and what came, watts of generation more than the base; `period_s` of the cycle."""

    period_s: float
    _from_s: float | None = None
    _last: _Point | None = None
    _ended_s: float = 0.0
    _sums: tuple[float, float, float] = (0.0, 0.0, 0.0)
    _count: int = 0
    _asked: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW + SHIFTS))
    _given: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW + SHIFTS))
    _largest_w: float = 0.0
    _asked_sum_w: float = 0.0
    _error_sum_w: float = 0.0
    _windows: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    def see(self, report: CycleReport) -> None:
        """One cycle; counts while a dispatch with regulation capacity and a signal are in force and net is measured."""
        decision, orders = report.decision, report.orders
        dispatch = orders.dispatch
        base = next((one.target for one in decision.envelope.steps if one.function == "dispatch"), None)
        if dispatch is None or orders.regulation is None or base is None or decision.net_w is None:
            self._last = None
            return
        if max(dispatch.regulation_up_w, dispatch.regulation_down_w) <= 0.0:
            self._last = None
            return
        signal = regulation_signal(orders, decision.now_s)
        asked_w = signal * (dispatch.regulation_up_w if signal > 0.0 else dispatch.regulation_down_w)
        self.take(decision.now_s, asked_w, base.value_w - decision.net_w)

    def take(self, now_s: float, asked_w: float, given_w: float) -> None:
        """What is asked and given from now on, until the next."""
        if self._from_s is None or now_s - self._ended_s > FORGOTTEN_S:
            self._begin(now_s)
        last, self._last, self._ended_s = self._last, _Point(now_s, asked_w, given_w), now_s
        longest_s = max(PERIODS_APART * self.period_s, LEAST_GAP_S)
        if last is not None and now_s - last.at_s <= longest_s:
            self._fill(last, now_s)
        else:
            self._fill(_Point(now_s, 0.0, 0.0), now_s)

    def figures(self) -> RegulationFigures:
        """What is known so far."""
        precision = 1.0 - self._error_sum_w / self._asked_sum_w if self._asked_sum_w > 0.0 else None
        correlations, delays, windows = self._windows
        if not windows:
            return RegulationFigures(precision, None, None, 0)
        return RegulationFigures(precision, correlations / windows, delays / windows, int(windows))

    def shown(self) -> dict[str, Any]:
        """The figures as plain JSON, with what is asked and given now; None where nothing is."""
        found, last = self.figures(), self._last
        return {
            "asked_w": None if last is None else last.asked_w,
            "given_w": None if last is None else last.given_w,
            **found._asdict(),
            "score": found.score,
        }

    def _begin(self, now_s: float) -> None:
        self._from_s, self._last, self._count = now_s, None, 0
        self._sums = (0.0, 0.0, 0.0)
        self._asked.clear()
        self._given.clear()
        self._largest_w = self._asked_sum_w = self._error_sum_w = 0.0
        self._windows = [0.0, 0.0, 0.0]

    def _fill(self, last: _Point, now_s: float) -> None:
        """Count what held since `last` into its averages, and end those that are over."""
        assert self._from_s is not None
        start_s = last.at_s
        while True:
            end_s = self._from_s + (self._count + 1) * AVERAGE_S
            step_s = min(now_s, end_s) - start_s
            if step_s > 0.0:
                weight_s, asked_ws, given_ws = self._sums
                self._sums = (
                    weight_s + step_s,
                    asked_ws + last.asked_w * step_s,
                    given_ws + last.given_w * step_s,
                )
                start_s += step_s
            if now_s < end_s - 1e-6 * AVERAGE_S:
                return
            self._end_average()

    def _end_average(self) -> None:
        weight_s, asked_ws, given_ws = self._sums
        self._sums = (0.0, 0.0, 0.0)
        self._count += 1
        if weight_s < LEAST_MEASURED * AVERAGE_S:
            self._asked.append(None)
            self._given.append(None)
        else:
            asked_w, given_w = asked_ws / weight_s, given_ws / weight_s
            self._asked.append(asked_w)
            self._given.append(given_w)
            self._largest_w = max(self._largest_w, abs(asked_w))
            self._asked_sum_w += abs(asked_w)
            self._error_sum_w += abs(given_w - asked_w)
        if self._count >= WINDOW + SHIFTS and self._count % WINDOW == 0:
            self._score_window()

    def _score_window(self) -> None:
        asked = [value for value in list(self._asked)[:WINDOW] if value is not None]
        given = list(self._given)
        if len(asked) < WINDOW:
            return
        found = []
        for shift in range(SHIFTS + 1):
            part = [value for value in given[shift : shift + WINDOW] if value is not None]
            if len(part) == WINDOW:
                found.append((_correlation(asked, part, self._largest_w), (SHIFTS - shift) / SHIFTS))
        if found:
            self._windows[0] += max(correlation for correlation, _ in found)
            self._windows[1] += max(found, key=sum)[1]
            self._windows[2] += 1.0


def _correlation(asked: Sequence[float], given: Sequence[float], largest_w: float) -> float:
    """Pearson's r; where a side is flat, 1 less the difference of the slopes per average, in units of the largest."""
    deviations = [[value - sum(side) / WINDOW for value in side] for side in (asked, given)]
    spreads = [sqrt(sum([value * value for value in side]) / WINDOW) for side in deviations]
    if min(spreads) > FLAT_PU * largest_w:
        product: float = sum([one * other for one, other in zip(*deviations, strict=True)]) / WINDOW
        return product / (spreads[0] * spreads[1])
    if largest_w == 0.0:
        return 1.0
    slopes = [sum([after - before for before, after in pairwise(side)]) / (WINDOW - 1) for side in (asked, given)]
    return max(0.0, 1.0 - abs(slopes[0] - slopes[1]) / largest_w)
