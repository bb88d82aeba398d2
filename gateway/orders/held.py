"""Orders as the book holds them, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass

from config.messages import AckStatus, Down, LimitOrder, OrderMessage
from config.vocabulary import Absent, LimitValue, Quantity
from gateway.compliance.frame import GivenLimit


@dataclass(slots=True)
class HeldOrder:
    """An accepted order with its times in monotonic seconds; `ends_s` None: until replaced.

    `heartbeat_age_s`: how long before the order its source's last heartbeat came; None: nobody knows.
    """

    source: str
    kind: Down
    message: OrderMessage
    starts_s: float
    ends_s: float | None
    received_s: float
    heartbeat_age_s: float | None = None
    started: bool = False

    def holds(self, now_s: float) -> bool:
        """Whether it is in force."""
        return self.starts_s <= now_s and (self.ends_s is None or now_s < self.ends_s)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an order, for its acknowledgement and the journal."""

    source: str
    order_id: str
    kind: Down
    status: AckStatus
    reason: str = ""


@dataclass(slots=True)
class ParentState:
    """What is known of one parent's life."""

    timeout_s: float
    dispatches: bool
    heard_s: float | None = None
    sequence: int = -1


def limit_value(value: float | str) -> LimitValue:
    """A message's value as control knows it."""
    return Absent(value) if isinstance(value, str) else value


def slot(held: HeldOrder) -> tuple[str, Down, Quantity | None]:
    """What an order occupies: one per source and quantity for limits, one in all for dispatch."""
    if isinstance(held.message, LimitOrder):
        return held.source, held.kind, held.message.quantity
    return "", held.kind, None


def given_limit(held: HeldOrder, order: LimitOrder) -> GivenLimit:
    """A limit as a compliance function is shown it."""
    return GivenLimit(
        held.source,
        order.id,
        order.quantity,
        limit_value(order.value),
        held.received_s,
        held.starts_s,
        held.ends_s,
        held.heartbeat_age_s,
    )
