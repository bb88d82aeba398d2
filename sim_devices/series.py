"""Load and PV profiles: columns of a CSV file with 15-minute steps, interpolated between them."""

from __future__ import annotations

import csv
from bisect import bisect_right
from datetime import datetime
from pathlib import Path
from typing import Final

SHIPPED_SERIES: Final = Path(__file__).parent.parent / "config" / "data" / "simbench_extract.csv"


class SeriesError(Exception):
    """The series doesn't have what was asked of it; the text says what it has."""


class Series:
    """Columns over time, in blocks of equal steps; `value` interpolates inside a block and repeats it at its end.

    Values are per unit, as the file's header says. Raises SeriesError for a file that isn't such a table.
    """

    def __init__(self, times: list[datetime], columns: dict[str, list[float]]) -> None:
        if len(times) < 2:
            raise SeriesError("a series needs at least two rows")
        self._columns = columns
        self._epoch = times[0]
        self._step_s = (times[1] - times[0]).total_seconds()
        if self._step_s <= 0:
            raise SeriesError("the times of a series ascend")
        seconds = [(time - self._epoch).total_seconds() for time in times]
        self._starts = [0] + [i for i in range(1, len(times)) if seconds[i] != seconds[i - 1] + self._step_s]
        self._start_s = [seconds[i] for i in self._starts]
        self._ends = [*self._starts[1:], len(times)]
        self._last = [times[end - 1] for end in self._ends]
        self._first = [times[start] for start in self._starts]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._columns)

    def position(self, instant: datetime) -> float:
        """Seconds from the first row to `instant` (local time of the file); raises SeriesError outside every block."""
        instant = instant.replace(tzinfo=None)
        for first, last in zip(self._first, self._last, strict=True):
            if first <= instant <= last:
                return (instant - self._epoch).total_seconds()
        spans = ", ".join(
            f"{first.isoformat()} to {last.isoformat()}" for first, last in zip(self._first, self._last, strict=True)
        )
        raise SeriesError(f"{instant.isoformat()} is outside the series, which has {spans}")

    def column(self, name: str) -> list[float]:
        """All values of a column; raises SeriesError when there is none of that name."""
        try:
            return self._columns[name]
        except KeyError:
            raise SeriesError(f"the series has no column {name!r}; it has {', '.join(self._columns)}") from None

    def value(self, values: list[float], start_s: float, elapsed_s: float) -> float:
        """The value `elapsed_s` after `start_s` of a column (as `column` gives it).

        Past the end of the block in which `start_s` lies, the block begins again.
        """
        block = bisect_right(self._start_s, start_s) - 1
        begin, count = self._starts[block], self._ends[block] - self._starts[block]
        steps = ((start_s - self._start_s[block] + elapsed_s) / self._step_s) % count
        index = int(steps)
        before, after = values[begin + index], values[begin + (index + 1) % count]
        return before + (after - before) * (steps - index)


def load_series(path: Path = SHIPPED_SERIES) -> Series:
    """Read a series: lines beginning with # are comments, the first column is an ISO time; raises SeriesError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(line for line in file if not line.startswith("#"))
            header = next(rows, [])
            table = [row for row in rows if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SeriesError(f"{path}: {error}") from error
    try:
        times = [datetime.fromisoformat(row[0]) for row in table]
        columns = {name: [float(row[i]) for row in table] for i, name in enumerate(header[1:], start=1)}
    except (ValueError, IndexError) as error:
        raise SeriesError(f"{path}: not a table of times and numbers: {error}") from error
    return Series(times, columns)
