"""The order book: which orders hold now, which were refused and why, and what each became.

Pure but for its two injected clocks. Orders carry UTC; on receipt their start and end are mapped to monotonic time. An
order yet to start is mapped anew when the wall clock was corrected. A limit replaces the same source's limit on the
same quantity; a dispatch replaces the dispatch in force.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from config.messages import (
    AckStatus,
    AuthorityOrder,
    DispatchOrder,
    Down,
    LimitOrder,
    OrderMessage,
    RegulationSignal,
)
from config.vocabulary import Clock, UtcClock
from gateway.compliance.board import ComplianceBoard
from gateway.compliance.frame import GivenLimit
from gateway.control.orders_in_force import (
    DispatchInForce,
    LimitInForce,
    MarginsInForce,
    OrdersInForce,
    RegulationInForce,
)
from gateway.orders.admission import FUTURE_ISSUE_TOLERANCE_S, MOST_HELD_ORDERS, Refused, check_times
from gateway.orders.held import HeldOrder, Outcome, ParentState, given_limit, limit_value, slot
from gateway.orders.overrides import OPERATOR, HeldOverride, Overrides
from gateway.parent.promises import Promises

REMEMBERED_IDS: Final = 10_000


@dataclass(slots=True)
class OrderBook:
    """All orders of one site. `rating_w` bounds what a dispatch may ask for.

    Limits that a compliance function governs act through it alone: the book hands them over and tells its bounds.
    """

    rating_w: float
    parents: dict[str, ParentState]
    clock: Clock
    utc: UtcClock
    dispatcher: str | None = None
    epoch: int = 0
    refused: int = 0
    meter_released: str = ""
    clock_trusted: bool = True
    compliance: ComplianceBoard = field(default_factory=ComplianceBoard)
    promises: Promises = field(default_factory=Promises)
    _held: list[HeldOrder] = field(default_factory=list)
    _overrides: Overrides = field(init=False)
    _restoring: bool = False
    _regulation: RegulationInForce | None = None
    _regulation_epoch: int = -1
    _seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self._overrides = Overrides(self.clock, self.utc)
        if self.dispatcher is None:
            self.dispatcher = next((name for name, parent in self.parents.items() if parent.dispatches), None)

    # Taking orders

    def heartbeat(self, source: str, sequence: int) -> None:
        """A life sign. A repeated sequence is none: a frozen sender or a replay must not keep the site open.

        A lower sequence is a restarted parent.
        """
        parent = self.parents.get(source)
        if parent is None:
            raise Refused(f"{source} is not a parent of this site")
        if sequence == parent.sequence:
            raise Refused(f"heartbeat {sequence} repeated")
        parent.heard_s, parent.sequence = self.clock(), sequence

    def take_limit(self, source: str, order: LimitOrder) -> list[Outcome]:
        """Accept a limit; raises Refused. While the wall clock is not trusted, only what tightens is taken."""
        if not self.clock_trusted and self._relaxes(source, order):
            raise Refused("the wall clock is not trusted: a limit may be tightened now, not relaxed")
        held = self._admit(source, Down.LIMITS, order)
        refusal = "" if self._restoring else self.compliance.refusal(given_limit(held, order))
        if refusal:
            raise Refused(refusal)
        replaced = [
            other
            for other in self._held
            if isinstance(other.message, LimitOrder)
            and other.source == source
            and other.message.quantity is order.quantity
            and (other.starts_s >= held.starts_s or held.starts_s <= held.received_s)
        ]
        return self._put(held, replaced)

    def _relaxes(self, source: str, order: LimitOrder) -> bool:
        """Whether an order leaves more than what its source has in force, at its start or at its end."""
        now_s = self.clock()
        values = [
            held.message.value
            for held in self._held
            if isinstance(held.message, LimitOrder)
            and held.source == source
            and held.message.quantity is order.quantity
            and held.holds(now_s)
        ]
        if not values or values[0] == "unlimited":
            return False
        # The fallback holds for what is unknown; a number may be more than that.
        return order.value != "unknown" and (
            not isinstance(values[0], float) or not isinstance(order.value, float) or order.value > values[0]
        )

    def take_dispatch(self, source: str, order: DispatchOrder) -> list[Outcome]:
        """Accept a dispatch from the one parent that has authority, in its epoch; raises Refused."""
        awarded = ((held.source, held.message) for held in self._held if isinstance(held.message, DispatchOrder))
        twice = "" if self._restoring else self.promises.refusal(source, order, awarded, self.utc())
        self._check_authority(source, order.epoch)
        if twice:
            raise Refused(twice)
        if abs(order.net_power_w) > self.rating_w:
            raise Refused(f"net_power_w {order.net_power_w:g} is beyond the connection's {self.rating_w:g} W")
        most_w, least_w = order.net_power_w + order.regulation_down_w, order.net_power_w - order.regulation_up_w
        if most_w > self.rating_w or least_w < -self.rating_w:
            raise Refused(f"the regulation reserve reaches beyond the connection's {self.rating_w:g} W")
        held = self._admit(source, Down.DISPATCH, order)
        replaced = [
            other
            for other in self._held
            if isinstance(other.message, DispatchOrder)
            and (other.starts_s >= held.starts_s or held.starts_s <= held.received_s)
        ]
        return self._put(held, replaced)

    def take_authority(self, source: str, order: AuthorityOrder) -> list[Outcome]:
        """Hand dispatch to a parent in a new epoch; only the present dispatcher may. Raises Refused."""
        if source != self.dispatcher:
            raise Refused(f"{source} has no authority to hand over; {self.dispatcher or 'nobody'} has")
        if order.parent not in self.parents:
            raise Refused(f"{order.parent} is not a parent of this site")
        if order.epoch <= self.epoch and not (order.epoch == self.epoch and order.parent == self.dispatcher):
            raise Refused(f"epoch {order.epoch} is not above {self.epoch}")
        held = self._admit(source, Down.AUTHORITY, order)
        outcomes = [Outcome(source, order.id, Down.AUTHORITY, AckStatus.ACCEPTED)]
        if order.parent != self.dispatcher:
            outcomes += self._drop([other for other in self._held if other.kind is Down.DISPATCH], "authority moved")
            self._regulation = None
        self.dispatcher, self.epoch = order.parent, order.epoch
        self._remember(held.message.id)
        return outcomes

    def hand_over(self, parent: str, epoch: int | None = None) -> list[Outcome]:
        """The operator's word at the site: a parent dispatches from now on, in a higher epoch (None: the next one).

        Unlike a parent's own order it asks nobody who has authority, so that one who is gone for good is replaced.
        Raises Refused.
        """
        if parent not in self.parents:
            raise Refused(f"{parent} is not a parent of this site; there are {', '.join(self.parents) or 'none'}")
        epoch = self.epoch + 1 if epoch is None else epoch
        if epoch <= self.epoch:
            raise Refused(f"epoch {epoch} is not above {self.epoch}")
        outcomes = self._drop([held for held in self._held if held.kind is Down.DISPATCH], "authority moved")
        self._regulation, self.dispatcher, self.epoch = None, parent, epoch
        return outcomes

    def take_regulation(self, source: str, signal: RegulationSignal) -> None:
        """The newest signal wins; an older or repeated sequence, another's or a wrong epoch raises Refused."""
        self._check_authority(source, signal.epoch)
        newest = self._regulation
        if newest is not None and self._regulation_epoch == signal.epoch and signal.sequence <= newest.sequence:
            raise Refused(f"sequence {signal.sequence} is not newer than {newest.sequence}")
        age_s = self.utc() - signal.issued_at.timestamp()
        if not -FUTURE_ISSUE_TOLERANCE_S <= age_s <= signal.lost_after_s:
            raise Refused(f"issued {age_s:.1f} s ago by our clock")
        self._regulation = RegulationInForce(source, signal.sequence, signal.signal, self.clock(), signal.lost_after_s)
        self._regulation_epoch = signal.epoch

    def override(
        self, order_id: str, device: str, lower_w: float, upper_w: float, duration_s: float | None = None
    ) -> None:
        """The operator keeps a device within these bounds (load convention), for a time or until released."""
        self._overrides.hold(order_id, device, lower_w, upper_w, duration_s)

    def release(self, device: str | None = None) -> list[str]:
        """End the operator's overrides of a device, or (None) of all; their ids."""
        return self._overrides.release(device)

    def withdraw(self, source: str, reason: str) -> list[Outcome]:
        """End every order of a source."""
        return self._drop([held for held in self._held if held.source == source], reason)

    def overrides(self) -> tuple[HeldOverride, ...]:
        """The operator's words on devices."""
        return self._overrides.held()

    def _check_authority(self, source: str, epoch: int) -> None:
        if source != self.dispatcher:
            raise Refused(f"{source} has no dispatch authority; {self.dispatcher or 'nobody'} has")
        if epoch != self.epoch:
            raise Refused(f"epoch {epoch} is not the present epoch {self.epoch}")

    def _admit(self, source: str, kind: Down, order: OrderMessage) -> HeldOrder:
        if source not in self.parents and source != OPERATOR:
            raise Refused(f"{source} is not a parent of this site")
        if order.id in self._seen:
            raise Refused("duplicate: this id was taken before")
        if len(self._held) >= MOST_HELD_ORDERS:
            raise Refused(f"{MOST_HELD_ORDERS} orders are held already")
        now_utc, now_s = self.utc(), self.clock()
        check_times(order, now_utc, restored=self._restoring)
        heartbeat_age_s = None if self._restoring else self.heartbeat_ages_s().get(source)
        return self._map(HeldOrder(source, kind, order, 0.0, None, now_s, heartbeat_age_s), now_s, now_utc)

    @staticmethod
    def _map(held: HeldOrder, now_s: float, now_utc: float) -> HeldOrder:
        """Place the order's UTC times on the monotonic clock."""
        order = held.message
        held.starts_s = now_s + max(order.begins_at.timestamp() - now_utc, 0.0)
        held.ends_s = None if order.ends_at is None else now_s + order.ends_at.timestamp() - now_utc
        return held

    def _put(self, held: HeldOrder, replaced: list[HeldOrder]) -> list[Outcome]:
        outcomes = [Outcome(held.source, held.message.id, held.kind, AckStatus.ACCEPTED)]
        outcomes += self._drop(replaced, f"replaced by {held.message.id}")
        self._held.append(held)
        self._remember(held.message.id)
        return outcomes

    def _drop(self, orders: Iterable[HeldOrder], reason: str) -> list[Outcome]:
        outcomes = []
        for order in orders:
            self._held.remove(order)
            outcomes.append(Outcome(order.source, order.message.id, order.kind, AckStatus.SUPERSEDED, reason))
        return outcomes

    def _remember(self, order_id: str) -> None:
        self._seen[order_id] = None
        while len(self._seen) > REMEMBERED_IDS:
            self._seen.popitem(last=False)

    # What holds

    def advance(self) -> list[Outcome]:
        """Let orders end; what they became. A limit whose end asks for the fallback stays as unknown."""
        now_s = self.clock()
        outcomes = []
        for order in list(self._held):
            if order.holds(now_s) and not order.started:
                order.started = True
                outcomes += self._displaced_by(order)
            if order.ends_s is not None and now_s >= order.ends_s:
                outcomes.append(Outcome(order.source, order.message.id, order.kind, AckStatus.COMPLETED))
                if isinstance(order.message, LimitOrder) and order.message.on_end == "fallback":
                    order.ends_s = None
                    order.message = order.message.model_copy(update={"value": "unknown", "duration_s": None})
                else:
                    self._held.remove(order)
        self._overrides.advance()
        return outcomes

    def _displaced_by(self, order: HeldOrder) -> list[Outcome]:
        """Orders of the same slot that an order with a later start displaces when it begins."""
        if order.starts_s <= order.received_s:
            return []
        others = [
            other
            for other in self._held
            if other is not order and other.starts_s < order.starts_s and slot(other) == slot(order)
        ]
        return self._drop(others, f"replaced by {order.message.id}")

    def in_force(self) -> OrdersInForce:
        """What directs this cycle."""
        now_s = self.clock()
        limits, dispatch = [], None
        for held in self._held:
            message = held.message
            if held.starts_s > now_s:
                continue
            if isinstance(message, LimitOrder):
                if self.compliance.governs(held.source, message.quantity):
                    continue
                limits.append(LimitInForce(held.source, message.id, message.quantity, limit_value(message.value)))
            elif isinstance(message, DispatchOrder) and held.holds(now_s):
                dispatch = DispatchInForce(
                    held.source,
                    message.id,
                    message.net_power_w,
                    held.starts_s,
                    message.ramp_w_per_s,
                    message.regulation_up_w,
                    message.regulation_down_w,
                    message.lambda_per_kwh,
                )
        limits += [
            LimitInForce(ruling.function, f"{ruling.state}: {bound.why}", bound.quantity, bound.value_w)
            for ruling in self.compliance.rulings
            for bound in ruling.bounds
        ]
        return OrdersInForce(
            tuple(limits),
            dispatch,
            self._regulation if dispatch is not None else None,
            tuple(held.in_force for held in self._overrides.held()),
            self._fallback_reason(now_s),
            self.meter_released,
            self._margins(),
        )

    def _margins(self) -> MarginsInForce | None:
        for ruling in self.compliance.rulings:
            if ruling.margins is not None:
                return MarginsInForce(ruling.function, ruling.margins.lower_w, ruling.margins.upper_w)
        return None

    def governed(self) -> tuple[GivenLimit, ...]:
        """The limits held that act through a compliance function."""
        return tuple(
            given_limit(held, held.message)
            for held in self._held
            if isinstance(held.message, LimitOrder) and self.compliance.governs(held.source, held.message.quantity)
        )

    def heartbeat_ages_s(self) -> dict[str, float | None]:
        """How long each parent has been silent; None: never heard."""
        now_s = self.clock()
        return {
            name: None if parent.heard_s is None else now_s - parent.heard_s for name, parent in self.parents.items()
        }

    def _fallback_reason(self, now_s: float) -> str:
        for name, parent in self.parents.items():
            if self.compliance.answers_silence_of(name):
                continue
            if parent.heard_s is None:
                return f"{name} not heard yet"
            if now_s - parent.heard_s > parent.timeout_s:
                return f"{name} silent"
        return ""

    def next_change_s(self) -> float | None:
        """When the next order starts or ends, monotonic; the cycle need not wait for its tick."""
        now_s = self.clock()
        times = [time for held in self._held for time in (held.starts_s, held.ends_s) if time is not None]
        return min((time for time in times if time > now_s), default=None)

    @property
    def regulation_sequence(self) -> int | None:
        """The newest regulation sequence taken, for the echo in telemetry."""
        return None if self._regulation is None else self._regulation.sequence

    def held(self) -> tuple[HeldOrder, ...]:
        """All orders held, in force or yet to start."""
        return tuple(self._held)

    # Clock and restart

    def wall_clock_corrected(self) -> None:
        """Map the orders that have not started anew; those in force keep their monotonic times."""
        now_s, now_utc = self.clock(), self.utc()
        for held in self._held:
            if held.starts_s > now_s:
                self._map(held, now_s, now_utc)

    def dump(self) -> dict[str, Any]:
        """What survives a restart, in UTC."""
        return {
            "version": 1,
            "dispatcher": self.dispatcher,
            "epoch": self.epoch,
            "seen": list(self._seen)[-1000:],
            "orders": [
                {"source": held.source, "kind": held.kind.value, "message": held.message.model_dump(mode="json")}
                for held in self._held
            ],
            "overrides": self._overrides.dump(),
            "compliance": self.compliance.dump(self.clock(), self.utc()),
        }

    def restore(self, dumped: dict[str, Any]) -> list[str]:
        """Take up what an earlier run held; returns what could not be taken up, as texts.

        Expired orders are left behind. Raises nothing on content that no longer validates.
        """
        problems = []
        if dumped.get("dispatcher") in self.parents:
            self.dispatcher, self.epoch = dumped["dispatcher"], int(dumped.get("epoch", 0))
        takers: dict[str, Callable[[str, Any], object]] = {
            "limits": lambda source, raw: self.take_limit(source, LimitOrder.model_validate(raw)),
            "dispatch": lambda source, raw: self.take_dispatch(source, DispatchOrder.model_validate(raw)),
        }
        # What was taken before is taken up again, whatever is thought of the clock now.
        trusted, self.clock_trusted, self._restoring = self.clock_trusted, True, True
        for item in dumped.get("orders", ()):
            try:
                takers[item["kind"]](item["source"], item["message"])
            except (Refused, ValueError, KeyError, TypeError) as error:
                problems.append(str(error).splitlines()[0] if str(error) else repr(error))
        self.clock_trusted, self._restoring = trusted, False
        for item in dumped.get("overrides", ()):
            try:
                self._overrides.restore(item)
            except (Refused, ValueError, KeyError, TypeError) as error:
                problems.append(repr(error))
        problems += self.compliance.restore(dumped.get("compliance"), self.clock(), self.utc())
        for order_id in dumped.get("seen", ()):
            self._remember(str(order_id))
        return problems


def utc_text(seconds: float) -> str:
    """ISO 8601 with milliseconds and offset."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
