"""The order desk: from a payload to the book, to control at once, to the journal, and then the acknowledgement.

An order is acted on first; a thread journals it with fsync, and only then the acknowledgement goes out, so that an
acknowledged order survives a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import structlog

from config.messages import Acknowledgement, AckStatus, Down, MeasuredResult
from config.vocabulary import UtcClock
from gateway.compliance.frame import Moment
from gateway.control.decision import Decision
from gateway.control.orders_in_force import OrdersInForce
from gateway.journal import Journal
from gateway.orders.book import OrderBook
from gateway.orders.held import Outcome
from gateway.parent.receive import receive
from gateway.parent.utc import utc_datetime


@dataclass(slots=True)
class _Measured:
    """What was measured while an order held."""

    energy_ws: float = 0.0
    measured_s: float = 0.0
    unmet_s: float = 0.0

    def result(self) -> MeasuredResult:
        known = self.measured_s > 0.0
        return MeasuredResult(
            mean_net_power_w=round(self.energy_ws / self.measured_s, 1) if known else None,
            energy_wh=round(self.energy_ws / 3600.0, 3) if known else None,
            unmet_s=round(self.unmet_s, 3),
        )


@dataclass(slots=True)
class OrderDesk:
    """`acknowledge` sends to the source; `wake` tells the cycle of an order that changed what holds."""

    book: OrderBook
    journal: Journal
    utc: UtcClock
    acknowledge: Callable[[str, Acknowledgement], None]
    wake: Callable[[str], None]
    _measured: dict[str, _Measured] = field(default_factory=dict)
    _last_s: float | None = None
    _last_decision: Decision | None = None

    def handle(self, source: str, kind: str, payload: bytes, retained: bool) -> None:
        """One message from a parent."""
        received_s = self.book.clock()
        received = receive(self.book, source, kind, payload, retained=retained)
        if received.changed:
            self.wake(received.order_id)
        if received.kind is Down.REGULATION and received.changed:
            self.journal.record(
                "order",
                id=received.order_id,
                kind=Down.REGULATION,
                source=source,
                status=AckStatus.ACCEPTED,
                reason="",
                received_s=received_s,
                message=received.message,
            )
        for outcome in received.outcomes:
            own = outcome.order_id == received.order_id
            self._conclude(outcome, received.message if own else None, received_s if own else None)

    def in_force(self) -> OrdersInForce:
        """What holds now; orders that have ended are concluded on the way, and the compliance functions stepped."""
        for outcome in self.book.advance():
            self._conclude(outcome, None, None)
        if self.book.compliance.functions:
            self._comply()
        return self.book.in_force()

    def _comply(self) -> None:
        """Show the functions this moment; what was measured is the last cycle's. Transitions survive a crash."""
        decision, now_s = self._last_decision, self.book.clock()
        envelope = None if decision is None else decision.envelope
        moment = Moment(
            now_s,
            self.utc(),
            0.0 if decision is None else max(now_s - decision.now_s, 0.0),
            None if decision is None else decision.net_w,
            None if decision is None else _generation_w(decision),
            -inf if envelope is None else envelope.lower.value_w,
            inf if envelope is None else envelope.upper.value_w,
            self.book.heartbeat_ages_s(),
            self.book.governed(),
        )
        for transition in self.book.compliance.step(moment):
            structlog.get_logger().info("compliance", **transition._asdict())
            self.journal.record_durably("compliance", self.book.dump(), _nobody_waits, **transition._asdict())

    def conclude(self, outcome: Outcome) -> None:
        """Journal and acknowledge what became of an order by something else than a parent's message."""
        self._conclude(outcome, None, None)

    def measure(self, decision: Decision) -> None:
        """Account one cycle to the orders in force."""
        dt_s = 0.0 if self._last_s is None else min(decision.now_s - self._last_s, 1.0)
        self._last_s, self._last_decision = decision.now_s, decision
        for held in self.book.held():
            if not held.holds(decision.now_s):
                continue
            measured = self._measured.setdefault(held.message.id, _Measured())
            measured.unmet_s += dt_s * bool(decision.unmet)
            if decision.net_w is not None:
                measured.energy_ws += decision.net_w * dt_s
                measured.measured_s += dt_s

    def _conclude(self, outcome: Outcome, message: dict[str, Any] | None, received_s: float | None) -> None:
        result = None
        if outcome.status in (AckStatus.COMPLETED, AckStatus.SUPERSEDED):
            result = self._measured.pop(outcome.order_id, _Measured()).result()
        orders = self.book.dump() if outcome.status is not AckStatus.REJECTED else None
        self.journal.record_durably(
            "order",
            orders,
            partial(self._acknowledge, outcome, result),
            id=outcome.order_id,
            kind=outcome.kind,
            source=outcome.source,
            status=outcome.status,
            reason=outcome.reason,
            received_s=received_s,
            message=message,
            result=None if result is None else result.model_dump(),
        )

    def _acknowledge(self, outcome: Outcome, result: MeasuredResult | None, failure: str) -> None:
        self.acknowledge(
            outcome.source,
            Acknowledgement(
                order_id=outcome.order_id,
                kind=outcome.kind,
                status=outcome.status,
                reason="; ".join(filter(None, (outcome.reason, failure)))[:400],
                issued_at=utc_datetime(self.utc()),
                result=result,
            ),
        )


def _generation_w(decision: Decision) -> float | None:
    """What the devices generate together, a magnitude; None where one that generates is not measured."""
    generation_w = 0.0
    for resource in decision.resources:
        if resource.power_w is not None:
            generation_w += max(-resource.power_w, 0.0)
        elif resource.model.min_w < 0.0:
            return None
    return generation_w


def _nobody_waits(_: str) -> None:
    """A transition is acknowledged to nobody."""
