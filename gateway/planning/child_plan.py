"""A layer below in its parent's plan: its offered curve as blocks of power, each taken below a price of its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from gateway.planning.tracing import Points, fewer_points

Series = tuple[float, ...]

CHILD_STEPS: Final = 8
"""In so many steps a child may be asked for another power; after them it is planned as it plans itself."""

CHILD_BLOCKS: Final = 12
BEYOND_PER_KWH: Final = 1.0
"""What an envelope has beyond the ends of its curve is asked for so far beyond their prices: last of all."""


class Block(NamedTuple):
    """A piece of power, a magnitude, that is taken while a kWh costs less than its price."""

    price_per_kwh: float
    width_w: float


@dataclass(frozen=True, slots=True)
class ChildStep:
    """What a child may be asked for in one step: at least `lower_w`, and blocks above it, dearest first."""

    lower_w: float
    blocks: tuple[Block, ...]

    @property
    def upper_w(self) -> float:
        """The most."""
        return self.lower_w + sum(block.width_w for block in self.blocks)


@dataclass(frozen=True, slots=True)
class ChildPlan:
    """A layer below over the horizon; `base_w` is what it plans itself, within what the first steps leave.

    `steps` are the first ones, None where it can't be asked. Energy is what it may give (up) and take (down) beside its
    own plan; `ramp_w_per_s` None: as fast as anybody likes.
    """

    name: str
    base_w: Series
    steps: tuple[ChildStep | None, ...] = ()
    energy_up_wh: float = 0.0
    energy_down_wh: float = 0.0
    ramp_w_per_s: float | None = None


def child_step(points: Points, lower_w: float, upper_w: float, base_w: float, delivered_pu: float = 1.0) -> ChildStep:
    """An offered interval as blocks. Of a child that delivers in part only that part is counted on, about its base."""
    inside = [(price, min(max(power, lower_w), upper_w)) for price, power in points]
    whole = ((inside[0][0] - BEYOND_PER_KWH, upper_w), *inside, (inside[-1][0] + BEYOND_PER_KWH, lower_w))
    scaled = tuple((price, base_w + delivered_pu * (power - base_w)) for price, power in whole)
    segments = _segments(scaled)
    while segments and len(segments) < CHILD_BLOCKS:
        widest = max(segments, key=lambda one: (one[1][0] - one[0][0]) * (one[0][1] - one[1][1]))
        (left, high_w), (right, low_w) = widest
        if (right - left) * (high_w - low_w) <= 0.0:
            break
        at, middle = segments.index(widest), ((left + right) / 2.0, (high_w + low_w) / 2.0)
        segments[at : at + 1] = [(widest[0], middle), (middle, widest[1])]
    blocks = [Block((left + right) / 2.0, high_w - low_w) for (left, high_w), (right, low_w) in segments]
    return ChildStep(scaled[-1][1], tuple(reversed(blocks)))


def _segments(points: Points) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Where the curve falls; at most as many places as there are blocks. The ends beyond the curve fall at once."""
    first, last = points[0], points[-1]
    kept = fewer_points(points[1:-1], 0.0, CHILD_BLOCKS - 1)
    ends = [((first[0], first[1]), (first[0], kept[0][1])), ((last[0], kept[-1][1]), (last[0], last[1]))]
    falls = [(a, b) for a, b in pairwise(kept) if a[1] > b[1]]
    return [(a, b) for a, b in (ends[0], *falls, ends[1]) if a[1] > b[1]]
