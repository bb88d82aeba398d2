"""What waits for its turn on a link with several units."""

from __future__ import annotations

from collections.abc import Callable

from drivers.modbus.request import AwaitedRequest, Request
from drivers.modbus.request_queue import RequestQueue


class BusQueue(RequestQueue):
    """As `RequestQueue`, for units that may not all be asked right now; `is_ready` says of a unit whether it may."""

    __slots__ = ("_is_ready",)

    def __init__(self, capacity: int, is_ready: Callable[[int], bool]) -> None:
        super().__init__(capacity)
        self._is_ready = is_ready

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
        first: dict[int, Request] = {}
        for priority, queue in enumerate(self._by_priority):
            for request in queue:
                if self._is_ready(request.unit):
                    first[priority] = request
                    break
        if not first:
            return None
        turn = self.turn_of(list(first))
        self._by_priority[turn].remove(first[turn])
        return first[turn]

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
