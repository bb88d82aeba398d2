"""Offers as the market takes them: the interface's rules, the gate, the sender, the epoch; refused with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple

from sim_devices.dso.expectations import UnexpectedError, read
from sim_devices.market.clearing import Points

UNKNOWN_CHILD: Final = "unknown child"
BROKEN: Final = "breaks the interface"
NOT_MONOTONE: Final = "not monotone"
EXPIRED: Final = "expired"
LATE: Final = "late for the gate"
OLD_EPOCH: Final = "old epoch"
OLDER: Final = "older than the one before"
FROM_THE_FUTURE: Final = "from the future"
REASONS: Final = (UNKNOWN_CHILD, BROKEN, NOT_MONOTONE, EXPIRED, LATE, OLD_EPOCH, OLDER, FROM_THE_FUTURE)

CLOCKS_DIFFER_S: Final = 2.0
"""An issue this much ahead of the market's clock is taken."""


class OfferRefusedError(Exception):
    """An offer that is not taken; `reason` is one of REASONS, the text says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Interval(NamedTuple):
    """What a child offers for some time; UTC seconds, watts in load convention, capacities are magnitudes."""

    begin_s: float
    end_s: float
    points: Points
    lower_w: float
    upper_w: float
    regulation_up_w: float
    regulation_down_w: float
    regulation_price_per_kwh: float
    energy_up_wh: float
    energy_down_wh: float


class Offered(NamedTuple):
    """One offer that was taken."""

    id: str
    issued_s: float
    expires_s: float
    received_s: float
    intervals: tuple[Interval, ...]

    def over(self, begin_s: float, end_s: float) -> Interval | None:
        """What it says of the whole of a time; None where it says nothing, or has expired when that begins."""
        if begin_s >= self.expires_s:
            return None
        return next((one for one in self.intervals if one.begin_s <= begin_s and end_s <= one.end_s), None)


@dataclass(slots=True)
class OfferBook:
    """Each child's newest offer. `authority_s`: since when each child is this market's, in its present epoch."""

    authority_s: dict[str, float]
    refused: Counter[str] = field(default_factory=Counter)
    _taken: dict[str, list[Offered]] = field(default_factory=dict)

    def take(self, child: str, payload: bytes, now_s: float, open_s: float) -> Offered:
        """Take an offer, or raise OfferRefusedError and count it.

        `open_s`: from then on no gate has closed; an offer that says nothing of that time is late.
        """
        try:
            made = self._checked(child, payload, now_s, open_s)
        except OfferRefusedError as refusal:
            self.refused[refusal.reason] += 1
            raise
        kept = self._taken.setdefault(child, [])
        # The one before may hold for what this one does not speak of.
        kept[:] = [*[one for one in kept if one.expires_s > now_s][-1:], made]
        return made

    def over(self, child: str, begin_s: float, end_s: float, gate_s: float) -> tuple[Offered, Interval] | None:
        """The newest offer that had come by the gate and speaks of an interval."""
        for offered in reversed(self._taken.get(child, [])):
            interval = offered.over(begin_s, end_s)
            if interval is not None and offered.received_s <= gate_s:
                return offered, interval
        return None

    def _checked(self, child: str, payload: bytes, now_s: float, open_s: float) -> Offered:
        if child not in self.authority_s:
            raise OfferRefusedError(UNKNOWN_CHILD, child[:40])
        try:
            message = read("offer", payload)
        except UnexpectedError as error:
            reason = NOT_MONOTONE if _rises(str(error)) else BROKEN
            raise OfferRefusedError(reason, str(error)[:200]) from error
        made = _offered(message, now_s)
        if made.issued_s < self.authority_s[child]:
            raise OfferRefusedError(
                OLD_EPOCH, f"issued {self.authority_s[child] - made.issued_s:.1f} s before authority was taken"
            )
        if made.issued_s > now_s + CLOCKS_DIFFER_S:
            raise OfferRefusedError(FROM_THE_FUTURE, f"issued {made.issued_s - now_s:.1f} s ahead")
        if made.expires_s <= now_s:
            raise OfferRefusedError(EXPIRED, f"{now_s - made.expires_s:.1f} s ago")
        if any(made.issued_s < one.issued_s for one in self._taken.get(child, [])):
            raise OfferRefusedError(OLDER, made.id)
        if not any(one.end_s > open_s for one in made.intervals):
            raise OfferRefusedError(LATE, f"nothing of it is later than {open_s:.0f}")
        return made


def _rises(findings: str) -> bool:
    """Whether an offer is wrong in its curves' order alone."""
    parts = findings.split("; ")
    return all("power rises with price" in part or "curve: prices fall" in part for part in parts)


def _offered(message: Mapping[str, Any], now_s: float) -> Offered:
    intervals = tuple(_interval(one) for one in message["intervals"])
    issued_s, expires_s = (_seconds(message[name]) for name in ("issued_at", "expires_at"))
    overlaps = any(one.end_s > later.begin_s + 1e-6 for one, later in pairwise(intervals))
    if overlaps:
        raise OfferRefusedError(BROKEN, "intervals overlap")
    return Offered(message["id"], issued_s, expires_s, now_s, intervals)


def _interval(raw: Mapping[str, Any]) -> Interval:
    begin_s = _seconds(raw["start"])
    points = tuple((float(point["price_per_kwh"]), float(point["power_w"])) for point in raw["curve"])
    return Interval(
        begin_s,
        begin_s + raw["duration_s"],
        points,
        raw["lower_w"],
        raw["upper_w"],
        raw.get("regulation_up_w", 0.0),
        raw.get("regulation_down_w", 0.0),
        raw.get("regulation_price_per_kwh") or 0.0,
        raw["energy_up_wh"],
        raw["energy_down_wh"],
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
