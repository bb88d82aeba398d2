"""The offers of one layer: which are taken, and what of them holds now."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from config.messages import MAX_PAYLOAD_BYTES, Offer, OfferInterval

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_AHEAD_S: Final = 60.0
"""An offer issued this far ahead of our clock: one of the two clocks is wrong."""

ON_GRID: Final = 1e-6
"""Of a step: how far a breakpoint may be from its grid."""


class OfferRefused(Exception):  # noqa: N818 (a refusal is an answer, not an error)
    """The offer is not taken; the text says why."""


@dataclass(slots=True)
class OfferBook:
    """The newest offer, and the one before it for as long as the newest has not begun."""

    _offers: list[Offer] = field(default_factory=list)

    def take(self, payload: bytes, now: datetime, not_before: datetime) -> Offer:
        """Take an offer that was issued since `not_before` (the layer's clock); raises OfferRefused."""
        offer = parsed(payload)
        if offer.expires_at <= now:
            raise OfferRefused(f"expired {(now - offer.expires_at).total_seconds():.1f} s ago")
        if offer.issued_at - now > timedelta(seconds=MOST_AHEAD_S):
            raise OfferRefused(f"issued {(offer.issued_at - now).total_seconds():.0f} s in the future")
        if offer.issued_at < not_before:
            raise OfferRefused("made in an earlier epoch")
        if self._offers and offer.issued_at < self._offers[-1].issued_at:
            raise OfferRefused("older than the one before it")
        for fault in _faults(offer):
            raise OfferRefused(fault)
        self._offers = [*self._offers[-1:], offer]
        return offer

    def now(self, now: datetime) -> tuple[Offer, OfferInterval] | None:
        """The interval in which `now` lies, of the newest offer that has one; None: nothing is offered for now."""
        for offer in reversed(self._offers):
            if offer.expires_at <= now:
                continue
            for interval in offer.intervals:
                if interval.start <= now < interval.start + timedelta(seconds=interval.duration_s):
                    return offer, interval
        return None

    def forget(self) -> None:
        """Nothing that was offered before counts."""
        self._offers = []


def parsed(payload: bytes) -> Offer:
    """The offer in a payload; raises OfferRefused."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise OfferRefused(f"{len(payload)} bytes; {MAX_PAYLOAD_BYTES} are allowed")
    try:
        return Offer.model_validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise OfferRefused(f"{where}: {first['msg']}" if where else first["msg"]) from None


def curve_text(interval: OfferInterval) -> str:
    """A curve as control reads it: a JSON array of price and power."""
    return json.dumps([[point.price_per_kwh, point.power_w] for point in interval.curve])


def _faults(offer: Offer) -> Iterator[str]:
    """What the schema doesn't see."""
    for before, after in pairwise(offer.intervals):
        if after.start < before.start + timedelta(seconds=before.duration_s):
            yield "intervals overlap, or do not ascend"
    for interval in offer.intervals:
        for point in interval.curve:
            if not _on_grid(point.price_per_kwh, offer.price_step_per_kwh):
                yield f"price {point.price_per_kwh:g} is off the grid of {offer.price_step_per_kwh:g}"
            if not _on_grid(point.power_w, offer.power_step_w):
                yield f"power {point.power_w:g} is off the grid of {offer.power_step_w:g}"


def _on_grid(value: float, step: float) -> bool:
    steps = value / step
    return abs(steps - round(steps)) <= max(ON_GRID, abs(steps) * 1e-12)
