"""What waits for its turn on a link."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from config.vocabulary import WritePriority
from drivers.modbus.request import Request

# A saturated link always has writes waiting, and fast polls: without these the rest would never be served.
_PASSED_OVER_AT_MOST: Final = (0, 12, 6, 6)
"""By priority; nothing goes before fail-safe."""


class RequestQueue:
    """Fail-safe, setpoint, fast poll, slow poll: the first that is not empty is served, oldest first.

    A kind of request that was passed over often enough is served once, so that slow polls go on beside any number of
    fast ones, and polls beside any number of writes.

    Polls are bounded by `capacity`: when they are too many, the oldest of the slowest is dropped and handed back.
    Writes are never dropped; they are bounded by there being one sequence a device.
    """

    __slots__ = ("_by_priority", "_capacity", "_count", "_passed_over")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._by_priority: tuple[deque[Request], ...] = tuple(deque() for _ in WritePriority)
        self._passed_over = [0] * len(WritePriority)

    def push(self, request: Request) -> Request | None:
        """Queue a request; return the poll that had to give way."""
        self._by_priority[request.priority].append(request)
        self._count += 1
        if request.writes:
            return None
        fast, slow = self._by_priority[WritePriority.FAST_POLL], self._by_priority[WritePriority.SLOW_POLL]
        if len(fast) + len(slow) <= self._capacity:
            return None
        self._count -= 1
        return (slow or fast).popleft()

    def push_first(self, request: Request) -> None:
        """Queue the continuation of a sequence before all others of its priority."""
        self._by_priority[request.priority].appendleft(request)
        self._count += 1

    def pop(self) -> Request | None:
        """The next request to send."""
        count = self._count
        if not count:
            return None
        self._count = count - 1
        for at, queue in enumerate(self._by_priority):
            waiting = len(queue)
            if waiting == count:
                # Nothing else waits: the way of nearly every request.
                self._passed_over[at] = 0
                return queue.popleft()
            if waiting:
                break
        turn = self.turn_of([at for at, queue in enumerate(self._by_priority) if queue])
        return self._by_priority[turn].popleft()

    def turn_of(self, waiting: Sequence[int]) -> int:
        """Which of the kinds that wait, the most urgent first, is served now."""
        turn, passed_over = waiting[0], self._passed_over
        for priority in waiting[1:]:
            passed_over[priority] += 1
            if passed_over[priority] > _PASSED_OVER_AT_MOST[priority]:
                turn = priority
        passed_over[turn] = 0
        return turn

    def remove(self, request: Request) -> bool:
        """Take a request out, so that it can be queued with another priority."""
        for queue in self._by_priority:
            if request in queue:
                queue.remove(request)
                self._count -= 1
                return True
        return False

    def drain(self) -> list[Request]:
        """Take everything out, in order of service."""
        waiting = [request for queue in self._by_priority for request in queue]
        for queue in self._by_priority:
            queue.clear()
        self._count = 0
        return waiting
