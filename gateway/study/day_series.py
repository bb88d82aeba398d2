"""The load and sun of a real day, from the series that come with Lamina."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Final

from gateway.planning.model import Series

LOADS: Final = ("G0-A", "G1-A", "G3-A", "L1-A")
SUNS: Final = ("PV1", "PV3", "PV5")
ROWS_A_DAY: Final = 96
DEFAULT_DAY: Final = "2016-06-08"


class NoSuchDayError(Exception):
    """The series has no such day; the text says which days it has."""


@lru_cache(64)
def day_series(day: str, steps: int) -> Mapping[str, Series]:
    """Each column's means over the day's intervals, per unit of a rating; `steps` divides 96. Raises NoSuchDayError."""
    by_day = _by_day()
    if day not in by_day:
        days = sorted(by_day)
        raise NoSuchDayError(f"there is no series of {day}; there are {', '.join(days)}")
    each = ROWS_A_DAY // steps
    return {
        name: tuple(sum(values[at : at + each]) / each for at in range(0, ROWS_A_DAY, each))
        for name, values in by_day[day].items()
    }


@lru_cache(1)
def _by_day() -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    path = files("config").joinpath("data", "simbench_extract.csv")
    with path.open(encoding="utf-8") as lines:
        for row in csv.DictReader(line for line in lines if not line.startswith("#")):
            of_day = found.setdefault(row.pop("time")[:10], {name: [] for name in (*LOADS, *SUNS)})
            for name, values in of_day.items():
                values.append(float(row[name]))
    return {day: columns for day, columns in found.items() if len(columns[LOADS[0]]) == ROWS_A_DAY}
