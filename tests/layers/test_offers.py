"""Which offers of a layer below are taken, and what of them holds now."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from drivers.layer.offers import OfferBook, OfferRefused, curve_text
from tests.layers.messages import NOW, interval, offer

SECOND = timedelta(seconds=1)


def refusal(payload: bytes, book: OfferBook | None = None) -> str:
    with pytest.raises(OfferRefused) as caught:
        (book or OfferBook()).take(payload, NOW, NOW - SECOND)
    return str(caught.value)


def changed(**change: Any) -> bytes:
    """A good offer with other fields."""
    return json.dumps(json.loads(offer(NOW).model_dump_json()) | change).encode()


def with_curve(*points: tuple[float, float]) -> bytes:
    raw = json.loads(offer(NOW).model_dump_json())
    raw["intervals"][0]["curve"] = [{"price_per_kwh": price, "power_w": power_w} for price, power_w in points]
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"{", "JSON"),
        (b"x" * 70_000, "70000 bytes"),
        (changed(devices=["battery"]), "Extra inputs"),
        (changed(expires_at="2026-06-08T09:59:59Z"), "expired 1.0 s ago"),
        (changed(issued_at="2026-06-08T10:05:00Z"), "300 s in the future"),
        (changed(issued_at="2026-06-08T09:00:00Z"), "earlier epoch"),
        (with_curve((0.0, 5000.0), (0.25, 6000.0)), "must not rise"),
        (with_curve((0.25, 6000.0), (0.0, 5000.0)), "must ascend"),
        (with_curve((0.0, 5300.0), (0.25, 5000.0)), "5300 is off the grid of 1000"),
        (with_curve((0.01, 6000.0), (0.25, 5000.0)), "0.01 is off the grid of 0.05"),
        (with_curve((0.0, 99_000.0)), "outside lower_w to upper_w"),
    ],
)
def test_what_is_wrong_with_an_offer_is_said(payload: bytes, says: str) -> None:
    assert says in refusal(payload)


def test_intervals_ascend_and_do_not_overlap() -> None:
    twice = offer(NOW, interval(NOW), interval(NOW + 60 * SECOND))
    assert "overlap" in refusal(twice.model_dump_json().encode())


def test_an_offer_that_was_overtaken_is_refused() -> None:
    book = OfferBook()
    book.take(offer(NOW).model_dump_json().encode(), NOW, NOW - SECOND)
    late = offer(NOW - SECOND).model_dump_json().encode()
    assert "older than the one before" in refusal(late, book)


def test_the_interval_of_now_is_the_newest_offers_that_has_one() -> None:
    book = OfferBook()
    first = offer(NOW, interval(NOW, upper_w=10_000.0), interval(NOW + 300 * SECOND, upper_w=20_000.0))
    book.take(first.model_dump_json().encode(), NOW, NOW)
    # The next one speaks of what comes after the present interval alone.
    second = offer(NOW + 60 * SECOND, interval(NOW + 300 * SECOND, upper_w=30_000.0))
    book.take(second.model_dump_json().encode(), NOW + 60 * SECOND, NOW)

    def upper_w(after_s: float) -> float | None:
        found = book.now(NOW + after_s * SECOND)
        return None if found is None else found[1].upper_w

    assert [upper_w(s) for s in (61, 299, 300, 599, 601)] == [10_000.0, 10_000.0, 30_000.0, 30_000.0, None]


def test_a_curve_reads_back_as_it_was() -> None:
    assert json.loads(curve_text(interval(NOW))) == [[0.0, 30_000.0], [0.25, 5000.0], [0.5, -20_000.0]]
