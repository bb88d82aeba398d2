"""Excursions beyond a limit by stages, as ENA Engineering Recommendation G100 Issue 2 Amendment 1 (2022) has them.

A limitation scheme brings the power back within 15 s; one that can't is stopped by its own fail-safe within 60 s. More
than two excursions in any 10 min count as a scheme that doesn't hold the limit, however short each one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.bench.metrics import Excursion

CONTROL_S: Final = 15.0
FAIL_SAFE_S: Final = 60.0
REPEATS: Final = 2
REPEATS_WITHIN_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class ExcursionStages:
    """`longest_s` of a single excursion and `most_repeats` in any 10 min.

    `stage` is 1 without an excursion, 2 where control ended each one in time and they were few, 3 where the fail-safe
    had to act or they were too many, 4 where the power was beyond the limit for longer than the fail-safe may take.
    """

    stage: int
    longest_s: float
    most_repeats: int


def excursion_stages(found: Sequence[Excursion]) -> ExcursionStages:
    """The stages of excursions in the order of their starts."""
    longest_s = max((excursion.duration_s for excursion in found), default=0.0)
    starts = [excursion.start_s for excursion in found]
    repeats = max((sum(start <= at_s < start + REPEATS_WITHIN_S for at_s in starts) for start in starts), default=0)
    if longest_s > FAIL_SAFE_S:
        stage = 4
    elif longest_s > CONTROL_S or repeats > REPEATS:
        stage = 3
    else:
        stage = 2 if found else 1
    return ExcursionStages(stage, longest_s, repeats)
