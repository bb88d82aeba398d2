"""A faulty line in time: what its core says is done when it is due, through the running loop's timers."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from sim_devices.faults.fault_set import FaultSet
from sim_devices.faults.line import Act, Close, FaultyLine, Payload
from sim_devices.faults.registry import Direction
from sim_devices.faults.speech import Speech

Deliver: TypeAlias = Callable[[Direction, Payload], None]
"""Hands bytes or a close to the side that the direction leads to."""

MOST_WAITING_BYTES: Final = 262_144
"""A direction in which more waits is not read from until less does."""


class _Outlet:
    """What is on its way in one direction, each part with its time of arrival."""

    __slots__ = ("_deliver", "_delivered", "_due", "_loop", "_timer", "waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, deliver: Callable[[Payload], None], delivered: Callable[[], None]
    ) -> None:
        self.waiting = 0
        self._loop = loop
        self._deliver = deliver
        self._delivered = delivered
        self._due: deque[tuple[float, Payload]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, at_s: float, what: Payload) -> None:
        """To be delivered then. A reset overtakes and ends what would have come later."""
        if what is Close.RESET:
            while self._due and self._due[-1][0] > at_s:
                self._take(self._due.pop()[1])
        self._due.append((at_s, what))
        self.waiting += len(what) if isinstance(what, bytes) else 0

    def deliver_due(self, now_s: float) -> None:
        """Deliver what is due, and the rest when it is."""
        while self._due and self._due[0][0] <= now_s:
            self._deliver(self._take(self._due.popleft()[1]))
        self._arm()

    def clear(self) -> None:
        """Deliver nothing any more."""
        self._due.clear()
        self.waiting = 0
        self._arm()

    def _take(self, what: Payload) -> Payload:
        self.waiting -= len(what) if isinstance(what, bytes) else 0
        return what

    def _arm(self) -> None:
        when_s = self._due[0][0] if self._due else math.inf
        if self._timer is not None:
            if self._timer.when() == when_s and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if when_s < math.inf:
            self._timer = self._loop.call_at(when_s, self._ripe)

    def _ripe(self) -> None:
        self._timer = None
        if self._due:
            # The timer may be early by its resolution; what it was set for is due all the same.
            self.deliver_due(max(self._loop.time(), self._due[0][0]))
        self._delivered()


class RunningLine:
    """Feeds a `FaultyLine` and delivers what comes out of it; `regulate` is told that a direction's backlog changed."""

    def __init__(
        self, faults: FaultSet, deliver: Deliver, regulate: Callable[[], None], speech: Speech | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._core = FaultyLine(faults, speech)
        self._deliver = deliver
        self._regulate = regulate
        self._outlets = {way: _Outlet(self._loop, self._delivers(way), regulate) for way in Direction}
        self._due: asyncio.TimerHandle | None = None
        self._closed = False

    def feed(self, direction: Direction, data: bytes) -> None:
        """Bytes have come in this direction."""
        now_s = self._loop.time()
        self._do(self._core.feed(direction, data, now_s), now_s)

    def ended(self, direction: Direction, *, reset: bool = False) -> None:
        """Nothing more comes in this direction."""
        now_s = self._loop.time()
        self._do(self._core.ended(direction, now_s, reset=reset), now_s)

    def changed(self) -> None:
        """The faults have changed, or one of them has ended."""
        now_s = self._loop.time()
        self._do(self._core.due(now_s), now_s)

    def restart(self) -> None:
        """The line is there again after a break."""
        self._core.restart()

    def is_full(self, direction: Direction) -> bool:
        """Whether so much waits in this direction that no more should be taken in."""
        return self._outlets[direction].waiting + self._core.waiting(direction) > MOST_WAITING_BYTES

    def nobody_hears(self, direction: Direction) -> None:
        """The side that this direction leads to is gone: drop what is on its way there."""
        self._outlets[direction].clear()

    def close(self) -> None:
        """Do nothing any more."""
        self._closed = True
        for outlet in self._outlets.values():
            outlet.clear()
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _delivers(self, direction: Direction) -> Callable[[Payload], None]:
        return lambda what: self._deliver(direction, what)

    def _do(self, acts: Iterable[Act], now_s: float) -> None:
        for act in acts:
            self._outlets[act.direction].put(now_s + act.delay_s, act.what)
        for outlet in self._outlets.values():
            outlet.deliver_due(now_s)
        if not self._closed:
            self._arm(now_s)
            self._regulate()

    def _arm(self, now_s: float) -> None:
        when_s = self._core.next_due_s(now_s)
        if self._due is not None:
            if self._due.when() == when_s:
                return
            self._due.cancel()
            self._due = None
        if when_s < math.inf:
            self._due = self._loop.call_at(when_s, self._ripen, when_s)

    def _ripen(self, when_s: float) -> None:
        self._due = None
        now_s = max(self._loop.time(), when_s)
        self._do(self._core.due(now_s), now_s)
