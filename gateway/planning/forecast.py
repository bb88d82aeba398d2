"""Forecasts of load and sun from the site's own history: seasonal naive, corrected by the recent error.

Source of the method: Hyndman and Athanasopoulos, "Forecasting: Principles and Practice", 3rd ed., sections 5.2
(seasonal naive) and 8.1 (exponential smoothing of the error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, isfinite
from typing import Final, NamedTuple

DAY_S: Final = 86_400.0
DAYS_LOOKED_AT: Final = 28
LIKE_DAYS: Final = 4
"""So many of the last like days (working day, Saturday, Sunday) are averaged."""

CORRECTION_FADES_S: Final = 2.0 * 3600.0
"""How long a difference to the last hour is believed to go on."""

RECENT_S: Final = 3600.0
LEAST_SPREAD_PU: Final = 0.05


class Band(NamedTuple):
    """What is expected, and what is exceeded in nine of ten and in one of ten cases, watts."""

    p10_w: tuple[float, ...]
    p50_w: tuple[float, ...]
    p90_w: tuple[float, ...]


class Score(NamedTuple):
    """How a forecast did: mean absolute error, its part of the mean, and the share of values inside the band."""

    mean_error_w: float
    relative: float | None
    inside: float


@dataclass(frozen=True, slots=True)
class History:
    """Mean power by step: UTC seconds of each step's begin, a multiple of `step_s`, to watts. Gaps are left out."""

    step_s: float
    powers_w: Mapping[float, float]

    def at(self, begin_s: float) -> float | None:
        """The step's mean power, None in a gap."""
        return self.powers_w.get(begin_s)


def forecast(history: History, begin_s: float, steps: int, offset_s: float = 0.0) -> Band | None:
    """The steps from `begin_s` (a multiple of the history's step); None where nothing like them was ever seen.

    `offset_s` is the local time's difference to UTC, for telling days apart.
    """
    step_s = history.step_s
    typical = [_typical(history, begin_s + at * step_s, offset_s) for at in range(steps)]
    known = [one for one in typical if one is not None]
    if not known:
        return None
    mean_w = sum(one[0] for one in known) / len(known)
    off_w = _recent_difference(history, begin_s, offset_s)
    p10, p50, p90 = [], [], []
    for at, one in enumerate(typical):
        middle_w, spread_w = one if one is not None else (mean_w, _widest(known))
        middle_w += off_w * exp(-at * step_s / CORRECTION_FADES_S)
        spread_w = max(spread_w, LEAST_SPREAD_PU * abs(mean_w))
        p10.append(middle_w - spread_w)
        p50.append(middle_w)
        p90.append(middle_w + spread_w)
    return Band(tuple(p10), tuple(p50), tuple(p90))


def _typical(history: History, begin_s: float, offset_s: float) -> tuple[float, float] | None:
    """Mean of the same step on the last days of its kind (else of any), and 1.28 standard deviations."""
    kind = _kind_of_day(begin_s + offset_s)
    like, any_day = [], []
    for days in range(1, DAYS_LOOKED_AT + 1):
        then_s = begin_s - days * DAY_S
        power_w = history.at(then_s)
        if power_w is None or not isfinite(power_w):
            continue
        any_day.append(power_w)
        if _kind_of_day(then_s + offset_s) == kind:
            like.append(power_w)
        if len(like) == LIKE_DAYS:
            break
    values = like or any_day[:LIKE_DAYS]
    if not values:
        return None
    mean_w = sum(values) / len(values)
    variance = sum((value - mean_w) ** 2 for value in values) / max(len(values) - 1, 1)
    return mean_w, 1.28 * variance**0.5


def _widest(known: Sequence[tuple[float, float]]) -> float:
    return max(spread_w for _, spread_w in known)


def _recent_difference(history: History, begin_s: float, offset_s: float) -> float:
    """By how much the last hour was beside what was typical of it."""
    differences = []
    for back in range(1, max(int(RECENT_S / history.step_s), 1) + 1):
        then_s = begin_s - back * history.step_s
        power_w, typical = history.at(then_s), _typical(history, then_s, offset_s)
        if power_w is not None and typical is not None:
            differences.append(power_w - typical[0])
    return sum(differences) / len(differences) if differences else 0.0


def _kind_of_day(local_s: float) -> int:
    """0 for a working day, 1 for Saturday, 2 for Sunday; 1 January 1970 was a Thursday."""
    weekday = (int(local_s // DAY_S) + 3) % 7
    return max(weekday - 4, 0)


def score(band: Band, came_w: Sequence[float | None]) -> Score | None:
    """A forecast against what came; steps that were not measured are left out. None where nothing was."""
    rows = [
        (low, middle, high, came)
        for low, middle, high, came in zip(*band, came_w, strict=True)
        if came is not None and isfinite(came)
    ]
    if not rows:
        return None
    errors = [abs(came - middle) for _, middle, _, came in rows]
    mean_w = sum(abs(came) for *_, came in rows) / len(rows)
    inside = sum(low <= came <= high for low, _, high, came in rows) / len(rows)
    mean_error_w = sum(errors) / len(errors)
    return Score(mean_error_w, mean_error_w / mean_w if mean_w > 0.0 else None, inside)
