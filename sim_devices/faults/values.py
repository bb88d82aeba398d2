"""What the faults of values make of one raw number, whatever protocol carries it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from sim_devices.faults.fault_set import ActiveFault
from sim_devices.faults.registry import Direction

Change: TypeAlias = Callable[[ActiveFault, float, float, float], float]
"""Of a fault, a raw number, the raw number of the most that the point can be, and the time: the number that arrives."""

FROZEN: Final = ("frozen_value", "frozen_heartbeat")
"""These keep a value whatever it is; the others change numbers."""


def _not_a_number(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    return math.nan


def _rescaled(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    return raw * math.pow(10.0, -active.number("by"))


def _scaled_back(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    return raw * math.pow(10.0, active.number("by"))


def _flipped(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    return -raw


def _drifted(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    return raw + active.number("pu_per_s") * (now_s - active.began_s) * full


def _spiked(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    if active.rng.random() >= active.number("chance"):
        return raw
    return raw + active.rng.choice((-1.0, 1.0)) * active.number("size_pu") * full


def _clipped(active: ActiveFault, raw: float, full: float, now_s: float) -> float:
    most = active.number("most_pu") * full
    return min(max(raw, -most), most)


READ_CHANGES: Final[Mapping[str, Change]] = {
    "nan": _not_a_number,
    "scale_factor": _rescaled,
    "flipped_sign": _flipped,
    "drift": _drifted,
    "spikes": _spiked,
}

WRITE_CHANGES: Final[Mapping[str, Change]] = {"scale_factor": _scaled_back, "write_clipped": _clipped}


def change_of(active: ActiveFault, direction: Direction) -> Change | None:
    """What a fault makes of numbers that go in a direction, if anything."""
    return (READ_CHANGES if direction is Direction.REPLY else WRITE_CHANGES).get(active.name)
