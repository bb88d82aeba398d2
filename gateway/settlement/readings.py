"""Energy by interval and meter in whole numbers, from the journal or from a file of corrected readings.

Energy is counted in millionths of a kWh, prices in millionths of the currency per kWh, so that sums are exact. `net` is
load convention: taken less given.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.contracts import MOST_POWER_W, MOST_PRICE

JOURNAL_FILES: Final = ("gateway.1.jsonl", "gateway.jsonl")
INTERVAL_S: Final = 300
MILLION: Final = 1_000_000
MICRO_PER_WH: Final = 1000
CONNECTION: Final = "connection"
COMPLETE_S: Final = 290.0
"""Of an interval of 300 s: known for this long, it counts as measured."""

MOST_WH: Final = MOST_POWER_W * INTERVAL_S / 3600.0
CSV_COLUMNS: Final = ("begin_utc", "meter", "in_wh", "out_wh")


class Grade(IntEnum):
    """Where a reading is from; a higher grade is never replaced by a lower one."""

    ESTIMATED = 0
    PARTIAL = 1
    MEASURED = 2
    CORRECTED = 3


class Reading(NamedTuple):
    """One meter's energy of one interval, millionths of a kWh, magnitudes; known for so many milliseconds."""

    begin_s: int
    meter: str
    in_micro: int
    out_micro: int
    known_ms: int
    grade: Grade
    source: str

    @property
    def net_micro(self) -> int:
        """Taken less given."""
        return self.in_micro - self.out_micro


class IntervalPrice(NamedTuple):
    """The prices of one interval, millionths per kWh; `bound_ms`: for so long a limit pressed."""

    begin_s: int
    local_micro: int
    import_micro: int
    export_micro: int
    bound_ms: int
    known_ms: int


class ReadingsError(ValueError):
    """A file of readings that can't be taken; the text names its line."""


def from_journal(directory: Path) -> tuple[list[Reading], list[IntervalPrice]]:
    """Everything that the gateway recorded, one reading a meter and interval; raises FileNotFoundError without journal.

    What several processes saw of one interval is added up. Where that makes more than the interval, the clock was set
    back, and the longest of them counts.
    """
    readings: dict[tuple[int, str], Reading] = {}
    prices: dict[int, IntervalPrice] = {}
    for entry in interval_entries(directory):
        for reading in _readings_in(entry):
            key = reading.begin_s, reading.meter
            readings[key] = _joined(readings[key], reading) if key in readings else reading
        price = _price_in(entry)
        if price is not None:
            known = prices.get(price.begin_s)
            prices[price.begin_s] = price if known is None else _joined_prices(known, price)
    return [_graded(one) for one in readings.values()], list(prices.values())


def from_csv(path: Path) -> list[Reading]:
    """Corrected readings of a meter operator: begin_utc, meter, in_wh, out_wh. Raises ReadingsError, OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if tuple(rows.fieldnames or ()) != CSV_COLUMNS:
                raise ReadingsError(f"{path}:1: the columns must be {','.join(CSV_COLUMNS)}")
            found = [_corrected(row, f"{path}:{rows.line_num}") for row in rows]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ReadingsError(f"{path}:{rows.line_num}: {error}") from error
    seen: set[tuple[int, str]] = set()
    for reading in found:
        key = reading.begin_s, reading.meter
        if key in seen:
            raise ReadingsError(f"{path}: {reading.meter} has two readings of {utc_text(reading.begin_s)}")
        seen.add(key)
    return found


def utc_text(seconds: float) -> str:
    """UTC, whole seconds, Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def micro(value: float) -> int:
    """The nearest whole number of millionths."""
    return round(value * MILLION)


def interval_entries(directory: Path) -> Iterator[dict[str, Any]]:
    """The journal's entries of intervals, oldest first; raises FileNotFoundError without journal."""
    paths = [directory / name for name in JOURNAL_FILES]
    if not any(path.exists() for path in paths):
        raise FileNotFoundError(directory / JOURNAL_FILES[-1])
    for path in paths:
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if '"interval"' not in line:
                    continue
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if isinstance(entry, dict) and entry.get("event") == "interval" and _aligned(entry):
                    yield entry


def _aligned(entry: Mapping[str, Any]) -> bool:
    begin_s = entry.get("begin_s")
    return isinstance(begin_s, int) and begin_s % INTERVAL_S == 0 and entry.get("duration_s") == INTERVAL_S


def _readings_in(entry: Mapping[str, Any]) -> Iterator[Reading]:
    resources = entry.get("resources")
    meters = {**(resources if isinstance(resources, dict) else {}), CONNECTION: entry.get(CONNECTION)}
    for meter, told in meters.items():
        if not isinstance(told, dict):
            continue
        known_s, in_wh, out_wh = (_number(told.get(name), 0.0, MOST_WH) for name in ("known_s", "in_wh", "out_wh"))
        if known_s is None or in_wh is None or out_wh is None:
            continue
        source = str(told.get("source", "power"))
        energy = round(in_wh * MICRO_PER_WH), round(out_wh * MICRO_PER_WH)
        yield Reading(entry["begin_s"], meter, *energy, round(known_s * 1000), Grade.PARTIAL, source)


def _price_in(entry: Mapping[str, Any]) -> IntervalPrice | None:
    names = ("lambda_per_kwh", "import_per_kwh", "export_per_kwh")
    local, imported, exported = (_number(entry.get(name), -MOST_PRICE, MOST_PRICE) for name in names)
    if local is None or imported is None or exported is None:
        return None
    connection = entry.get(CONNECTION)
    known_s = _number(connection.get("known_s"), 0.0, MOST_WH) if isinstance(connection, dict) else None
    bound_s = _number(entry.get("bound_s"), 0.0, MOST_WH)
    times = round((bound_s or 0.0) * 1000), max(round((known_s or 0.0) * 1000), 1)
    return IntervalPrice(entry["begin_s"], micro(local), micro(imported), micro(exported), *times)


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value) if least <= value <= most else None


def _joined(one: Reading, other: Reading) -> Reading:
    if one.known_ms + other.known_ms > INTERVAL_S * 1000:
        return max(one, other, key=lambda reading: reading.known_ms)
    return one._replace(
        in_micro=one.in_micro + other.in_micro,
        out_micro=one.out_micro + other.out_micro,
        known_ms=one.known_ms + other.known_ms,
    )


def _joined_prices(one: IntervalPrice, other: IntervalPrice) -> IntervalPrice:
    known_ms = one.known_ms + other.known_ms
    if known_ms > INTERVAL_S * 1000:
        return max(one, other, key=lambda price: price.known_ms)
    means = [(a * one.known_ms + b * other.known_ms) // known_ms for a, b in zip(one[1:4], other[1:4], strict=True)]
    local, imported, exported = means
    return IntervalPrice(one.begin_s, local, imported, exported, one.bound_ms + other.bound_ms, known_ms)


def _graded(reading: Reading) -> Reading:
    whole = reading.known_ms >= COMPLETE_S * 1000
    return reading._replace(grade=Grade.MEASURED) if whole else reading


def _corrected(row: Mapping[str, str | None], place: str) -> Reading:
    try:
        begin = datetime.fromisoformat(row["begin_utc"] or "")
        begin_s = (begin if begin.tzinfo is not None else begin.replace(tzinfo=UTC)).timestamp()
        in_wh, out_wh = float(row["in_wh"] or ""), float(row["out_wh"] or "")
    except (TypeError, ValueError) as error:
        raise ReadingsError(f"{place}: {error}") from error
    if begin_s % INTERVAL_S:
        raise ReadingsError(f"{place}: {row['begin_utc']} is no begin of an interval of {INTERVAL_S} s")
    if not (0.0 <= in_wh <= MOST_WH and 0.0 <= out_wh <= MOST_WH):
        raise ReadingsError(f"{place}: energies are magnitudes from 0 to {MOST_WH:g} Wh")
    if not row["meter"] or None in row:
        raise ReadingsError(f"{place}: four columns are asked for")
    energy = round(in_wh * MICRO_PER_WH), round(out_wh * MICRO_PER_WH)
    return Reading(int(begin_s), row["meter"], *energy, INTERVAL_S * 1000, Grade.CORRECTED, "corrected")
