"""The control cycle in time: tick, poll, switch the image, decide, write; and at once when an order arrives."""

from __future__ import annotations

import asyncio
import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from config.vocabulary import Clock
from drivers.driver import Driver
from gateway.control.decision import ControlState, Decision, decide, initial_state
from gateway.control.model import SiteModel
from gateway.control.orders_in_force import OrdersInForce
from gateway.image import Image, ImageInbox
from gateway.writer import Writer

DEADLINE_SHARE: Final = 0.4
"""The cycle decides with what has arrived by this part of the period."""

KEPT_FIGURES: Final = 100_000


class Figures:
    """Durations in milliseconds of the last cycles, for percentiles (nearest rank)."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=KEPT_FIGURES)

    def add(self, value_ms: float) -> None:
        self._values.append(value_ms)

    def __len__(self) -> int:
        return len(self._values)

    def summary(self) -> dict[str, float | None]:
        """p50, p99 and max, or None where nothing was measured."""
        ordered = sorted(self._values)
        return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "max": percentile(ordered, 1.0)}

    def recent(self, count: int) -> dict[str, float | None]:
        """The same over the last `count` values."""
        start = max(len(self._values) - count, 0)
        ordered = sorted(itertools.islice(self._values, start, None))
        return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "max": percentile(ordered, 1.0)}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest-rank percentile of ascending values, rounded to microseconds."""
    if not ordered:
        return None
    rank = bisect_left(range(1, len(ordered) + 1), share * len(ordered))
    return round(ordered[min(rank, len(ordered) - 1)], 3)


@dataclass(slots=True)
class CycleReport:
    """What one cycle was, for whoever watches."""

    decision: Decision
    orders: OrdersInForce
    started_s: float
    jitter_ms: float | None
    duration_ms: float
    writes: int


@dataclass(slots=True)
class ControlCycle:
    """Runs control in time. `orders` gives what is in force; `wake` makes it decide at once with the present image."""

    model: SiteModel
    drivers: Sequence[Driver]
    inbox: ImageInbox
    writer: Writer
    clock: Clock
    period_s: float
    orders: Callable[[], OrdersInForce]
    on_cycle: Callable[[CycleReport], None]
    state: ControlState | None = None
    count: int = 0
    missed: int = 0
    cycle_ms: Figures = field(default_factory=Figures)
    jitter_ms: Figures = field(default_factory=Figures)
    image: Image | None = None
    _new_orders: list[str] = field(default_factory=list)
    _order_waits: bool = False
    _woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, order_id: str) -> None:
        """An order that changes what holds has arrived."""
        self._new_orders.append(order_id)
        self._order_waits = True
        self._woken.set()
        self.inbox.arrived.set()

    def follow(self, order_id: str) -> None:
        """Tell of the writes of the next cycle under this name, without waking it."""
        self._new_orders.append(order_id)

    async def run(self) -> None:
        """Cycle until cancelled. A missed tick is counted and skipped, never queued."""
        self.state = initial_state(self.model)
        tick_s = self.clock() + self.period_s
        while True:
            await self._until(tick_s)
            now_s = self.clock()
            late_s = now_s - tick_s
            self.jitter_ms.add(late_s * 1e3)
            skipped = int(late_s / self.period_s)
            self.missed += skipped
            await self._poll(tick_s + DEADLINE_SHARE * self.period_s)
            self._decide(now_s, late_s * 1e3)
            tick_s += (1 + skipped) * self.period_s

    async def once(self) -> None:
        """One whole cycle at once, outside the rhythm: for benches. Waits for answers at most one period."""
        self.state = self.state or initial_state(self.model)
        started_s = self.clock()
        await self._poll(started_s + self.period_s)
        self._decide(started_s, 0.0)

    async def _until(self, tick_s: float) -> None:
        """Wait for the tick; an order that arrives meanwhile is decided at once."""
        loop = asyncio.get_running_loop()
        while True:
            if self._order_waits:
                self._decide(self.clock(), None)
            left_s = tick_s - self.clock()
            if left_s <= 0.0:
                return
            self._woken.clear()
            timer = loop.call_later(left_s, self._woken.set)
            try:
                await self._woken.wait()
            finally:
                timer.cancel()

    async def _poll(self, deadline_s: float) -> None:
        """Start the fast polls; return when all have answered, at the deadline, or when an order comes."""
        awaited = [device for driver in self.drivers for device in driver.poll()]
        if not self.inbox.await_samples(awaited):
            return
        timer = asyncio.get_running_loop().call_later(max(deadline_s - self.clock(), 0.0), self.inbox.arrived.set)
        try:
            await self.inbox.arrived.wait()
        finally:
            timer.cancel()

    def _decide(self, started_s: float, jitter_ms: float | None) -> None:
        """Switch, decide, write. `jitter_ms` None: between ticks, for an order."""
        assert self.state is not None
        self._order_waits = False
        order_ids, self._new_orders = tuple(self._new_orders), []
        self.image = self.inbox.switch(self.clock())
        orders = self.orders()
        decision = decide(self.model, self.image, orders, self.state)
        writes = self.writer.submit(decision, order_ids)
        duration_ms = (self.clock() - started_s) * 1e3
        if jitter_ms is not None:
            self.count += 1
            self.cycle_ms.add(duration_ms)
        self.on_cycle(CycleReport(decision, orders, started_s, jitter_ms, duration_ms, writes))
