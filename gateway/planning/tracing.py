"""A layer's curve from a bounded number of solutions: where to solve next, and how far off what was drawn may be.

The net power that a convex program takes never rises with the price of one step, so that between two solutions it lies
between their powers. Pure: whoever solves is asked for one price after the other.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.control.clearing import Curve

BELIEVED: Final = 2
"""A cell in which so many solutions after each other lay on the straight line is taken to be straight."""

OFF_MIDDLE: Final = 0.4
"""Where a cell is looked at: not in its middle, where two jumps beside it would make up a straight line."""

Points = tuple[tuple[float, float], ...]
"""(price per kWh, net power in watts): prices ascend, powers do not rise."""


class _Cell(NamedTuple):
    """Between two solutions, by their grid lines; `fits`: how many solutions in a row lay on its straight line."""

    first: int
    last: int
    fits: int


@dataclass(slots=True)
class CurveTrace:
    """Solutions on a grid of prices. `bound_w`: what a straight line between two of them may miss; `most` solutions.

    Where the curve jumps, both ends are found to one step of the grid.
    """

    first_prices: Sequence[float]
    step_per_kwh: float
    bound_w: float
    most: int
    _powers_w: dict[int, float] = field(default_factory=dict)
    _cells: list[_Cell] = field(default_factory=list)
    _waiting: list[int] = field(default_factory=list)
    _asked: int | None = None
    _left: int = 0

    def __post_init__(self) -> None:
        lines = sorted({round(price / self.step_per_kwh) for price in self.first_prices})
        self._waiting = lines[::-1]
        self._cells = [_Cell(a, b, 0) for a, b in pairwise(lines)]
        self._left = self.most

    def next_price(self) -> float | None:
        """Where to solve next; None: it is drawn well enough, or as well as the number of solutions allows."""
        self._asked = self._waiting[-1] if self._waiting else self._worst()
        if self._asked is None or self._left <= 0:
            return None
        return round(self._asked * self.step_per_kwh, 9)

    def add(self, power_w: float | None) -> None:
        """The solution at the price that was asked for last; None: there is none, and the price is left out."""
        assert self._asked is not None
        line, self._asked = self._asked, None
        self._left -= 1
        first = bool(self._waiting)
        if first:
            self._waiting.pop()
        if power_w is None:
            self._leave_out(line, first)
            return
        if not first:
            self._split(line, power_w)
        self._powers_w[line] = power_w

    def points(self) -> Points:
        """What was found; what the solver leaves of a rise is its tolerance."""
        found: list[tuple[float, float]] = []
        for line in sorted(self._powers_w):
            power_w = self._powers_w[line]
            least_w = min(power_w, found[-1][1]) if found else power_w
            found.append((round(line * self.step_per_kwh, 9), least_w))
        return tuple(found)

    def unknown_w(self) -> float:
        """By how much a straight line may miss the curve, where the number of solutions was not enough to look."""
        open_cells = [cell for cell in self._cells if self._is_open(cell)]
        return max((self._drop_w(cell) for cell in open_cells), default=0.0)

    def _worst(self) -> int | None:
        open_cells = [cell for cell in self._cells if self._is_open(cell)]
        if not open_cells:
            return None
        cell = max(open_cells, key=lambda one: (self._drop_w(one) / (1.0 + one.fits), -one.first))
        width = cell.last - cell.first
        return cell.first + min(max(round(OFF_MIDDLE * width), 1), width - 1)

    def _is_open(self, cell: _Cell) -> bool:
        return cell.last - cell.first > 1 and cell.fits < BELIEVED and self._drop_w(cell) > self.bound_w

    def _drop_w(self, cell: _Cell) -> float:
        ends = self._powers_w.get(cell.first), self._powers_w.get(cell.last)
        return 0.0 if ends[0] is None or ends[1] is None else max(ends[0] - ends[1], 0.0)

    def _split(self, line: int, power_w: float) -> None:
        at = next(at for at, cell in enumerate(self._cells) if cell.first < line < cell.last)
        cell = self._cells[at]
        high_w, low_w = self._powers_w[cell.first], self._powers_w[cell.last]
        expected_w = high_w + (low_w - high_w) * (line - cell.first) / (cell.last - cell.first)
        fits = cell.fits + 1 if abs(power_w - expected_w) <= self.bound_w / 2.0 else 0
        self._cells[at : at + 1] = [_Cell(cell.first, line, fits), _Cell(line, cell.last, fits)]

    def _leave_out(self, line: int, first: bool) -> None:
        if not first:
            # Asked once more it would fail again: what lies around it stays unknown.
            self._left = 0
            return
        lines = sorted({end for cell in self._cells for end in (cell.first, cell.last)} - {line})
        self._cells = [_Cell(a, b, 0) for a, b in pairwise(lines)]


def fewer_points(points: Points, bound_w: float, most: int) -> Points:
    """At most so many of the points: each one taken is where the line through the others misses most, down to a bound.

    The first and the last always stay.
    """
    if len(points) <= 2:
        return points
    kept = [0, len(points) - 1]
    while len(kept) < most:
        worst_w, at = max(_missed_w(points, a, b) for a, b in pairwise(kept))
        if worst_w <= bound_w:
            break
        insort(kept, at)
    return tuple(points[at] for at in kept)


def _missed_w(points: Points, first: int, last: int) -> tuple[float, int]:
    """By how much the line between two points misses those between them at most, and which."""
    (left, high_w), (right, low_w) = points[first], points[last]
    found = 0.0, first
    for at in range(first + 1, last):
        price, power_w = points[at]
        along = (price - left) / (right - left) if right > left else 0.5
        found = max(found, (abs(power_w - high_w - (low_w - high_w) * along), at))
    return found


def error_w(curve: Curve, points: Points, step_per_kwh: float) -> float:
    """By how much a curve misses points at most, where it may be up to one step of price beside them."""
    worst_w = 0.0
    for price, power_w in points:
        most_w = curve.limits_at(price - step_per_kwh)[0]
        least_w = curve.limits_at(price + step_per_kwh)[1]
        worst_w = max(worst_w, power_w - most_w, least_w - power_w)
    return worst_w
