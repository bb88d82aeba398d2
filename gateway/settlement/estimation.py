"""What stands for readings that are missing: stated, marked, and the same however often it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.settlement.readings import CONNECTION, INTERVAL_S, Grade, IntervalPrice, Reading

SCALED_FROM_MS: Final = INTERVAL_S * 500
"""Known for half of its interval, a reading is scaled up to the whole; for less, the one before it stands for it."""

STANDS_FOR_S: Final = 86_400
"""A reading or a price stands for a later interval up to this."""

NO_READING: Final = "none"
REGISTER: Final = "register"
_WHOLE_MS: Final = INTERVAL_S * 1000


@dataclass(frozen=True, slots=True)
class MeteredInterval:
    """One interval with a reading of every meter; `estimated` names the meters, or the price, that were estimated."""

    price: IntervalPrice
    readings: Mapping[str, Reading]
    estimated: frozenset[str]


class _Known:
    """What is known by interval, and which meters there were."""

    def __init__(self, readings: Iterable[Reading], prices: Iterable[IntervalPrice], until_s: int) -> None:
        self.readings: dict[int, dict[str, Reading]] = {}
        for one in readings:
            self.readings.setdefault(one.begin_s, {})[one.meter] = one
        self.prices = {one.begin_s: one for one in prices}
        begins = {*self.readings, *self.prices}
        self.span = range(min(begins, default=until_s), until_s, INTERVAL_S)


def completed(
    readings: Iterable[Reading], prices: Iterable[IntervalPrice], from_s: int, until_s: int
) -> tuple[list[MeteredInterval], list[int]]:
    """The intervals that begin in a window and can be settled, and the begins of those between them that cannot.

    `readings` and `prices` begin a day before the window. A reading of half an interval or more is scaled to the whole.
    Otherwise the last interval of a day before it that was at least half known stands for it; nothing, where there is
    none. A missing price is that of the last interval of the day before. Without a price, or without anything of the
    connection, an interval is left unsettled. Nothing is estimated before the first interval that anything is known of;
    `until_s` is no later than the end of the last one. An interval has the meters that the gateway named in it, or in
    the last one before.
    """
    known = _Known(readings, prices, until_s)
    last: dict[str, Reading] = {}
    meters: set[str] = set()
    price: IntervalPrice | None = None
    found, unsettled = [], []
    for begin_s in known.span:
        own = known.readings.get(begin_s, {})
        watched = any(one.grade is not Grade.CORRECTED for one in own.values())
        meters = {*own, CONNECTION} if watched else {*meters, *own, CONNECTION}
        price = known.prices.get(begin_s, price)
        last |= {one.meter: _whole(one) for one in own.values() if one.known_ms >= SCALED_FROM_MS}
        if begin_s < from_s:
            continue
        chosen = {meter: _standing(last.get(meter), begin_s, meter) for meter in sorted(meters)}
        if price is None or begin_s - price.begin_s > STANDS_FOR_S or chosen[CONNECTION].source == NO_READING:
            unsettled.append(begin_s)
        else:
            found.append(_interval(price, begin_s, chosen))
    return found, unsettled


def _interval(price: IntervalPrice, begin_s: int, chosen: Mapping[str, Reading]) -> MeteredInterval:
    estimated = {meter for meter, reading in chosen.items() if reading.grade is Grade.ESTIMATED}
    if price.begin_s != begin_s:
        estimated.add("price")
        price = price._replace(begin_s=begin_s, bound_ms=0)
    return MeteredInterval(price, chosen, frozenset(estimated))


def _whole(reading: Reading) -> Reading:
    """A reading for the whole interval; a few seconds that are missing at its ends do not make it an estimate."""
    if reading.grade is Grade.CORRECTED or reading.source == REGISTER or reading.known_ms >= _WHOLE_MS:
        return reading
    energy = (reading.in_micro * _WHOLE_MS // reading.known_ms, reading.out_micro * _WHOLE_MS // reading.known_ms)
    scaled = reading._replace(in_micro=energy[0], out_micro=energy[1])
    return scaled if reading.grade >= Grade.MEASURED else scaled._replace(grade=Grade.ESTIMATED, source="scaled")


def _standing(last: Reading | None, begin_s: int, meter: str) -> Reading:
    """The interval's own reading, or the last one before it, or nothing taken and nothing given."""
    if last is not None and last.begin_s == begin_s:
        return last
    if last is None or begin_s - last.begin_s > STANDS_FOR_S:
        return Reading(begin_s, meter, 0, 0, 0, Grade.ESTIMATED, NO_READING)
    return last._replace(begin_s=begin_s, known_ms=0, grade=Grade.ESTIMATED, source="before")
