"""What one layer is told: our authority first, then dispatches, each answered by an acknowledgement that names it."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeAlias

from config.messages import Acknowledgement, AckStatus, AuthorityOrder, DispatchOrder, Down, Offer
from config.strict import Strict
from config.vocabulary import AUTHORITY_HELD, Setpoint, WriteResult, WriteStatus

if TYPE_CHECKING:
    from config.vocabulary import Clock, FieldSink, UtcClock
    from drivers.driver import LinkStats

SENT_KEPT: Final = 256
"""Dispatches whose power is known when telemetry repeats their id."""

MOST_IN_FLIGHT: Final = 8
"""Dispatches that wait for their acknowledgements; the newest setpoint waits behind them."""

NOTHING_TOLD: Final = (0, 0)
MOST_PATH: Final = 576
MOST_PRICE: Final = 1e6
"""As the layer interface bounds prices."""

UNCONFIRMED: Final = "not confirmed yet"

Publish: TypeAlias = Callable[[Down, Strict], Awaitable[None]]


class Dispatches:
    """The orders to one layer over whatever connection there is; every setpoint gets exactly one result.

    The first thing on each connection is our authority in our epoch; dispatches go out once that is accepted. They do
    not wait for each other's acknowledgements: the layer takes them in order, and the newest holds. A dispatch that is
    refused is followed by our authority again, which tells whether it is still ours; once it is not, nothing more is
    sent, for whoever has it now has it on purpose.
    """

    def __init__(
        self,
        device: str,
        source: str,
        epoch: int,
        timeout_s: float,
        sink: FieldSink,
        stats: LinkStats,
        clock: Clock,
        utc: UtcClock,
    ) -> None:
        self.authority = UNCONFIRMED
        self.held_since: datetime | None = None
        self.accepted: tuple[str, datetime] | None = None
        self.stranger = ""
        self.offer: Offer | None = None
        self.path: tuple[Mapping[float, float], int] = {}, 0
        self._told_path = NOTHING_TOLD
        self._device, self._source, self._epoch, self._timeout_s = device, source, epoch, timeout_s
        self._sink, self._stats, self._clock, self._utc = sink, stats, clock, utc
        self._pending: Setpoint | None = None
        self._in_flight: dict[str, tuple[Setpoint, asyncio.TimerHandle]] = {}
        self._sent: OrderedDict[str, float] = OrderedDict()
        self._path_order = ""
        self._authority_id = ""
        self._authority_due = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._wake = asyncio.Event()
        self._count = 0

    @property
    def prefix(self) -> str:
        """How the ids of this epoch's orders begin."""
        return f"{self._source}-{self._epoch}-"

    def put(self, setpoint: Setpoint) -> None:
        """Take a setpoint to be sent next, in place of one that has not gone out."""
        if not math.isfinite(setpoint.power_w):
            self._tell(setpoint, WriteStatus.REFUSED, f"{setpoint.power_w} W is not a power")
            return
        if self.authority not in (AUTHORITY_HELD, UNCONFIRMED):
            self._tell(setpoint, WriteStatus.REFUSED, self.authority)
            return
        self._drop_pending(WriteStatus.SUPERSEDED, f"by setpoint {setpoint.sequence}")
        self._pending = setpoint
        left_s = max(setpoint.expires_s - self._clock(), 0.001)
        self._later(left_s, lambda: self._expire(setpoint))
        self._wake.set()

    async def serve(self, publish: Publish) -> None:
        """Send what there is and what comes over one connection, until cancelled or until `publish` raises."""
        self.authority = UNCONFIRMED
        self._authority_due, self._told_path = True, NOTHING_TOLD
        try:
            while True:
                self._wake.clear()
                if self._authority_due:
                    await self._send_authority(publish)
                elif self._may_dispatch():
                    await self._send_dispatch(publish)
                else:
                    await self._wake.wait()
        finally:
            for order_id in list(self._in_flight):
                self._answered(order_id, WriteStatus.INDETERMINATE, "the connection was lost before the answer")
            self.authority = UNCONFIRMED

    def stop(self) -> None:
        """The driver ends: nothing that waits will go out."""
        self._drop_pending(WriteStatus.EXPIRED, "the driver stopped before it went out")
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def asked_w(self, order_id: str) -> float | None:
        """What a dispatch of ours asked for; None for an id that is not known."""
        return self._sent.get(order_id)

    def acknowledged(self, message: Acknowledgement) -> None:
        """The layer's answer to an order under our name."""
        if message.kind is Down.AUTHORITY:
            self._take_authority(message)
        elif message.kind is Down.DISPATCH:
            self._take_answer(message)

    def _may_dispatch(self) -> bool:
        held = self.authority == AUTHORITY_HELD
        return held and self._pending is not None and len(self._in_flight) < MOST_IN_FLIGHT

    async def _send_authority(self, publish: Publish) -> None:
        self._authority_due = False
        self._authority_id = self._new_id()
        name = self._authority_id
        self._later(self._timeout_s, lambda: self._authority_unanswered(name))
        await publish(
            Down.AUTHORITY,
            AuthorityOrder(id=name, issued_at=self._now(), parent=self._source, epoch=self._epoch),
        )

    async def _send_dispatch(self, publish: Publish) -> None:
        setpoint = self._pending
        assert setpoint is not None
        self._pending = None
        if self._clock() >= setpoint.expires_s:
            self._tell(setpoint, WriteStatus.EXPIRED, "before it went out")
            return
        order = self._order(setpoint, self._path_ahead())
        self._sent[order.id] = order.net_power_w
        while len(self._sent) > SENT_KEPT:
            self._sent.popitem(last=False)
        late = f"no answer within {self._timeout_s:g} s"
        timer = self._later(
            self._timeout_s, lambda: self._answered(order.id, WriteStatus.INDETERMINATE, late, late=True)
        )
        self._in_flight[order.id] = setpoint, timer
        if order.lambda_path_per_kwh:
            self._told_path, self._path_order = (self.path[1], len(order.lambda_path_per_kwh)), order.id
        await publish(Down.DISPATCH, order)

    def _path_ahead(self) -> tuple[float, ...]:
        """The price at the middle of each interval that the layer has planned itself.

        Once for each path, and again where the layer has come to plan further ahead.
        """
        prices, version = self.path
        if self.offer is None:
            return ()
        found: list[float] = []
        begins, now_s = sorted(prices), self._utc()
        last_s = begins[-1] + (begins[-1] - begins[-2]) if len(begins) > 1 else math.inf
        for interval in self.offer.intervals[:MOST_PATH]:
            begin_s = interval.start.timestamp()
            if begin_s <= now_s:
                continue
            middle_s = begin_s + interval.duration_s / 2.0
            at = bisect_right(begins, middle_s)
            if at == 0 or middle_s >= last_s or interval.forecast is None:
                break
            found.append(round(min(max(prices[begins[at - 1]], -MOST_PRICE), MOST_PRICE), 6))
        told_version, told = self._told_path
        return tuple(found) if version != told_version or len(found) > told else ()

    def _order(self, setpoint: Setpoint, path: tuple[float, ...]) -> DispatchOrder:
        price = setpoint.lambda_per_kwh
        return DispatchOrder(
            id=self._new_id(),
            issued_at=self._now(),
            epoch=self._epoch,
            net_power_w=round(setpoint.power_w, 1),
            offer_id=None if self.offer is None else self.offer.id,
            lambda_path_per_kwh=path,
            lambda_per_kwh=None if price is None else round(min(max(price, -MOST_PRICE), MOST_PRICE), 6),
        )

    def _take_authority(self, message: Acknowledgement) -> None:
        if message.order_id != self._authority_id:
            if not message.order_id.startswith(self.prefix) and message.status is AckStatus.ACCEPTED:
                self.stranger = "an authority order under our name, that this gateway did not give, was accepted"
            return
        self._authority_id = ""
        if message.status is AckStatus.REJECTED:
            self.authority = f"refused: {message.reason}"
            self._drop_pending(WriteStatus.REFUSED, self.authority)
        else:
            self.authority = AUTHORITY_HELD
            self.held_since = self.held_since or message.issued_at
        self._wake.set()

    def _take_answer(self, message: Acknowledgement) -> None:
        ours = message.order_id in self._sent
        if message.status is AckStatus.ACCEPTED and not ours and not message.order_id.startswith(self.prefix):
            self.stranger = "a dispatch under our name, that this gateway did not give, was accepted"
        if not ours:
            return
        if message.status is AckStatus.REJECTED:
            self._answered(message.order_id, WriteStatus.REFUSED, message.reason)
            self._authority_due = True
            self._wake.set()
            return
        if message.status is AckStatus.ACCEPTED:
            self.accepted, self.stranger = (message.order_id, message.issued_at), ""
        # One that was replaced or has ended was accepted before, whatever became of that answer.
        self._answered(message.order_id, WriteStatus.ACKNOWLEDGED, "")

    def _answered(self, order_id: str, status: WriteStatus, detail: str, *, late: bool = False) -> None:
        waiting = self._in_flight.pop(order_id, None)
        if waiting is None:
            return
        if order_id == self._path_order and status is not WriteStatus.ACKNOWLEDGED:
            self._told_path = NOTHING_TOLD
        setpoint, timer = waiting
        self._cancel(timer)
        self._stats.timeouts += late
        self._tell(setpoint, status, detail)
        self._wake.set()

    def _authority_unanswered(self, order_id: str) -> None:
        if order_id == self._authority_id:
            self._stats.timeouts += 1
            self._authority_due = True
            self._wake.set()

    def _expire(self, setpoint: Setpoint) -> None:
        if self._pending is setpoint:
            self._drop_pending(WriteStatus.EXPIRED, f"before it went out; authority {self.authority}")

    def _drop_pending(self, status: WriteStatus, detail: str) -> None:
        if self._pending is not None:
            setpoint, self._pending = self._pending, None
            self._tell(setpoint, status, detail)

    def _tell(self, setpoint: Setpoint, status: WriteStatus, detail: str) -> None:
        if status is WriteStatus.ACKNOWLEDGED:
            self._stats.writes_acknowledged += 1
        elif status in (WriteStatus.REFUSED, WriteStatus.INDETERMINATE):
            self._stats.writes_failed += 1
        self._sink.write_result(WriteResult(self._device, setpoint.sequence, status, self._clock(), detail))

    def _later(self, after_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        def run() -> None:
            self._timers.discard(timer)
            call()

        timer = asyncio.get_running_loop().call_later(after_s, run)
        self._timers.add(timer)
        return timer

    def _cancel(self, timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._timers.discard(timer)

    def _new_id(self) -> str:
        self._count += 1
        return f"{self.prefix}{self._count}"

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._utc(), UTC)
