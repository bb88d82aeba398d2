"""Regulation settled: capacity and movement at their prices, by how precisely the signal was followed.

Whole numbers: capacity held is in millionths of a kW for an hour, movement in millionths of a kW.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from config.contracts import MOST_POWER_W, RegulationTerms
from gateway.settlement.accounting import OUTSIDE, REGULATION, REGULATION_PREFIX, Entry, Posting, worth_micro
from gateway.settlement.readings import INTERVAL_S, MICRO_PER_WH, MILLION, MOST_WH, interval_entries, micro

MOST_MOVED_W: Final = MOST_POWER_W * INTERVAL_S
"""Across the whole range each second."""


class IntervalRegulation(NamedTuple):
    """One interval: capacity reserved, movement asked for, energy asked for and missed; magnitudes in millionths.

    `reserved_ms`: for so long capacity was reserved.
    """

    begin_s: int
    up_micro: int
    down_micro: int
    moved_micro: int
    asked_micro: int
    missed_micro: int
    reserved_ms: int

    @property
    def precision_micro(self) -> int:
        """1 less what was missed of what was asked, at least 0, rounded down; 1 where nothing was asked."""
        if not self.asked_micro:
            return MILLION
        return max(self.asked_micro - self.missed_micro, 0) * MILLION // self.asked_micro


def regulation_from_journal(directory: Path) -> list[IntervalRegulation]:
    """What the gateway recorded of each interval; what several processes saw of one is added up."""
    found: dict[int, IntervalRegulation] = {}
    for entry in interval_entries(directory):
        one = _regulation_in(entry)
        if one is not None:
            known = found.get(one.begin_s)
            found[one.begin_s] = one if known is None else _joined(known, one)
    return list(found.values())


def regulation_entries(recorded: Iterable[IntervalRegulation], terms: Iterable[RegulationTerms]) -> list[Entry]:
    """What each agreement comes to in each interval of its time."""
    agreed = tuple(terms)
    return [
        regulation_entry(one, each)
        for one in recorded
        for each in agreed
        if each.begin.timestamp() <= one.begin_s < each.end.timestamp()
    ]


def regulation_entry(one: IntervalRegulation, terms: RegulationTerms) -> Entry:
    """Capacity and movement at their prices, times precision; nothing below the least precision that is paid for.

    The outside pays, the layer's own account gets it. Energy is settled as energy, and not here.
    """
    full = worth_micro(micro(terms.capacity_per_kwh), one.up_micro + one.down_micro)
    full += worth_micro(micro(terms.mileage_per_kw), one.moved_micro)
    precision = one.precision_micro
    factor = precision if terms.performance == "precision" else MILLION
    if precision < micro(terms.least_precision):
        factor = 0
    amount = worth_micro(full, factor)
    note = (
        f"up {one.up_micro / MILLION:g} kW h, down {one.down_micro / MILLION:g} kW h, moved "
        f"{one.moved_micro / MILLION:g} kW, precision {precision / MILLION:.3f}"
    )
    postings = (Posting(REGULATION, 0, amount), Posting(OUTSIDE, 0, -amount))
    return Entry(one.begin_s, f"{REGULATION_PREFIX}{terms.id}", False, note, postings)


def _regulation_in(entry: Mapping[str, Any]) -> IntervalRegulation | None:
    told = entry.get("regulation")
    if not isinstance(told, dict):
        return None
    energies = [_magnitude(told.get(name), MOST_WH) for name in ("up_wh", "down_wh", "asked_wh", "missed_wh")]
    moved_w, reserved_s = _magnitude(told.get("moved_w"), MOST_MOVED_W), _magnitude(told.get("reserved_s"), INTERVAL_S)
    if moved_w is None or reserved_s is None or None in energies:
        return None
    up, down, asked, missed = (round((each or 0.0) * MICRO_PER_WH) for each in energies)
    moved = round(moved_w * MILLION / 1e3)
    return IntervalRegulation(entry["begin_s"], up, down, moved, asked, missed, round(reserved_s * 1000))


def _magnitude(value: object, most: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0.0 <= value <= most else None


def _joined(one: IntervalRegulation, other: IntervalRegulation) -> IntervalRegulation:
    if one.reserved_ms + other.reserved_ms > INTERVAL_S * 1000:
        # The clock was set back: both saw the same time.
        return max(one, other, key=lambda each: each.reserved_ms)
    sums = (a + b for a, b in zip(one[1:], other[1:], strict=True))
    return IntervalRegulation(one.begin_s, *sums)
