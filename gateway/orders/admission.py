"""Which orders may come in at all, whatever they ask for: their times, and how many there are."""

from __future__ import annotations

from typing import Final

from config.messages import OrderMessage

MOST_HELD_ORDERS: Final = 256
"""Orders held at once; one more is refused, so that no source can fill the gateway."""

FUTURE_ISSUE_TOLERANCE_S: Final = 60.0
"""An order issued this far ahead of our clock is refused: one of the two clocks is wrong."""

OLDEST_ISSUE_S: Final = 86_400.0
"""An order that was longer on its way is refused: nobody knows whether it is still meant."""

FARTHEST_START_S: Final = 7 * 86_400.0
"""Orders that begin later than this are refused."""


class Refused(Exception):  # noqa: N818 (a refusal is an answer, not an error)
    """The order is not taken; the text says why and goes into the acknowledgement."""


def check_times(order: OrderMessage, now_utc_s: float, *, restored: bool) -> None:
    """Raises Refused for an order out of its time. One that was taken before a restart may be as old as it is."""
    issued_s = order.issued_at.timestamp()
    if issued_s - now_utc_s > FUTURE_ISSUE_TOLERANCE_S:
        raise Refused(f"issued {issued_s - now_utc_s:.0f} s in the future")
    if order.begins_at.timestamp() - now_utc_s > FARTHEST_START_S:
        raise Refused(f"starts more than {FARTHEST_START_S / 86_400:.0f} days ahead")
    if order.ends_at is not None and order.ends_at.timestamp() <= now_utc_s:
        raise Refused("expired: its end has passed")
    if not restored and now_utc_s - issued_s > OLDEST_ISSUE_S:
        raise Refused(f"issued {(now_utc_s - issued_s) / 3600:.0f} h ago: too long on its way to be acted on")
