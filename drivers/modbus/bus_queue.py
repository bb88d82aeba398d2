"""What waits for its turn on a link with several units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from config.vocabulary import WritePriority
from drivers.modbus.request import AwaitedRequest, Request
from drivers.modbus.request_queue import RequestQueue

# A saturated line always has writes waiting, and fast polls: without these the rest would never be served.
_PASSED_OVER_AT_MOST: Final = {
    WritePriority.SETPOINT: 12,
    WritePriority.FAST_POLL: 6,
    WritePriority.SLOW_POLL: 6,
}


class BusQueue(RequestQueue):
    """As `RequestQueue`, for units that may not all be asked right now; `is_ready` says of a unit whether it may.

    A kind of request that was passed over often enough is served once, so that polls go on beside any number of writes.
    """

    __slots__ = ("_is_ready", "_passed_over")

    def __init__(self, capacity: int, is_ready: Callable[[int], bool]) -> None:
        super().__init__(capacity)
        self._is_ready = is_ready
        self._passed_over = dict.fromkeys(WritePriority, 0)

    def push(self, request: Request) -> Request | None:
        """Queue a request; return the poll that had to give way."""
        if isinstance(request, AwaitedRequest):
            # A unit that is being set up waits for one read after the other: not also behind everybody's slow polls.
            slow = self._by_priority[request.priority]
            slow.insert(sum(isinstance(other, AwaitedRequest) for other in slow), request)
            return None
        return super().push(request)

    def pop(self) -> Request | None:
        """The next request to send to a unit that is ready for it."""
        turn: Request | None = None
        for priority, queue in zip(WritePriority, self._by_priority, strict=True):
            first = next((request for request in queue if self._is_ready(request.unit)), None)
            if first is None:
                continue
            if turn is None:
                turn = first
                continue
            self._passed_over[priority] += 1
            if self._passed_over[priority] > _PASSED_OVER_AT_MOST[priority]:
                turn = first
        if turn is not None:
            self._passed_over[turn.priority] = 0
            self._by_priority[turn.priority].remove(turn)
        return turn

    def waiting_units(self) -> set[int]:
        """The units that a request waits for."""
        return {request.unit for queue in self._by_priority for request in queue}

    def take_unit(self, unit: int) -> list[Request]:
        """Take out everything that waits for a unit."""
        taken = []
        for queue in self._by_priority:
            theirs = [request for request in queue if request.unit == unit]
            for request in theirs:
                queue.remove(request)
            taken += theirs
        return taken
